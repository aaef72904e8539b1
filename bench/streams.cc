#include <algorithm>
#include <numeric>
#include <random>
#include <span>

#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "eventstore/stream_reader.h"

namespace millrace::bench {
namespace {

constexpr int kLongStreams = 1'000;
constexpr int kLongEvents = 20;

std::string key_of(std::uint64_t number) { return "stream-" + std::to_string(number); }
std::string long_key_of(std::uint64_t number) { return "long-" + std::to_string(number); }

/// An event of 150 bytes to one stream; not waited for.
void append(EventStore& store, const std::string& key, ExpectedVersion expected) {
  static const std::string payload(130, 'x');
  const NewStreamEvent event{.type = "Happened", .payload = payload};
  const StreamAppend part{.stream = {"order", key}, .expected = expected, .events = {&event, 1}};
  must(store.append({.streams = {&part, 1}}));
}

void wait_durable(EventStore& store) {
  store.request_flush();
  must(store.wait_durable(store.appended_end(), 0, std::chrono::minutes(5)));
}

/// `streams` streams of one event each, and among them kLongStreams whose events are spread evenly.
void fill(EventStore& store, int streams, int long_streams) {
  const int rounds = kLongEvents, a_round = streams / rounds;
  for (int round = 0, next = 0; round < rounds; ++round) {
    const int every = std::max(1, a_round / long_streams);
    for (int i = 0, long_next = 0; i < a_round; ++i) {
      append(store, key_of(static_cast<std::uint64_t>(next++)), ExpectedVersion::any());
      if (i % every == 0 && long_next < long_streams)
        append(store, long_key_of(static_cast<std::uint64_t>(long_next++)), ExpectedVersion::any());
    }
    stop_if_asked();
  }
  wait_durable(store);
}

/// Seconds that reading one long stream takes, of so many random ones.
std::vector<double> read_streams(StreamReader& reader, int reads, int long_streams,
                                 std::mt19937_64& random) {
  std::vector<double> seconds;
  for (int i = 0; i < reads; ++i) {
    const std::string key = long_key_of(random() % static_cast<unsigned>(long_streams));
    int events = 0;
    const Stopwatch watch;
    must(reader.read({"order", key}, {}, [&](const EventView&, const TransactionInfo&) {
      ++events;
      return true;
    }));
    seconds.push_back(watch.seconds());
    if (events != kLongEvents) give_up(key + " has " + std::to_string(events) + " events");
  }
  return seconds;
}

/// Seconds for appends to streams that have one event each: the next of `order`.
double append_some(EventStore& store, std::span<const std::uint64_t> order, bool exact) {
  const Stopwatch watch;
  for (const std::uint64_t number : order)
    append(store, key_of(number), exact ? ExpectedVersion::exact(0) : ExpectedVersion::any());
  const double seconds = watch.seconds();
  wait_durable(store);
  return seconds;
}

}  // namespace

std::vector<Figure> run_streams(const Settings& settings) {
  const int streams = settings.tiny ? 20'000 : 1'000'000;
  const int long_streams = settings.tiny ? 50 : kLongStreams;
  const int reads = settings.tiny ? 100 : 20'000, appends = settings.tiny ? 200 : 50'000;
  const Path directory = settings.directory / "streams";
  StoreOptions options;
  if (settings.tiny) options.segment_bytes = 1 << 20;
  auto store = must(EventStore::open(directory, options));
  fill(*store, streams, long_streams);
  must(store->run_maintenance());  // the indexes of what is sealed by then
  const auto reader = must(StreamReader::open(directory));
  std::mt19937_64 random(1);
  read_streams(*reader, reads, long_streams, random);  // into the page cache

  Figure read{
      .name = "stream read p50", .unit = "us", .limit = "goal: 30 us", .goal = 1, .at_most = true};
  Figure exact{.name = "append, exact version",
               .unit = "us/append",
               .limit = "without a condition",
               .goal = 1.3,
               .at_most = true};
  std::vector<std::uint64_t> order(static_cast<std::size_t>(streams));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::span<const std::uint64_t> left(order);
  const auto next = [&] {
    const auto part = left.first(static_cast<std::size_t>(appends));
    left = left.subspan(part.size());
    return part;
  };
  for (int round = 0; round < settings.rounds; ++round) {
    read.ours.push_back(1e6 * median(read_streams(*reader, reads, long_streams, random)));
    read.limits.push_back(30);
    exact.ours.push_back(1e6 * append_some(*store, next(), true) / appends);
    exact.limits.push_back(1e6 * append_some(*store, next(), false) / appends);
  }
  store.reset();
  std::filesystem::remove_all(directory);
  return {read, exact};
}

}  // namespace millrace::bench
