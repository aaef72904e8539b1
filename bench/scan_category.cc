#include <random>

#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"

// A hundred categories, transactions of ten events of about 100 bytes, each of one category. The
// same store is read whole and for one category. Its segments are full, but for the last one, which
// has just begun: there is no index for that.

namespace millrace::bench {
namespace {

constexpr int kCategories = 100;
constexpr const char* kWanted = "public.table42";

std::size_t segments_of(const Path& directory) {
  return must(log::list_segments(FileSystem::real(), log::StorePaths(directory))).size();
}

/// At least `events`, and on to the next roll. Gives how many.
int fill(const Path& directory, int events, std::uint64_t segment_bytes) {
  StoreOptions options;
  options.segment_bytes = segment_bytes;
  const auto store = must(EventStore::open(directory, options));
  std::mt19937_64 random(1);
  std::string payload(80, ' ');
  int written = 0;
  std::size_t segments = 0;
  for (int number = 0;; ++number) {
    must(store->begin({}));
    const std::string category = "public.table" + std::to_string(number % kCategories);
    for (int k = 0; k < 10; ++k, ++written) {
      for (char& byte : payload) byte = static_cast<char>('a' + random() % 16);
      must(store->add({.category = category,
                       .key = std::to_string(written),
                       .type = {},
                       .payload = payload,
                       .metadata = {}}));
    }
    must(store->commit(0));
    if (written < events || number % 1000 != 0) continue;
    must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
    if (segments == 0) segments = segments_of(directory);
    if (segments_of(directory) > segments) break;
  }
  must(store->run_maintenance());
  return written;
}

struct Seen {
  double seconds = 0;
  int events = 0;
};

Seen scan(const Path& directory, const std::vector<std::string>& categories) {
  const Stopwatch watch;
  const auto reader = must(LogReader::open(directory, {.categories = categories}));
  Seen seen;
  std::size_t bytes = 0;
  while (Batch* batch = must(reader->next())) {
    while (const EventView* event = batch->next()) {
      ++seen.events;
      bytes += event->payload.size() + event->key.size();
    }
    must(batch->status());
  }
  seen.seconds = watch.seconds();
  if (bytes == 0) give_up("the scan saw nothing");
  return seen;
}

}  // namespace

std::vector<Figure> run_scan_category(const Settings& settings) {
  const Path directory = settings.directory / "scan_category";
  const int events =
      settings.tiny ? fill(directory, 20'000, 256 << 10) : fill(directory, 5'000'000, 64 << 20);
  scan(directory, {});  // into the page cache
  Figure figure{.name = "scan_category",
                .unit = "events/s",
                .limit = "scan of all",
                .goal = settings.tiny ? 0.0 : 20.0};
  for (int round = 0; round < settings.rounds; ++round) {
    // Events of the store a second: those that are passed over count, as for a full scan by hand.
    const Seen wanted = scan(directory, {kWanted});
    if (wanted.events < events / kCategories - 10 || wanted.events > events / kCategories + 10)
      give_up("a hundredth of the events are " + std::to_string(wanted.events));
    figure.ours.push_back(events / wanted.seconds);
    const Seen all = scan(directory, {});
    if (all.events != events) give_up("the scan saw " + std::to_string(all.events) + " events");
    figure.limits.push_back(events / all.seconds);
  }
  std::filesystem::remove_all(directory);
  return {figure};
}

}  // namespace millrace::bench
