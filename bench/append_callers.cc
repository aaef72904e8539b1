#include <algorithm>
#include <atomic>
#include <thread>

#include "bench/bench.h"
#include "bench/jetstream.h"
#include "bench/rhythm.h"
#include "eventstore/event_store.h"

namespace millrace::bench {
namespace {

constexpr int kCallers = 64;
constexpr std::size_t kPayloadBytes = 120;  // 150 bytes with category, key and type

/// One append of `events` events to one stream; durable on return.
void append_one(EventStore& store, const std::string& key, int events) {
  static const std::string payload(kPayloadBytes, 'x');
  const std::vector<NewStreamEvent> all(static_cast<std::size_t>(events),
                                        {.type = "Added", .payload = payload, .metadata = {}});
  const StreamAppend part{.stream = {"public.orders", key}, .expected = {}, .events = all};
  must(store.append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
}

/// Events per second of so many threads, of which each appends and waits, and again.
double append_together(const Path& directory, FileSystem& files, int appends, int events_each) {
  StoreOptions options;
  options.files = &files;
  const auto store = must(EventStore::open(directory, options));
  std::atomic<int> next = 0;
  const Stopwatch watch;
  {
    std::vector<std::jthread> callers;
    for (int caller = 0; caller < kCallers; ++caller)
      callers.emplace_back([&] {
        for (int number; (number = next++) < appends;)
          append_one(*store, std::to_string(number), events_each);
      });
  }
  return appends * events_each / watch.seconds();
}

/// Microseconds of each append of a single caller.
std::vector<double> append_alone(const Path& directory, FileSystem& files, int appends) {
  StoreOptions options;
  options.files = &files;
  const auto store = must(EventStore::open(directory, options));
  std::vector<double> micros;
  for (int number = 0; number < appends; ++number) {
    const Stopwatch watch;
    append_one(*store, std::to_string(number), 1);
    micros.push_back(watch.seconds() * 1e6);
  }
  return micros;
}

/// Events per second of one appender that waits for nothing until the end.
double append_unsynced(const Path& directory, int events) {
  StoreOptions options;
  options.durability = Durability::kOs;
  const auto store = must(EventStore::open(directory, options));
  const std::string payload(kPayloadBytes, 'x');
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
  return events / watch.seconds();
}

}  // namespace

std::vector<Figure> run_append_callers(const Settings& settings) {
  const int appends = settings.tiny ? 640 : 200'000, alone = settings.tiny ? 10 : 2'000;
  constexpr int kEventsEach = 10;
  Figure together{.name = "append, 64 callers",
                  .unit = "events/s",
                  .limit = "raw write + fdatasync in the same rhythm",
                  .goal = 0.8,
                  .goal_of_ours = 300'000};
  Figure batched = together;
  batched.name = "the same, ten events an append";
  Figure single{.name = "append, one caller, p50",
                .unit = "us",
                .limit = "write + fdatasync, p50, and 50 us",
                .goal = 1,
                .at_most = true};
  Figure unsynced{
      .name = "append, mode os", .unit = "events/s", .limit = "", .goal_of_ours = 2'000'000};
  Figure jetstream{.name = "append, 64 callers",
                   .unit = "events/s",
                   .limit = "NATS JetStream, 64 publishers, without syncs"};
  const Path store = settings.directory / "append", raw = settings.directory / "append.raw";
  const auto run = [&](Figure& figure, int events_each) {
    ListeningFileSystem files;
    const int count = events_each == 1 ? appends : appends / 4;
    figure.ours.push_back(append_together(store, files, count, events_each));
    const double seconds = total_of(raw_writes(raw, files.rhythm.take()));
    figure.limits.push_back(count * events_each / seconds);
    std::filesystem::remove_all(store);
    std::filesystem::remove(raw);
  };
  for (int round = 0; round < settings.rounds; ++round) {
    run(together, 1);
    run(batched, kEventsEach);
    {
      ListeningFileSystem files;
      single.ours.push_back(median(append_alone(store, files, alone)));
      single.limits.push_back(median(raw_writes(raw, files.rhythm.take())) * 1e6 + 50);
      std::filesystem::remove_all(store);
      std::filesystem::remove(raw);
    }
    unsynced.ours.push_back(append_unsynced(store, appends * 10));
    std::filesystem::remove_all(store);
    if (const auto rate = publish_to_jetstream(settings.directory / "jetstream", kCallers,
                                               appends / 10, kPayloadBytes)) {
      jetstream.ours.push_back(together.ours.back());
      jetstream.limits.push_back(*rate);
    }
  }
  std::vector<Figure> figures{together, batched, single, unsynced};
  if (!jetstream.ours.empty()) figures.push_back(jetstream);
  return figures;
}

}  // namespace millrace::bench
