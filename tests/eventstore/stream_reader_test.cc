#include "eventstore/stream_reader.h"

#include <algorithm>
#include <map>
#include <random>

#include "eventstore/log/stream_versions.h"
#include "eventstore/log/tail_index.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

struct Seen {
  std::string payload;
  std::optional<std::uint64_t> version;
  std::uint64_t offset = 0;
  bool operator==(const Seen&) const = default;
};
using Stream = std::vector<Seen>;

Stream read(StreamReader& reader, const StreamName& stream, const StreamRange& range = {}) {
  Stream seen;
  must(reader.read(stream, range, [&](const EventView& event, const TransactionInfo&) {
    CHECK(event.category == stream.category);
    CHECK(event.key == stream.key);
    seen.push_back({std::string(event.payload), event.version, event.offset.value});
    return true;
  }));
  return seen;
}

Stream reversed(Stream stream) {
  std::reverse(stream.begin(), stream.end());
  return stream;
}

/// Appends `events` events to `keys` streams in random portions, some beside captured transactions;
/// gives what each stream then is.
std::map<std::string, Stream> fill(EventStore& store, std::uint64_t seed, int appends, int keys) {
  std::mt19937_64 random(seed);
  std::map<std::string, Stream> streams;
  for (int i = 0; i < appends; ++i) {
    if (random() % 10 == 0) {
      const NewEvent captured{
          .category = "t", .key = "row", .type = {}, .payload = "captured", .metadata = {}};
      const Offset at = must(store.append({}, {&captured, 1}));
      streams["t/row"].push_back({"captured", std::nullopt, at.value});
      continue;
    }
    std::vector<std::string> payloads;
    for (std::size_t n = 1 + random() % 4; n != 0; --n)
      payloads.push_back(std::to_string(i) + std::string(random() % 300, 'x'));
    std::vector<NewStreamEvent> events;
    for (const std::string& payload : payloads)
      events.push_back({.type = "T", .payload = payload, .metadata = {}});
    const std::string key = std::to_string(random() % static_cast<unsigned>(keys));
    const StreamAppend part{.stream = {"c", key}, .expected = {}, .events = events};
    const auto result = must(store.append({.streams = {&part, 1}, .idempotency_key = {}}));
    Stream& stream = streams["c/" + key];
    for (std::size_t n = 0; n < payloads.size(); ++n)
      stream.push_back({payloads[n], stream.size(), result.first.value + n});
  }
  store.request_flush();
  must(store.wait_durable(store.appended_end(), 0, std::chrono::minutes(1)));
  return streams;
}

}  // namespace

TEST_CASE("a stream is read forwards and backwards, from any version, across segments",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const auto reader = must(StreamReader::open(kStore, files));
  CHECK(read(*reader, {"c", "1"}).empty());
  CHECK(must(reader->last_version({"c", "1"})) == std::nullopt);
  const auto streams = fill(*store, 1, 400, 7);
  CHECK(files.names(kStore / "log").size() > 5);
  const auto late = must(StreamReader::open(kStore, files));
  for (StreamReader* one : {reader.get(), late.get()}) {
    for (const auto& [name, stream] : streams) {
      const StreamName id{name.substr(0, 1) == "c" ? "c" : "t", std::string_view(name).substr(2)};
      INFO(name);
      CHECK(read(*one, id) == stream);
      CHECK(read(*one, id, {.direction = ReadDirection::kBackward}) == reversed(stream));
      if (id.category == "t") {
        CHECK(must(one->last_version(id)) == std::nullopt);
        CHECK(read(*one, id, {.from = 0}).empty());
        continue;
      }
      CHECK(must(one->last_version(id)) == stream.size() - 1);
      for (const std::uint64_t from : {std::uint64_t{0}, stream.size() / 2, stream.size() - 1,
                                       stream.size(), ~std::uint64_t{0}}) {
        const std::size_t at = std::min<std::size_t>(from, stream.size());
        CHECK(read(*one, id, {.from = from}) ==
              Stream(stream.begin() + static_cast<long>(at), stream.end()));
        const std::size_t end = std::min<std::size_t>(at + 1, stream.size());
        const Stream below(stream.begin(), stream.begin() + static_cast<long>(end));
        CHECK(read(*one, id, {.from = from, .direction = ReadDirection::kBackward}) ==
              reversed(below));
      }
      CHECK(read(*one, id, {.from = 2, .limit = 3}) ==
            Stream(stream.begin() + 2, stream.begin() + 5));
      CHECK(read(*one, id, {.limit = 0}).empty());
    }
  }
}

TEST_CASE("a stream that is followed shows what becomes durable, and nothing before",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const auto reader = must(StreamReader::open(kStore, files));
  const NewStreamEvent event{.type = "T", .payload = "p", .metadata = {}};
  const StreamAppend part{.stream = {"c", "1"}, .expected = {}, .events = {&event, 1}};
  for (std::uint64_t version = 0; version < 30; ++version) {
    must(store->append({.streams = {&part, 1}, .idempotency_key = {}}));
    CHECK(read(*reader, {"c", "1"}).size() == version);
    CHECK_FALSE(must(reader->wait(std::chrono::milliseconds(0))));
    store->request_flush();
    CHECK(must(reader->wait(std::chrono::minutes(1))));
    CHECK(must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1))));
    CHECK(read(*reader, {"c", "1"}, {.from = version}).size() == 1);
  }
}

