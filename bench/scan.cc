#include "base/checksum.h"
#include "base/file.h"
#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "eventstore/log_reader.h"

namespace millrace::bench {
namespace {

/// Transactions of ten events of about 100 bytes each.
void fill(const Path& directory, int events) {
  const auto store = must(EventStore::open(directory));
  const std::string payload(80, 'x');
  for (int i = 0; i < events;) {
    must(store->begin({}));
    for (int k = 0; k < 10; ++k, ++i) {
      char key[16];
      std::snprintf(key, sizeof key, "%d", i);
      must(store->add({.category = "public.orders",
                       .key = key,
                       .type = {},
                       .payload = payload,
                       .metadata = {}}));
    }
    must(store->commit(0));
  }
  must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
}

double scan(const Path& directory, int events) {
  const Stopwatch watch;
  const auto reader = must(LogReader::open(directory));
  int seen = 0;
  std::size_t bytes = 0;
  for (;;) {
    Batch* batch = must(reader->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      ++seen;
      bytes += event->payload.size() + event->key.size();
    }
    must(batch->status());
  }
  const double seconds = watch.seconds();
  if (seen != events || bytes == 0) give_up("scan saw " + std::to_string(seen) + " events");
  return seconds;
}

double read_and_hash(const Path& directory) {
  const Stopwatch watch;
  std::string buffer(1 << 20, '\0');
  std::uint64_t sum = 0;
  for (const std::string& name : must(FileSystem::real().list(directory / "log"))) {
    const auto file = must(FileSystem::real().open(directory / "log" / name, OpenMode::kRead));
    for (std::uint64_t position = 0;;) {
      const std::size_t count = must(file->read_at(position, buffer));
      if (count == 0) break;
      sum ^= checksum(std::string_view(buffer).substr(0, count));
      position += count;
    }
  }
  const double seconds = watch.seconds();
  if (sum == 0) give_up("the hash is zero");
  return seconds;
}

}  // namespace

std::vector<Figure> run_scan(const Settings& settings) {
  const int events = settings.tiny ? 10'000 : 5'000'000;
  const Path directory = settings.directory / "scan";
  fill(directory, events);
  scan(directory, events);  // into the page cache
  Figure figure{.name = "scan",
                .unit = "events/s",
                .limit = "read + XXH3 of the files",
                .goal = 0.5,
                .goal_of_ours = 5e6};
  for (int round = 0; round < settings.rounds; ++round) {
    figure.ours.push_back(events / scan(directory, events));
    figure.limits.push_back(events / read_and_hash(directory));
  }
  std::filesystem::remove_all(directory);
  return {figure};
}

}  // namespace millrace::bench
