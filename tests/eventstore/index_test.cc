#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "base/bytes.h"
#include "base/checksum.h"
#include "eventstore/log/segment_index.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using millrace::test::FaultFs;
using millrace::test::must;
using millrace::test::sample_transaction;
using millrace::test::small_options;
using millrace::test::StoredEvent;

namespace {

const Path kStore = "/store";

struct Events {
  std::uint64_t position = 0;
  BatchHeader header{};
  std::vector<StoredEvent> events;
};

/// A store with several small segments, and what its sealed ones hold.
struct Disk {
  FaultFs files;
  StorePaths paths{kStore};
  StoreId id{};
  std::vector<std::uint64_t> sealed;

  SegmentReader segment(std::uint64_t first) {
    return must(SegmentReader::open(files, paths, id, first));
  }

  /// By walking.
  std::vector<Events> batches(std::uint64_t first) {
    auto reader = segment(first);
    const std::uint64_t size = must(reader.file_size());
    std::vector<Events> batches;
    while (reader.state().position() < size) {
      auto found = must(reader.peek());
      must(reader.load(found));
      REQUIRE(found.fault == BatchFault::kNone);
      Batch batch;
      batch.load(found.header, found.payload, Offset{0});
      Events events{.position = found.position, .header = found.header, .events = {}};
      while (const EventView* event = batch.next())
        events.events.push_back({std::string(event->category), std::string(event->key), "",
                                 std::string(event->payload), std::string(event->metadata),
                                 event->flags});
      batches.push_back(std::move(events));
      reader.advance(found);
    }
    return batches;
  }

  std::string build(std::uint64_t first) {
    auto reader = segment(first);
    return must(SegmentIndex::build(reader));
  }

  std::optional<SegmentIndex> open(std::uint64_t first) {
    auto reader = segment(first);
    return SegmentIndex::open(files, paths, reader);
  }

