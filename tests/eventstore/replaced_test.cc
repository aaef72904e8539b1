// Nobody keeps what was replaced: the files of old generations are closed, so that the disk gives
// back what was taken out of them, and no byte that was erased is left in an open file.
#include <algorithm>
#include <filesystem>
#include <functional>

#include "eventstore/log/head.h"
#include "eventstore/log/scrubber.h"
#include "eventstore/log/store_files.h"
#include "eventstore/stream_reader.h"
#include "tests/support/forwarding_fs.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

/// The kernel's, and tells when a segment is about to get its name.
class WatchedFs final : public ForwardingFileSystem {
 public:
  Result<void> rename(const Path& from, const Path& to) override {
    const bool is_new = !std::filesystem::exists(to) && to.extension() == ".log";
    if (is_new && before_new_segment) before_new_segment();
    return ForwardingFileSystem::rename(from, to);
  }
  std::function<void()> before_new_segment;
};

class Fixture {
 protected:
  Fixture() { open(); }
  void open(std::size_t segment_bytes = 16 << 10) {
    StoreOptions options = small_options(files);
    options.segment_bytes = segment_bytes;
    store = must(EventStore::open(path, options));
  }
  void happen(std::string_view key, std::string_view payload = "payload") {
    const NewStreamEvent event{.type = "Happened", .payload = payload, .metadata = {}};
    const StreamAppend part{.stream = {"cart", key}, .expected = {}, .events = {&event, 1}};
    must(store->append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
  }
  /// Two streams, in several segments.
  void fill() {
    const std::string long_enough(600, 'x');
    for (int i = 0; i < 60; ++i) happen(i % 2 == 0 ? "a" : "b", long_enough);
  }
  EraseReport erase(std::string_view key) {
    const EntityToErase entity{.key = key, .tombstone_type = "Gone"};
    return must(store->maintenance().erase({.category = "cart", .entities = {&entity, 1}}));
  }
  std::size_t count(StreamReader& reader, std::string_view key) {
    std::size_t seen = 0;
    must(reader.read({"cart", key}, {}, [&](const EventView&, const TransactionInfo&) {
      ++seen;
      return true;
    }));
    return seen;
  }
  /// Files of the store without a name that this process has open.
  std::vector<std::string> nameless() const {
    std::vector<std::string> found;
    std::error_code gone;  // one that was closed meanwhile, as that of the listing itself
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (target.starts_with(path.string()) && target.ends_with(" (deleted)"))
        found.push_back(target);
    }
    return found;
  }

  TemporaryDirectory directory;
  const Path path = directory / "store";
  WatchedFs files;
  std::unique_ptr<EventStore> store;
};

void read_all(LogReader& reader) {
  while (must(reader.next()) != nullptr) {
  }
}

}  // namespace

TEST_CASE_METHOD(Fixture, "the writer closes what it replaced before erasing returns",
                 "[eventstore][replaced]") {
  fill();
  must(store->run_maintenance());
  store.reset();
  open();
  happen("c");  // looks for the version, through all segments
  CHECK(erase("b").segments_rewritten > 2);
  CHECK(nameless().empty());
  happen("b");
  CHECK(erase("a").segments_rewritten > 2);
  CHECK(nameless().empty());
}

TEST_CASE_METHOD(Fixture, "a reader of streams closes what was replaced when it is used next",
                 "[eventstore][replaced]") {
  fill();
  const bool waits = GENERATE(true, false);
  const auto reader = must(StreamReader::open(path, files));
  CHECK(count(*reader, "a") == 30);
  erase("b");
  CHECK_FALSE(nameless().empty());
  if (waits) {
    CHECK(must(reader->wait(std::chrono::milliseconds(0), {})));  // the tombstone
    CHECK(count(*reader, "c") == 0);
    // The segment that was the newest is closed as well where there is nothing more to come.
    CHECK_FALSE(must(reader->wait(std::chrono::milliseconds(0), {})));
  } else {
    CHECK(count(*reader, "a") == 30);
  }
  CHECK(nameless().empty());
  CHECK(count(*reader, "a") == 30);
  CHECK(count(*reader, "b") == 1);
}

