#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_rewriter.h"
#include "eventstore/log/store_files.h"
#include "tests/support/forwarding_fs.h"
#include "tests/support/store_fixture.h"

// With indexes a reader has to give what it gives without them, and only sooner.

using namespace millrace;
using namespace millrace::log;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
const StorePaths kPaths{kStore};

/// A transaction of which most events are of one category; now and then one of many batches, with a
/// few others in it, that goes on in the next segment.
void append_random(EventStore& store, std::mt19937_64& random, std::uint64_t number) {
  const auto jitter = static_cast<std::int64_t>(random() % 400);
  must(store.begin({.source = {.epoch = 1, .commit = number * 10, .end = 0},
                    .source_xid = 0,
                    .commit_time = {static_cast<std::int64_t>(number) * 100 + jitter},
                    .snapshot = false}));
  const std::size_t events = random() % 10 == 0 ? random() % 500 : random() % 6;
  const std::string common = random() % 20 == 0 ? "rare" : "common" + std::to_string(random() % 3);
  for (std::size_t i = 0; i < events; ++i) {
    const bool other = random() % 90 == 0;
    const std::string payload(1 + random() % 90, 'x');
    must(store.add({.category = other ? "scattered" : common,
                    .key = std::to_string(i),
                    .type = {},
                    .payload = payload,
                    .metadata = {}}));
  }
  must(store.commit(number * 10 + 5));
}

void fill(FaultFs& files, std::uint64_t seed, std::uint64_t first, std::uint64_t last) {
  std::mt19937_64 random(seed);
  const auto store = must(EventStore::open(kStore, small_options(files)));
  for (std::uint64_t number = first; number <= last; ++number)
    append_random(*store, random, number);
}

void index_all(FaultFs& files) {
  must(must(EventStore::open(kStore, small_options(files)))->run_maintenance());
}

struct Given {
  std::uint64_t segment, position, first;
  std::int64_t commit_time;
  bool begins, ends;
  std::vector<std::pair<std::uint64_t, std::string>> events;  // offset and category
  std::uint64_t read_to;                                      // the reader's position then
  bool operator==(const Given&) const = default;
};

void read_on(LogReader& reader, std::vector<Given>& given) {
  while (Batch* batch = must(reader.next())) {
    Given one{.segment = batch->segment,
              .position = batch->position,
              .first = batch->first.value,
              .commit_time = batch->info.commit_time.value,
              .begins = batch->first_of_transaction,
              .ends = batch->last_of_transaction,
              .events = {},
              .read_to = reader.position().value};
    while (const EventView* event = batch->next())
      one.events.emplace_back(event->offset.value, event->category);
    must(batch->status());
    given.push_back(std::move(one));
  }
  CHECK(reader.position() >= reader.durable_end());
}

std::vector<Given> read_all(FileSystem& files, const ReadOptions& wanted) {
  ReadOptions options = wanted;
  options.files = &files;
  const auto reader = must(LogReader::open(kStore, options));
  std::vector<Given> given;
  read_on(*reader, given);
  return given;
}

/// What a reader of `categories` from offset `from` on has to give, by `all` that there is.
std::vector<Given> filtered(std::vector<Given> all, const std::vector<std::string>& categories,
                            std::uint64_t from) {
  std::vector<Given> wanted;
  bool in_given = false;
  for (Given& one : all) {
    if (one.read_to <= from) continue;
    in_given = in_given && !one.begins;
    const bool holds_any =
        std::any_of(one.events.begin(), one.events.end(), [&](const auto& event) {
          return std::find(categories.begin(), categories.end(), event.second) != categories.end();
        });
    if (!holds_any && !(in_given && one.ends)) continue;
    in_given = !one.ends;
    std::erase_if(one.events, [&](const auto& event) { return event.first < from; });
    wanted.push_back(std::move(one));
  }
  return wanted;
}