  void put(std::uint64_t first, std::string bytes) {
    files.set_content(paths.index(first), std::move(bytes));
  }
};

void append_random(EventStore& store, std::mt19937_64& random, std::uint64_t number) {
  must(
      store.begin({.source = {.epoch = 1, .commit = number * 10, .end = 0},
                   .source_xid = 0,
                   .commit_time = {static_cast<std::int64_t>(number * 100 + random() % 1000) - 500},
                   .snapshot = false}));
  const std::size_t events = random() % 8 == 0 ? random() % 120 : random() % 6;
  const std::string common = "category" + std::to_string(random() % 7);
  for (std::size_t i = 0; i < events; ++i) {
    const std::string category =
        random() % 4 != 0 ? common : "category" + std::to_string(random() % 7);
    const std::string key = std::to_string(random() % 200);
    const std::string payload(1 + random() % 150, 'x');
    must(store.add({.category = category,
                    .key = key,
                    .type = {},
                    .payload = payload,
                    .metadata = {},
                    .flags = static_cast<EventFlags>(random() % 5 == 0 ? 1 << random() % 3 : 0)}));
  }
  must(store.commit(number * 10 + 5));
}

std::unique_ptr<Disk> random_disk(std::uint64_t seed, std::uint64_t transactions) {
  auto disk = std::make_unique<Disk>();
  std::mt19937_64 random(seed);
  {
    const auto store = must(EventStore::open(kStore, small_options(disk->files)));
    disk->id = store->id();
    for (std::uint64_t number = 1; number <= transactions; ++number)
      append_random(*store, random, number);
  }
  disk->sealed = must(list_segments(disk->files, disk->paths));
  REQUIRE(disk->sealed.size() >= 2);
  disk->sealed.pop_back();
  return disk;
}

/// What walking tells of a segment, in the terms of its index.
struct Truth {
  std::map<std::uint64_t, std::set<std::uint64_t>> by_hash;
  std::map<std::string, std::vector<std::uint64_t>> by_category;
  std::vector<std::uint64_t> ends;
  bool operator==(const Truth&) const = default;
};

Truth truth_of(const std::vector<Events>& batches) {
  Truth truth;
  for (const Events& batch : batches) {
    for (const StoredEvent& event : batch.events) {
      truth.by_hash[stream_hash(event.category, event.key)].insert(batch.position);
      auto& postings = truth.by_category[event.category];
      if (postings.empty() || postings.back() != batch.position) postings.push_back(batch.position);
    }
    if (batch.header.has(kLastOfTransaction) && !batch.header.has(kFirstOfTransaction))
      truth.ends.push_back(batch.position);
  }
  return truth;
}

/// Asks the index everything that `truth` knows; nothing at the first part that is damaged.
std::optional<Truth> ask(const SegmentIndex& index, const Truth& truth) {
  Truth answers;
  std::vector<std::uint64_t> positions;
  for (const auto& [hash, expected] : truth.by_hash) {
    if (!index.find(hash, positions)) return std::nullopt;
    answers.by_hash[hash].insert(positions.begin(), positions.end());
  }
  for (const auto& [category, expected] : truth.by_category) {
    const auto postings = index.postings(category);
    if (!postings) return std::nullopt;
    answers.by_category[category] = *postings;
  }
  const auto ends = index.transaction_ends();
  if (!ends) return std::nullopt;
  answers.ends = *ends;
  return answers;
}

/// seek and seek_time lead to a batch from where a walk finds what it looks for, and close to it.
bool check_seeks(const SegmentIndex& index, const std::vector<Events>& batches) {
  std::int64_t commit_max = std::numeric_limits<std::int64_t>::min();
  for (const Events& batch : batches) {
    const auto by_offset = index.seek({batch.header.base});
    const auto by_time = index.seek_time(batch.header.commit_time);
    if (!by_offset || !by_time) return false;
    CHECK(*by_offset <= batch.position);
    CHECK(batch.position - *by_offset <= kIndexPlaceStep);
    for (const std::uint64_t position : {*by_offset, *by_time})
      CHECK(std::any_of(batches.begin(), batches.end(),
                        [&](const Events& other) { return other.position == position; }));
    // The first one of its time or later: where the greatest time so far reaches it.
    if (batch.header.commit_time.value > commit_max) CHECK(*by_time <= batch.position);
    commit_max = std::max(commit_max, batch.header.commit_time.value);
  }
  return true;
}

std::string golden(const std::string& name) {
  std::string hex;
  for (const char c : must(read_file(FileSystem::real(),
                                     Path(MILLRACE_SOURCE_DIR) / "tests/golden" / name, 1 << 20)))
    if (std::isxdigit(static_cast<unsigned char>(c)) != 0) hex += c;
  return must(from_hex(hex));
}

}  // namespace

TEST_CASE("an index tells of every stream, category, offset and time what walking tells",
          "[eventstore][index]") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    const auto disk = random_disk(seed, 300);
    for (const std::uint64_t first : disk->sealed) {
      CAPTURE(first);
      disk->put(first, disk->build(first));
      const auto index = disk->open(first);
      REQUIRE(index);
      const auto batches = disk->batches(first);
      const Truth truth = truth_of(batches);
      REQUIRE(ask(*index, truth) == truth);
      REQUIRE(check_seeks(*index, batches));
      std::vector<std::uint64_t> positions{1};
      for (std::uint64_t other = 0; other < 300; ++other) {
        must(index->find(checksum("not there", other), positions));
        CHECK(positions.empty());
      }
      CHECK(must(index->postings("category")).empty());
      CHECK(must(index->postings("")).empty());
    }
  }
}