TEST_CASE_METHOD(Fixture, "a reader that waits closes what was replaced though nothing else comes",
                 "[eventstore][replaced]") {
  fill();
  happen("b");
  const auto reader = must(LogReader::open(path, {.files = &files}));
  // It has read the tombstone when the segment with it is sealed, and sleeps then.
  files.before_new_segment = [&] { read_all(*reader); };
  erase("b");
  files.before_new_segment = {};
  CHECK(must(reader->wait(std::chrono::milliseconds(0), {})) == false);
  CHECK(nameless().empty());
  happen("c");
  REQUIRE(must(reader->wait(std::chrono::minutes(1), {})));
  Batch* const batch = must(reader->next());
  REQUIRE(batch != nullptr);
  CHECK(batch->next()->key == "c");
}

TEST_CASE_METHOD(Fixture, "a reader in the middle of an old generation finishes it",
                 "[eventstore][replaced]") {
  fill();
  const auto reader = must(LogReader::open(path, {.files = &files}));
  REQUIRE(must(reader->next()) != nullptr);
  erase("b");
  CHECK(nameless().size() == 1);
  CHECK(must(reader->wait(std::chrono::milliseconds(0), {})));  // there is more
  CHECK(nameless().size() == 1);
  read_all(*reader);
  CHECK(nameless().empty());
}

TEST_CASE_METHOD(Fixture, "without a HEAD to trust, too, what was replaced is closed",
                 "[eventstore][replaced]") {
  fill();
  for (int i = 0; i < 3; ++i) happen("c", std::string(6000, 'c'));  // the newest segment has no b
  store.reset();
  const Path head = log::StorePaths(path).head();
  std::filesystem::remove(head);
  const auto reader = must(StreamReader::open(path, files));
  CHECK(count(*reader, "a") == 30);
  open();
  erase("b");
  store.reset();
  std::filesystem::remove(head);
  CHECK_FALSE(nameless().empty());
  CHECK(count(*reader, "a") == 30);
  CHECK(nameless().empty());
}

TEST_CASE_METHOD(Fixture, "a scrub that is in the middle of what was replaced begins it anew",
                 "[eventstore][replaced]") {
  store.reset();
  open(8 << 20);
  happen("b");
  for (int i = 0; i < 40; ++i) happen("a", std::string(100'000, 'x'));
  erase("nobody");  // which ends the segment
  const auto segments = must(log::list_segments(files, log::StorePaths(path)));
  log::Scrubber scrubber(log::StorePaths(path), {.store = store->id(),
                                                 .files = &files,
                                                 .clock = &Clock::system(),
                                                 .bytes_per_second = 1 << 30});
  scrubber.step(segments.back());
  CHECK(nameless().empty());
  erase("b");
  CHECK(nameless().size() == 1);
  scrubber.step(segments.back());
  CHECK(nameless().empty());
  for (int step = 0; step < 20 && !scrubber.report().completed; ++step)
    scrubber.step(segments.back());
  CHECK(scrubber.report().completed);
  CHECK(scrubber.report().faults.empty());
}

TEST_CASE("HEAD tells of each swap, and of each start of a writer, that may come after one",
          "[eventstore][replaced]") {
  FaultFs files;
  const log::StorePaths paths("/store");
  const auto id = must(EventStore::open(paths.directory, small_options(files)))->id();
  log::HeadReader reader(files, paths, id);
  const auto mark = [&] { return must(reader.read()).swapped; };
  const auto before = mark();
  REQUIRE(before);
  auto writer = must(log::HeadWriter::open(files, paths, id, Durability::kGroup));
  must(writer.publish({}, {}));
  const auto started = mark();
  CHECK(started != before);
  must(writer.publish({.end = {1}}, {}));
  CHECK(mark() == started);
  must(writer.publish_swap());
  const auto swapped = mark();
  CHECK(swapped != started);
  must(writer.publish({.end = {2}}, {}));
  CHECK(mark() == swapped);
  // One that could not be written is told with the next.
  files.fail_at(1, ErrorCode::kIo);
  CHECK_FALSE(writer.publish_swap());
  must(writer.publish({.end = {2}}, {}));
  CHECK(mark() != swapped);
  // Who wrote nothing there told nothing.
  char bytes[log::kHeadBytes];
  log::encode_head({.store = id}, bytes);
  CHECK(log::decode_head({bytes, sizeof bytes})->swapped == 0);
}