std::vector<ReadOptions> many_wishes(FileSystem& files, std::mt19937_64& random) {
  const std::uint64_t end = must(LogReader::open(kStore, {.files = &files}))->durable_end().value;
  std::vector<ReadOptions> wishes;
  const std::vector<std::vector<std::string>> lists{{},
                                                    {"rare"},
                                                    {"scattered"},
                                                    {"common1"},
                                                    {"nothing"},
                                                    {"scattered", "rare"},
                                                    {"nothing", "common1"},
                                                    {"common2", "common0", "common2"},
                                                    {"scattered", "nothing", "rare"}};
  for (const auto& categories : lists) {
    for (int i = 0; i < 6; ++i) {
      ReadOptions wish{.from = {i == 0 ? 0 : random() % (end + 2)}, .categories = categories};
      if (i % 2 == 1) wish.from_time = UnixMicros{static_cast<std::int64_t>(random() % 32'000)};
      wishes.push_back(wish);
    }
  }
  return wishes;
}

/// Counts the bytes that are read from a FaultFs.
class CountingFs final : public FileSystem {
 public:
  explicit CountingFs(FaultFs& files) : files_(files) {}
  std::uint64_t bytes_read = 0;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, files_.open(path, mode));
    return std::make_unique<Counting>(std::move(file), bytes_read);
  }
  Result<void> make_directory(const Path& path) override { return files_.make_directory(path); }
  Result<std::vector<std::string>> list(const Path& path) override { return files_.list(path); }
  Result<bool> exists(const Path& path) override { return files_.exists(path); }
  Result<void> rename(const Path& from, const Path& to) override { return files_.rename(from, to); }
  Result<void> remove(const Path& path) override { return files_.remove(path); }
  Result<void> sync_directory(const Path& path) override { return files_.sync_directory(path); }
  Result<std::unique_ptr<FileLock>> lock(const Path& path) override { return files_.lock(path); }
  Result<std::string> lock_holder(const Path& path) override { return files_.lock_holder(path); }
  Result<std::unique_ptr<SharedWord>> shared_word(const Path& path,
                                                  std::uint64_t position) override {
    return files_.shared_word(path, position);
  }
  std::string boot_id() override { return files_.boot_id(); }

 private:
  class Counting final : public ForwardingFile {
   public:
    Counting(std::unique_ptr<File> file, std::uint64_t& bytes_read)
        : ForwardingFile(std::move(file)), bytes_read_(bytes_read) {}
    Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
      auto count = ForwardingFile::read_at(position, into);
      if (count) bytes_read_ += *count;
      return count;
    }

   private:
    std::uint64_t& bytes_read_;
  };

  FaultFs& files_;
};

}  // namespace

TEST_CASE("with indexes a reader gives exactly what it gives without", "[eventstore][index]") {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    FaultFs files;
    fill(files, seed, 1, 300);
    std::mt19937_64 random(seed);
    const auto wishes = many_wishes(files, random);
    std::vector<std::vector<Given>> walked;
    for (const ReadOptions& wish : wishes) walked.push_back(read_all(files, wish));
    index_all(files);
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      CAPTURE(wishes[i].categories, wishes[i].from.value, wishes[i].from_time.has_value());
      REQUIRE(read_all(files, wishes[i]) == walked[i]);
    }
    // Also where only some have one.
    const auto segments = must(list_segments(files, kPaths));
    REQUIRE(segments.size() > 10);
    for (std::size_t i = 0; i + 1 < segments.size(); i += 2) files.erase(kPaths.index(segments[i]));
    for (std::size_t i = 0; i < wishes.size(); ++i)
      REQUIRE(read_all(files, wishes[i]) == walked[i]);
  }
}