TEST_CASE("an index counts what its segment holds, by category", "[eventstore][index]") {
  const auto disk = random_disk(3, 300);
  for (const std::uint64_t first : disk->sealed) {
    disk->put(first, disk->build(first));
    const auto index = disk->open(first);
    REQUIRE(index);
    const auto batches = disk->batches(first);
    struct Counts {
      std::uint64_t events = 0, bytes = 0, tombstones = 0, truncates = 0, partials = 0;
      std::set<std::string> keys;
      std::vector<std::uint64_t> offsets;
    };
    std::map<std::string, Counts> expected;
    std::uint64_t events = 0;
    std::vector<std::int64_t> commits, appends;
    for (const Events& batch : batches) {
      commits.push_back(batch.header.commit_time.value);
      appends.push_back(batch.header.append_time.value);
      for (std::size_t i = 0; i < batch.events.size(); ++i) {
        const StoredEvent& event = batch.events[i];
        Counts& counts = expected[event.category];
        ++events, ++counts.events;
        counts.bytes += event.key.size() + event.payload.size() + event.metadata.size();
        counts.tombstones += has(event.flags, EventFlags::kTombstone);
        counts.truncates += has(event.flags, EventFlags::kCategoryTombstone);
        counts.partials += has(event.flags, EventFlags::kPartial);
        counts.keys.insert(event.key);
        counts.offsets.push_back(batch.header.base + i);
      }
    }
    const auto categories = must(index->categories());
    REQUIRE(categories.size() == expected.size());
    for (const CategoryEntry& entry : categories) {
      const Counts& counts = expected.at(std::string(entry.name));
      CHECK(entry.events == counts.events);
      CHECK(entry.bytes == counts.bytes);
      CHECK(entry.tombstones == counts.tombstones);
      CHECK(entry.category_tombstones == counts.truncates);
      CHECK(entry.partials == counts.partials);
      CHECK(entry.keys == counts.keys.size());
      CHECK(entry.first.value == counts.offsets.front());
      CHECK(entry.last.value == counts.offsets.back());
      CHECK(entry.batches == must(index->postings(entry.name)).size());
    }
    const IndexHeader& header = index->header();
    CHECK(header.segment == first);
    CHECK(header.events == events);
    CHECK(header.batches == batches.size());
    CHECK(header.last_batch == batches.back().position);
    CHECK(header.end.value == batches.back().header.base + batches.back().header.span);
    CHECK(header.commit_min.value == *std::min_element(commits.begin(), commits.end()));
    CHECK(header.commit_max.value == *std::max_element(commits.begin(), commits.end()));
    CHECK(header.append_min.value == *std::min_element(appends.begin(), appends.end()));
    CHECK(header.append_max.value == *std::max_element(appends.begin(), appends.end()));
  }
}

TEST_CASE("equal hashes in many blocks are all found", "[eventstore][index]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.segment_bytes = 256 << 10;
  StoreId id;
  {
    // One stream in some hundred batches: more than two blocks hold.
    const auto store = must(EventStore::open(kStore, options));
    id = store->id();
    for (std::uint64_t number = 1; number <= 1500; ++number)
      must(test::append(*store, {.commit = number * 10, .events = {{"c", "k", "", "p", "", {}}}}));
    must(test::append(*store, sample_transaction(1501, 10)));
  }
  const StorePaths paths{kStore};
  auto reader = must(SegmentReader::open(files, paths, id, 0));
  files.set_content(paths.index(0), must(SegmentIndex::build(reader)));
  reader = must(SegmentReader::open(files, paths, id, 0));
  const auto index = SegmentIndex::open(files, paths, reader);
  REQUIRE(index);
  REQUIRE(index->header().blocks() > 3);
  std::vector<std::uint64_t> positions;
  must(index->find(stream_hash("c", "k"), positions));
  CHECK(positions == must(index->postings("c")));
  CHECK(positions.size() > 3 * kIndexBlockEntries);
  CHECK(must(index->categories()).front().keys == 1);
}

