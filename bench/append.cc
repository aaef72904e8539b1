#include "bench/bench.h"
#include "bench/rhythm.h"
#include "eventstore/event_store.h"

namespace millrace::bench {
namespace {

double append_events(const Path& directory, ListeningFileSystem& files, int events) {
  StoreOptions options;
  options.files = &files;
  const auto store = must(EventStore::open(directory, options));
  files.rhythm.take();
  const std::string payload(110, 'x');
  const Stopwatch watch;
  for (int i = 0; i < events; ++i) {
    char key[16];
    std::snprintf(key, sizeof key, "%d", i);
    const NewEvent event{.category = "public.orders",
                         .key = key,
                         .type = "Added",
                         .payload = payload,
                         .metadata = {}};
    must(store->append({}, std::span(&event, 1)));
  }
  must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
  return watch.seconds();
}

}  // namespace

std::vector<Figure> run_append(const Settings& settings) {
  const int events = settings.tiny ? 10'000 : 2'000'000;
  Figure figure{
      .name = "append", .unit = "events/s", .limit = "raw write + fdatasync", .goal = 0.8};
  for (int round = 0; round < settings.rounds; ++round) {
    const Path store = settings.directory / "append", raw = settings.directory / "append.raw";
    ListeningFileSystem files;
    figure.ours.push_back(events / append_events(store, files, events));
    figure.limits.push_back(events / total_of(raw_writes(raw, files.rhythm.take())));
    std::filesystem::remove_all(store);
    std::filesystem::remove(raw);
  }
  return {figure};
}

}  // namespace millrace::bench