TEST_CASE("a reader of several categories gives what is theirs of all that there is",
          "[eventstore][index]") {
  for (std::uint64_t seed = 21; seed <= 26; ++seed) {
    FaultFs files;
    fill(files, seed, 1, 200);
    index_all(files);  // those that are sealed later have none, and every other
    const auto segments = must(list_segments(files, kPaths));
    for (std::size_t i = 0; i + 1 < segments.size(); i += 2) files.erase(kPaths.index(segments[i]));
    struct Follower {
      std::vector<std::string> categories;
      std::uint64_t from = 0;
      std::unique_ptr<LogReader> reader;
      std::vector<Given> given = {};
    };
    std::mt19937_64 random(seed);
    std::vector<Follower> followers;
    for (std::uint64_t i = 0; i < 20; ++i) {
      std::vector<std::string> names{"rare", "scattered", "common0", "common1", "nothing"};
      std::shuffle(names.begin(), names.end(), random);
      names.resize(2 + i % 2);
      const std::uint64_t from = i < 8 ? 0 : random() % segments.back();
      followers.push_back({.categories = names,
                           .from = from,
                           .reader = must(LogReader::open(
                               kStore, {.from = {from}, .categories = names, .files = &files}))});
      read_on(*followers.back().reader, followers.back().given);
    }
    // They follow the growing segment, and into the next ones.
    const auto store = must(EventStore::open(kStore, small_options(files)));
    for (std::uint64_t number = 201; number <= 300; ++number) append_random(*store, random, number);
    store->request_flush();
    REQUIRE(must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1))));
    REQUIRE(must(list_segments(files, kPaths)).size() > segments.size() + 3);
    const auto all = read_all(files, {});
    for (Follower& one : followers) {
      read_on(*one.reader, one.given);
      CAPTURE(seed, one.categories, one.from);
      REQUIRE(one.given == filtered(all, one.categories, one.from));
      REQUIRE(one.given == read_all(files, {.from = {one.from}, .categories = one.categories}));
    }
  }
}

TEST_CASE("with indexes a reader gives of rewritten segments what it gives without",
          "[eventstore][index][rewrite]") {
  for (std::uint64_t seed = 11; seed <= 14; ++seed) {
    CAPTURE(seed);
    FaultFs files;
    fill(files, seed, 1, 300);
    index_all(files);  // these are then of older bytes
    std::mt19937_64 random(seed);
    const auto wishes = many_wishes(files, random);
    const auto segments = must(list_segments(files, kPaths));
    const StoreId id = must(read_description(files, kPaths)).id;
    for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
      const Judge judge = [&](const EventView& event, const Batch&) -> Result<Verdict> {
        const bool dropped = event.category == "common0" || random() % 3 == 0;
        return Verdict{.kind = dropped ? Verdict::Kind::kSuperseded : Verdict::Kind::kKeep};
      };
      if (i % 3 != 2)
        must(rewrite_segment(kPaths, id, segments[i], segments[i + 1], judge,
                             {.files = &files, .clock = &Clock::system()}));
    }
    std::vector<std::vector<Given>> walked;
    for (const ReadOptions& wish : wishes) walked.push_back(read_all(files, wish));
    index_all(files);
    for (const std::uint64_t segment : segments) {
      auto reader = must(SegmentReader::open(files, kPaths, id, segment));
      const auto index = SegmentIndex::open(files, kPaths, reader);
      REQUIRE(index.has_value() == (segment != segments.back()));
      if (index) REQUIRE(index->header().end.value > segment);
    }
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      CAPTURE(wishes[i].categories, wishes[i].from.value, wishes[i].from_time.has_value());
      REQUIRE(read_all(files, wishes[i]) == walked[i]);
    }
    CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  }
}

TEST_CASE("a transaction of which a batch was given ends for the reader, in whatever segment",
          "[eventstore][index]") {
  FaultFs files;
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    must(append(*store, sample_transaction(1, 3)));
    must(store->begin(
        {.source = {1, 20, 0}, .source_xid = 2, .commit_time = {}, .snapshot = false}));
    const std::string payload(100, 'p');
    for (int i = 0; i < 1000; ++i)
      must(store->add({.category = i == 150 ? "wanted" : "other",
                       .key = "k",
                       .type = {},
                       .payload = payload,
                       .metadata = {}}));
    must(store->commit(25));
    must(append(*store, sample_transaction(3, 300)));
  }
  index_all(files);
  const auto given = read_all(files, {.categories = {"wanted"}});
  REQUIRE(given.size() == 2);
  CHECK_FALSE(given[0].ends);
  CHECK(given[1].ends);
  CHECK(given[1].segment > given[0].segment);
  CHECK(given[1].events.back().first == 1002);
}