TEST_CASE("F30: whatever bit or byte of an index is wrong, its answers are right or none",
          "[eventstore][index]") {
  const auto disk = random_disk(5, 120);
  const std::uint64_t first = disk->sealed.front();
  const std::string good = disk->build(first);
  const auto batches = disk->batches(first);
  const Truth truth = truth_of(batches);
  std::size_t noticed = 0;
  const auto try_bytes = [&](const std::string& bytes) {
    disk->put(first, bytes);
    const auto index = disk->open(first);
    if (!index) return void(++noticed);
    const auto answers = ask(*index, truth);
    if (answers && *answers != truth) FAIL("wrong answers");
    if (!answers || !check_seeks(*index, batches)) ++noticed;
  };
  std::size_t tried = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    for (int bit = 0; bit < 8; ++bit) {
      // Every bit of the headers and the small parts; of the blocks one in each byte.
      if (at >= 1024 && bit != static_cast<int>(at % 8)) continue;
      bytes[at] = static_cast<char>(good[at] ^ (1 << bit));
      try_bytes(bytes);
      ++tried;
    }
    for (const char value : {'\0', '\xff'}) {
      if (at % 7 != 0 || good[at] == value) continue;
      bytes[at] = value;
      try_bytes(bytes);
      ++tried;
    }
  }
  // A block in which nothing is looked up may be damaged unseen; all else is noticed.
  CHECK(noticed == tried);
}

TEST_CASE("F29: an index that is cut short anywhere, or goes on too far, is none",
          "[eventstore][index]") {
  const auto disk = random_disk(5, 120);
  const std::uint64_t first = disk->sealed.front();
  const std::string good = disk->build(first);
  for (std::size_t size = 0; size < good.size(); ++size) {
    disk->put(first, good.substr(0, size));
    REQUIRE_FALSE(disk->open(first));
  }
  disk->put(first, good + '\0');
  CHECK_FALSE(disk->open(first));
  disk->put(first, good);
  CHECK(disk->open(first));
}

TEST_CASE("B29: an index of other bytes than its segment's is none", "[eventstore][index]") {
  const auto disk = random_disk(7, 200);
  REQUIRE(disk->sealed.size() >= 2);
  const std::uint64_t first = disk->sealed[0], second = disk->sealed[1];
  const std::string index = disk->build(first);
  SECTION("of another segment") {
    disk->put(second, index);
    CHECK_FALSE(disk->open(second));
  }
  SECTION("of another store") {
    const auto other = random_disk(7, 200);  // the same events, another id
    other->put(first, index);
    CHECK_FALSE(other->open(first));
  }
  SECTION("of a segment that was cut since") {
    disk->put(first, index);
    const std::string bytes = disk->files.content(disk->paths.segment(first));
    disk->files.set_content(disk->paths.segment(first), bytes.substr(0, bytes.size() - 8));
    CHECK_FALSE(disk->open(first));
  }
  SECTION("of a segment whose last batch is another since") {
    disk->put(first, index);
    std::string bytes = disk->files.content(disk->paths.segment(first));
    bytes[disk->batches(first).back().position + 96] ^= 1;
    disk->files.set_content(disk->paths.segment(first), bytes);
    CHECK_FALSE(disk->open(first));
  }
}

