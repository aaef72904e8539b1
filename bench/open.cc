#include <cstdlib>
#include <random>

#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "eventstore/log/store_files.h"

// Opening costs the segment that is being written, whatever lies before it. Two stores that differ
// only in the number of full segments: a real log, of events that don't compress. In both the last
// segment is nearly full, which is the worst that opening meets.

namespace millrace::bench {
namespace {

struct Shape {
  std::uint64_t segment_bytes;
  std::uint64_t small_bytes, large_bytes;
};

std::uint64_t env_or(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

StoreOptions options_for(const Shape& shape) {
  StoreOptions options;
  options.segment_bytes = shape.segment_bytes;
  return options;
}

class Filler {
 public:
  explicit Filler(EventStore& store) : store_(store), noise_(1 << 20, '\0') {
    std::mt19937_64 random(7);
    for (char& byte : noise_) byte = static_cast<char>(random());
  }

  /// Transactions of ten events; gives about how many bytes they take.
  std::uint64_t add(std::size_t payload_bytes) {
    must(store_.begin({}));
    for (int i = 0; i < 10; ++i, ++number_) {
      const std::size_t at = number_ * 7919 % (noise_.size() - payload_bytes);
      const std::string key = std::to_string(number_);
      must(store_.add({.category = "public.orders",
                       .key = key,
                       .type = {},
                       .payload = std::string_view(noise_).substr(at, payload_bytes),
                       .metadata = {}}));
    }
    must(store_.commit(0));
    return 10 * (payload_bytes + 12) + 150;
  }

 private:
  EventStore& store_;
  std::string noise_;
  std::uint64_t number_ = 0;
};

/// `bytes` of log: full segments of large events, then one of small events that is nearly full.
void fill(const Path& directory, const Shape& shape, std::uint64_t bytes) {
  const log::StorePaths paths(directory);
  const auto segments = [&] { return must(log::list_segments(FileSystem::real(), paths)).size(); };
  {
    const auto store = must(EventStore::open(directory, options_for(shape)));
    Filler filler(*store);
    const std::size_t payload = shape.segment_bytes / 1024 < 4096 ? 1000 : 8000;
    const std::uint64_t full = bytes / shape.segment_bytes;
    const auto sync = [&] {
      must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
    };
    while (segments() < full)
      for (int k = 0; k < 16; ++k) filler.add(payload);
    sync();
    // What was pending is in the last one; on to the start of the next.
    for (const std::size_t before = segments(); segments() == before; sync()) filler.add(payload);
    for (std::uint64_t left = shape.segment_bytes * 8 / 10; left > 3000;)
      left -= std::min(left, filler.add(100));
    sync();
    must(store->run_maintenance());
  }
  std::uint64_t there = 0;
  for (const std::uint64_t segment : must(log::list_segments(FileSystem::real(), paths)))
    there += std::filesystem::file_size(paths.segment(segment));
  if (there < bytes * 9 / 10)
    give_up("a store of " + std::to_string(there) + " bytes instead of " + std::to_string(bytes));
}

double open_ms(const Path& directory, const Shape& shape) {
  const Stopwatch watch;
  const auto store = must(EventStore::open(directory, options_for(shape)));
  const double milliseconds = watch.seconds() * 1000;
  if (store->durable_end().value == 0) give_up("the store is empty");
  return milliseconds;
}

}  // namespace

std::vector<Figure> run_open(const Settings& settings) {
  constexpr std::uint64_t kGiB = 1u << 30;
  const std::uint64_t large = env_or("MILLRACE_BENCH_OPEN_GIB", 10) * kGiB;
  const Shape shape = settings.tiny ? Shape{128 << 10, 1 << 20, 10 << 20}
                                    : Shape{128 << 20, std::min(kGiB, large / 4), large};
  const Path small_store = settings.directory / "open_small";
  const Path large_store = settings.directory / "open_large";
  fill(small_store, shape, shape.small_bytes);
  fill(large_store, shape, shape.large_bytes);
  Figure figure{.name = "open " + std::to_string(shape.large_bytes >> 20) + " MiB",
                .unit = "ms",
                .limit = "open " + std::to_string(shape.small_bytes >> 20) + " MiB",
                .goal = 1.3,
                .at_most = true,
                .goal_of_ours = 200};
  for (const Path& directory : {small_store, large_store}) open_ms(directory, shape);
  for (int round = 0; round < settings.rounds; ++round) {
    figure.ours.push_back(open_ms(large_store, shape));
    figure.limits.push_back(open_ms(small_store, shape));
  }
  std::filesystem::remove_all(small_store);
  std::filesystem::remove_all(large_store);
  return {figure};
}

}  // namespace millrace::bench
