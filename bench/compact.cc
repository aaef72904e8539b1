#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "eventstore/log_reader.h"
#include "eventstore/policy.h"

namespace millrace::bench {
namespace {

constexpr int kChangesOfARow = 4;
constexpr std::string_view kCategory = "public.orders";

/// Transactions of ten events of about 150 bytes that do not compress; each row changes four times,
/// so three quarters of the log are superseded. The last segment holds something else.
void fill(const Path& directory, int events) {
  StoreOptions options;
  options.segment_bytes = static_cast<std::uint64_t>(events) * 160 / 8 + (64 << 10);
  const auto store = must(EventStore::open(directory, options));
  const PolicyEvent policy =
      must(policy_event(kCategory, CategoryPolicy{.retention = Retention::kCompact}));
  const NewEvent view = policy.view();
  must(store->append({}, {&view, 1}));
  std::mt19937_64 random(1);
  std::string payload(128, '\0');
  for (int i = 0; i < events;) {
    must(store->begin({}));
    for (int k = 0; k < 10; ++k, ++i) {
      for (std::size_t at = 0; at < payload.size(); at += 8) {
        const std::uint64_t bytes = random();
        std::memcpy(payload.data() + at, &bytes, sizeof bytes);
      }
      char key[16];
      std::snprintf(key, sizeof key, "%d", i % (events / kChangesOfARow));
      must(store->add(
          {.category = kCategory, .key = key, .type = {}, .payload = payload, .metadata = {}}));
    }
    must(store->commit(0));
  }
  while (!must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)))) {
  }
}

/// A store of its own with the same segments.
Path copy_of(const Path& directory, int round) {
  const Path copy = directory.string() + std::to_string(round);
  const auto store = must(EventStore::open(directory));
  must(store->maintenance().snapshot(copy));
  return copy;
}

struct Compacted {
  double seconds = 0;
  std::uint64_t input_bytes = 0;
};

Compacted compact(const Path& directory) {
  const auto store = must(EventStore::open(directory));
  const Stopwatch watch;
  const CompactionReport report = must(store->maintenance().compact({}));
  Compacted done{.seconds = watch.seconds()};
  for (const RewrittenSegment& segment : report.rewritten) done.input_bytes += segment.bytes_before;
  if (report.rewritten.empty()) give_up("nothing was compacted");
  return done;
}

/// Reads the store again and again until `done`, at least once; gives events per second.
double scan_until(const Path& directory, const std::atomic<bool>& done) {
  const Stopwatch watch;
  std::uint64_t events = 0;
  double seconds = 0;
  do {
    const auto reader = must(LogReader::open(directory));
    while (Batch* batch = must(reader->next())) {
      while (batch->next() != nullptr) ++events;
      must(batch->status());
      seconds = watch.seconds();
      if (done) break;
    }
  } while (!done);
  return static_cast<double>(events) / seconds;
}

double scan_once(const Path& directory) {
  const Stopwatch watch;
  std::uint64_t events = 0;
  const auto reader = must(LogReader::open(directory));
  while (Batch* batch = must(reader->next()))
    while (batch->next() != nullptr) ++events;
  return static_cast<double>(events) / watch.seconds();
}

}  // namespace

std::vector<Figure> run_compact(const Settings& settings) {
  const int events = settings.tiny ? 8'000 : 2'000'000;
  const Path directory = settings.directory / "compact";
  fill(directory, events);
  Figure rate{.name = "compact, of input on one core",
              .unit = "MB/s",
              .limit = "the same with a reader beside it",
              .goal_of_ours = 100};
  Figure reader{.name = "scan beside compaction",
                .unit = "events/s",
                .limit = "the same scan alone",
                .goal = 0.7};
  for (int round = 0; round < settings.rounds; ++round) {
    Path copy = copy_of(directory, 2 * round);
    reader.limits.push_back(scan_once(copy));
    const auto in_mb = [](const Compacted& done) {
      return static_cast<double>(done.input_bytes) / 1e6 / done.seconds;
    };
    rate.ours.push_back(in_mb(compact(copy)));
    std::filesystem::remove_all(copy);

    copy = copy_of(directory, 2 * round + 1);
    std::atomic<bool> done = false;
    std::jthread scanner([&] { reader.ours.push_back(scan_until(copy, done)); });
    rate.limits.push_back(in_mb(compact(copy)));
    done = true;
    scanner.join();
    std::filesystem::remove_all(copy);
  }
  std::filesystem::remove_all(directory);
  return {rate, reader};
}

}  // namespace millrace::bench