TEST_CASE("B29: an index with right checksums and nonsense in it is damaged, not believed",
          "[eventstore][index]") {
  const auto disk = random_disk(9, 120);
  const std::uint64_t first = disk->sealed.front();
  const std::string good = disk->build(first);
  const IndexHeader header = *decode_index_header(std::string_view(good).substr(0, 256));
  /// Changes a part and makes its checksum right again.
  const auto with = [&](std::uint64_t part_at, std::uint64_t part_bytes, std::uint64_t at,
                        std::uint64_t value) {
    std::string bytes = good;
    store_le<std::uint64_t>(bytes.data() + part_at + at, value);
    const std::string_view part = std::string_view(bytes).substr(part_at, part_bytes - 8);
    store_le<std::uint64_t>(bytes.data() + part_at + part_bytes - 8,
                            index_checksum(part, header, part_at));
    disk->put(first, bytes);
    auto index = disk->open(first);
    REQUIRE(index);
    return std::move(*index);
  };
  std::vector<std::uint64_t> positions;
  const std::uint64_t first_hash = load_le<std::uint64_t>(good.data() + header.blocks_at());
  SECTION("a block that leads beyond the data") {
    const auto index =
        with(header.blocks_at(), kIndexBlockBytes, kIndexBlockEntries * 8, 0xffffffff'ffffffff);
    CHECK(index.find(first_hash, positions).error().code() == ErrorCode::kCorruption);
  }
  SECTION("fences that are not sorted") {
    REQUIRE(header.blocks() >= 2);
    const auto index = with(header.lookup_at(), header.lookup_bytes(), 0, ~std::uint64_t{0});
    CHECK(index.find(first_hash, positions).error().code() == ErrorCode::kCorruption);
  }
  SECTION("places that are no batch's") {
    const auto index = with(header.places_at(), header.places_bytes(), 8, header.used_bytes + 8);
    CHECK(index.seek({first}).error().code() == ErrorCode::kCorruption);
  }
  SECTION("a directory that is no directory") {
    const auto index = with(header.directory_at(), header.directory_bytes, 0, 0xffffffff'ffffffff);
    CHECK(index.categories().error().code() == ErrorCode::kCorruption);
    CHECK(index.postings("category1").error().code() == ErrorCode::kCorruption);
    CHECK(index.transaction_ends().error().code() == ErrorCode::kCorruption);
  }
}

TEST_CASE("a damaged or unfinished segment gets no index", "[eventstore][index]") {
  const auto disk = random_disk(11, 120);
  const std::uint64_t first = disk->sealed.front();
  std::string bytes = disk->files.content(disk->paths.segment(first));
  bytes[bytes.size() / 2] ^= 1;
  disk->files.set_content(disk->paths.segment(first), bytes);
  auto damaged = disk->segment(first);
  CHECK(SegmentIndex::build(damaged).error().code() == ErrorCode::kCorruption);
  bytes[bytes.size() / 2] ^= 1;
  disk->files.set_content(disk->paths.segment(first), bytes + std::string(512, '\0'));
  auto unsealed = disk->segment(first);
  CHECK(SegmentIndex::build(unsealed).error().code() == ErrorCode::kCorruption);
}

TEST_CASE("the bytes of an index are those of version 1 for ever", "[eventstore][index][format]") {
  // The golden batch, put behind the header of a segment that it begins.
  SegmentHeader header{.store = {},
                       .segment = 1000,
                       .created = {1'767'225'600'000'001},
                       .predecessor = std::nullopt,
                       .mark = {.end = {1000},
                                .segment = 1000,
                                .position = kSegmentHeaderBytes,
                                .source = {},
                                .commit_time = {}}};
  for (std::size_t i = 0; i < header.store.bytes.size(); ++i)
    header.store.bytes[i] = static_cast<char>(i + 1);
  std::string page(kSegmentHeaderBytes, '\0');
  encode_segment_header(header, page.data());
  std::string batch = golden("log_batch.hex");
  stamp_batch_header(batch.data(), chain_after_page(page), kSegmentHeaderBytes,
                     HeaderSeal(header.store, header.segment).at(kSegmentHeaderBytes));
  FaultFs files;
  const StorePaths paths{kStore};
  must(files.make_directory(kStore));
  must(files.make_directory(paths.log()));
  files.set_content(paths.segment(header.segment), page + batch);

  auto reader = must(SegmentReader::open(files, paths, header.store, header.segment));
  CHECK(to_hex(must(SegmentIndex::build(reader))) == to_hex(golden("log_index.hex")));
  files.set_content(paths.index(header.segment), golden("log_index.hex"));
  auto again = must(SegmentReader::open(files, paths, header.store, header.segment));
  const auto index = SegmentIndex::open(files, paths, again);
  REQUIRE(index);
  const auto categories = must(index->categories());
  REQUIRE(categories.size() == 2);
  CHECK(categories[0].name == "cart");
  CHECK(categories[1].name == "public.orders");
  CHECK(categories[1].events == 2);
  CHECK(categories[1].bytes == 11);
  CHECK(categories[1].tombstones == 1);
  CHECK(categories[1].keys == 1);
  CHECK(categories[1].last.value == 1002);
  std::vector<std::uint64_t> positions;
  must(index->find(stream_hash("public.orders", "42"), positions));
  CHECK(positions == std::vector<std::uint64_t>{kSegmentHeaderBytes});
  must(index->find(stream_hash("public.orders", "43"), positions));
  CHECK(positions.empty());
}