TEST_CASE("a reader by category or offset reads little of the full segments",
          "[eventstore][index]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.segment_bytes = 1 << 20;
  {
    const auto store = must(EventStore::open(kStore, options));
    for (std::uint64_t number = 1; number <= 20'000; ++number) {
      const std::string category = number % 200 == 0 ? "rare" : "common";
      must(append(*store, {.commit = number * 10,
                           .events = {{category, std::to_string(number), "", "payload", "", {}}}}));
    }
    must(store->run_maintenance());
  }
  const std::uint64_t last = must(list_segments(files, kPaths)).back();
  const std::uint64_t active_bytes = files.content(kPaths.segment(last)).size();
  const auto bytes_for = [&](const ReadOptions& wish) {
    CountingFs counting(files);
    const auto given = read_all(counting, wish);
    CHECK_FALSE(given.empty());
    return counting.bytes_read - std::min(counting.bytes_read, active_bytes);
  };
  const std::uint64_t all = bytes_for({});
  CHECK(bytes_for({.categories = {"rare"}}) < all / 5);
  CHECK(bytes_for({.categories = {"rare", "nothing"}}) < all / 5);
  const std::uint64_t middle = must(list_segments(files, kPaths))[1];
  CHECK(bytes_for({.from = {middle - 100}, .categories = {"rare"}}) < all / 5);
  CountingFs counting(files);
  const auto reader = must(LogReader::open(kStore, {.from = {middle - 100}, .files = &counting}));
  CHECK(must(reader->next())->first.value == middle - 100);
  CHECK(counting.bytes_read < 200'000);
}

TEST_CASE("F30: a reader gives the right events whatever byte of an index is damaged",
          "[eventstore][index]") {
  FaultFs files;
  fill(files, 4, 1, 120);
  const std::vector<ReadOptions> wishes{{.categories = {"rare"}},
                                        {.from = {150}, .categories = {"scattered"}},
                                        {.from = {170}, .from_time = UnixMicros{5'000}}};
  std::vector<std::vector<Given>> walked;
  for (const ReadOptions& wish : wishes) walked.push_back(read_all(files, wish));
  index_all(files);
  const Path path = kPaths.index(0);
  const std::string good = files.content(path);
  for (std::size_t at = 0; at < good.size(); at += 3) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    files.set_content(path, bytes);
    for (std::size_t i = 0; i < wishes.size(); ++i)
      if (read_all(files, wishes[i]) != walked[i]) FAIL("byte " << at << ", wish " << i);
  }
}

TEST_CASE("B29: an index that leads astray, under right checksums, is left for a walk",
          "[eventstore][index]") {
  FaultFs files;
  fill(files, 4, 1, 120);
  const auto walked = read_all(files, {.categories = {"common1"}});
  index_all(files);
  // Every place of it leads eight bytes too far.
  const Path path = kPaths.index(0);
  std::string bytes = files.content(path);
  const IndexHeader header = *decode_index_header(std::string_view(bytes).substr(0, 256));
  const std::uint64_t at = header.directory_at();
  const std::string_view part = std::string_view(bytes).substr(at, header.directory_bytes - 8);
  const std::size_t name = part.find("common1");
  REQUIRE(name != std::string_view::npos);
  {
    ByteReader in(part.substr(name + 7));
    for (int i = 0; i < 10; ++i) in.varint();  // the ninth and the tenth: count and size
    const std::size_t first = static_cast<std::size_t>(in.position() - bytes.data());
    bytes[first] = static_cast<char>(bytes[first] + 1);
  }
  store_le<std::uint64_t>(bytes.data() + at + part.size(), index_checksum(part, header, at));
  files.set_content(path, bytes);
  CHECK(read_all(files, {.categories = {"common1"}}) == walked);
}

TEST_CASE("damage in what a reader wants is found with an index as without",
          "[eventstore][index]") {
  FaultFs files;
  fill(files, 6, 1, 200);
  index_all(files);
  const auto given = read_all(files, {.categories = {"rare"}});
  const auto in_first = std::find_if(given.begin(), given.end(), [&](const Given& one) {
    return one.segment != must(list_segments(files, kPaths)).back() && one.events.size() > 1;
  });
  REQUIRE(in_first != given.end());
  const Path path = kPaths.segment(in_first->segment);
  const std::string good = files.content(path);
  for (const std::uint64_t at : {std::uint64_t{4}, std::uint64_t{50}, std::uint64_t{130}}) {
    std::string bytes = good;
    bytes[in_first->position + at] ^= 1;
    files.set_content(path, bytes);
    const auto reader = must(LogReader::open(kStore, {.categories = {"rare"}, .files = &files}));
    Result<Batch*> batch = nullptr;
    do batch = reader->next();
    while (batch && *batch != nullptr);
    REQUIRE_FALSE(batch);
    CHECK(batch.error().code() == ErrorCode::kCorruption);
    CHECK(reader->position().value <= in_first->first);
  }
}

TEST_CASE("from_time gives the first transaction committed then or later, and all behind it",
          "[eventstore][index]") {
  FaultFs files;
  fill(files, 2, 1, 250);
  const auto all = read_all(files, {});
  const auto expected = [&](std::int64_t time) {
    const auto first = std::find_if(all.begin(), all.end(),
                                    [&](const Given& one) { return one.commit_time >= time; });
    return std::vector<Given>(first, all.end());
  };
  for (const bool indexed : {false, true}) {
    if (indexed) index_all(files);
    for (std::int64_t time = -500; time < 27'000; time += 311)
      REQUIRE(read_all(files, {.from_time = UnixMicros{time}}) == expected(time));
    CHECK(read_all(files, {.from_time = UnixMicros{std::numeric_limits<std::int64_t>::max()}})
              .empty());
    CHECK(read_all(files, {.from_time = UnixMicros{std::numeric_limits<std::int64_t>::min()}}) ==
          all);
  }
}

TEST_CASE("from_time waits for a transaction that is not there yet", "[eventstore][index]") {
  FaultFs files;
  fill(files, 3, 1, 60);
  index_all(files);
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const auto reader =
      must(LogReader::open(kStore, {.from_time = UnixMicros{1'000'000}, .files = &files}));
  CHECK(must(reader->next()) == nullptr);
  CHECK(reader->position() == store->durable_end());
  must(append_durably(*store, sample_transaction(61, 2)));
  CHECK(must(reader->next()) == nullptr);
  CHECK_FALSE(must(reader->wait(std::chrono::milliseconds(0))));
  must(append_durably(*store, sample_transaction(100'001, 2)));  // committed at 1'000'010
  CHECK(must(reader->wait(std::chrono::minutes(1))));
  CHECK(must(reader->next())->info.commit_time.value == 1'000'010);
}

TEST_CASE("B32: a link, a pipe or a folder in place of an index is no index",
          "[eventstore][index]") {
  const TemporaryDirectory folder;
  FileSystem& files = FileSystem::real();
  const Path path = folder / "store";
  const StorePaths paths(path);
  History written;
  {
    const auto store = must(EventStore::open(path, small_options(files)));
    for (std::uint64_t number = 1; number <= 12; ++number) {
      written.push_back(sample_transaction(number, 20, 100));
      must(append_durably(*store, written.back()));
    }
    must(store->run_maintenance());
  }
  const Path index = paths.index(0);
  SECTION("a link to the right bytes") {
    std::filesystem::rename(index, folder / "elsewhere");
    std::filesystem::create_symlink(folder / "elsewhere", index);
  }
  SECTION("a pipe") {
    std::filesystem::remove(index);
    REQUIRE(::mkfifo(index.c_str(), 0600) == 0);
  }
  SECTION("a folder") {
    std::filesystem::remove(index);
    std::filesystem::create_directory(index);
  }
  const StoreId id = must(read_description(files, paths)).id;
  auto segment = must(SegmentReader::open(files, paths, id, 0));
  CHECK_FALSE(SegmentIndex::open(files, paths, segment));
  CHECK(read_history(path, files) == written);
  const auto reader = must(LogReader::open(path, {.from = {5}, .categories = {"public.table1"}}));
  CHECK(must(reader->next()) != nullptr);
  const auto store = must(EventStore::open(path, small_options(files)));
  must(append_durably(*store, sample_transaction(13, 20)));
  static_cast<void>(store->run_maintenance().has_value());  // a folder stays where it is
  must(store->status());
}