TEST_CASE("a stream does not show a piece of a transaction that is not whole",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  must(store->begin({}));
  const std::string payload(3'000, 'x');
  for (int i = 0; i < 40; ++i)  // more than a segment: a part of it is on the disk already
    must(store->add({.category = "t", .key = "1", .type = {}, .payload = payload, .metadata = {}}));
  CHECK(files.names(kStore / "log").size() > 1);
  const auto early = must(StreamReader::open(kStore, files));
  CHECK(read(*early, {"t", "1"}).empty());
  must(store->commit(0));
  store->request_flush();
  must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
  CHECK(read(*early, {"t", "1"}).size() == 40);
}

TEST_CASE("F40: a segment that is cut under a reader of streams is an error that names it",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const auto streams = fill(*store, 2, 300, 3);
  const auto reader = must(StreamReader::open(kStore, files));
  CHECK(read(*reader, {"c", "1"}) == streams.at("c/1"));
  const std::string name = files.names(kStore / "log").front();
  const Path first = kStore / "log" / name;
  files.set_content(first, files.content(first).substr(0, 5'000));
  const auto result = reader->read({"c", "1"}, {}, [](const auto&, const auto&) { return true; });
  REQUIRE_FALSE(result);
  CHECK(result.error().code() == ErrorCode::kCorruption);
  CHECK(result.error().message().find(name) != std::string::npos);
}

TEST_CASE("the end of a long stream is found without reading its beginning, and the other way round",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const Stream stream = fill(*store, 3, 600, 3).at("c/1");
  const auto names = files.names(kStore / "log");
  REQUIRE(names.size() > 10);
  const auto cut = [&](const std::string& name) {
    const Path path = kStore / "log" / name;
    const std::string whole = files.content(path);
    files.set_content(path, whole.substr(0, 4096));
    return [&files, path, whole] { files.set_content(path, whole); };
  };
  const auto reads_all = [](StreamReader& reader) {
    return reader
        .read({"c", "1"}, {}, [](const EventView&, const TransactionInfo&) { return true; })
        .has_value();
  };
  const std::uint64_t late = stream.size() - 5;
  {
    const auto mend = cut(names.front());
    const auto reader = must(StreamReader::open(kStore, files));
    CHECK(read(*reader, {"c", "1"}, {.from = late}) == Stream(stream.end() - 5, stream.end()));
    CHECK_FALSE(reads_all(*reader));
    mend();
  }
  const auto mend = cut(names[names.size() - 2]);
  const auto reader = must(StreamReader::open(kStore, files));
  CHECK(read(*reader, {"c", "1"}, {.from = 4, .direction = ReadDirection::kBackward}) ==
        reversed(Stream(stream.begin(), stream.begin() + 5)));
  CHECK_FALSE(reads_all(*reader));
  mend();
}

TEST_CASE("the writer finds versions and idempotency keys in the log when it has forgotten them",
          "[eventstore][streams]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const auto streams = fill(*store, 3, 200, 5);
  log::StreamVersions versions(files, kStore, 0);  // forgets at once
  for (int i = 0; i < 8; ++i) {
    const std::string key = std::to_string(i);
    const auto stream = streams.find("c/" + key);
    CHECK(must(versions.next_version({"c", key})) ==
          (stream == streams.end() ? 0 : stream->second.size()));
  }
  const std::vector<NewStreamEvent> events(700, {.type = "T", .payload = "p", .metadata = {}});
  const std::vector<StreamAppend> parts{
      {.stream = {"c", "1"}, .expected = {}, .events = events},
      {.stream = {"c", "2"}, .expected = {}, .events = {}},
      {.stream = {"d", "1"}, .expected = {}, .events = {events.data(), 1}}};
  const AppendRequest request{.streams = parts, .idempotency_key = "key"};
  const AppendResult result = must(store->append_durably(request));  // in several batches
  log::StreamVersions later(files, kStore, 0);
  const auto found = must(later.find_append(request));
  REQUIRE(found);
  CHECK(found->repeated);
  CHECK(found->first == result.first);
  CHECK(found->end == result.end);
  CHECK(found->next_versions == result.next_versions);
  CHECK_FALSE(must(later.find_append({.streams = parts, .idempotency_key = "another"})));
  CHECK_FALSE(later.find_append({.streams = {parts.data(), 1}, .idempotency_key = "key"}));
}

TEST_CASE("an index in memory finds each position once, whatever the hashes are",
          "[eventstore][streams]") {
  std::mt19937_64 random(4);
  log::TailIndex index;
  std::map<std::uint64_t, std::vector<std::uint64_t>> model;
  std::vector<std::uint64_t> found;
  index.find(1, found);
  CHECK(found.empty());
  for (std::uint64_t position = 4096, i = 0; i < 20'000; ++i) {
    if (random() % 3 == 0) position += 8 * (1 + random() % 100);
    const std::uint64_t hash = random() % 5 == 0 ? (random() % 50) << 40 : random() % 3'000;
    index.add(hash, position);
    auto& positions = model[hash];
    if (positions.empty() || positions.back() != position) positions.push_back(position);
  }
  for (const auto& [hash, positions] : model) {
    index.find(hash, found);
    if (found != positions) FAIL("hash " << hash);
  }
}
