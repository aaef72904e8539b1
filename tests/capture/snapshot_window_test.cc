// Rows that are read between two watermarks, and what the stream brings meanwhile: as pure state.
#include "capture/pipeline/snapshot_window.h"

#include "capture/pipeline/snapshot_progress.h"
#include "capture/pipeline/visibility.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"

namespace millrace {
namespace {

using test::MemoryOut;
using test::RecordedEvent;
using v1::Change;

/// A row of two columns as bytes: field 1 and field 2, either may be left out.
std::string row(const std::string& small, const std::string& large) {
  std::string bytes;
  const auto add = [&](char tag, const std::string& text) {
    if (text.empty()) return;
    bytes += tag;
    bytes += static_cast<char>(text.size());
    bytes += text;
  };
  add('\x0a', small);
  add('\x12', large);
  return bytes;
}

std::string read(const std::string& image) {
  Change change;
  change.set_op(Change::READ);
  change.set_schema(1);
  change.set_after(image);
  return change.SerializeAsString();
}

/// What the stream brings: an update that sends both columns, or leaves the large one out.
struct Streamed {
  RecordedEvent event;
  NewEvent view() const {
    return {.category = event.category,
            .key = event.key,
            .type = {},
            .payload = event.payload,
            .metadata = {},
            .flags = event.flags};
  }
};

Streamed update(const std::string& key, const std::string& small, const std::string& large) {
  Change change;
  change.set_op(Change::UPDATE);
  change.set_schema(1);
  change.set_after(row(small, large));
  if (large.empty()) change.add_unchanged(2);
  return {{.category = "public.t",
           .key = key,
           .type = {},
           .payload = change.SerializeAsString(),
           .flags = large.empty() ? EventFlags::kPartial : EventFlags::kNone}};
}

Streamed removal(const std::string& key) {
  return {{.category = "public.t",
           .key = key,
           .type = {},
           .payload = {},
           .flags = EventFlags::kTombstone}};
}

/// A window with rows 1 and 2, of which the large values are "L1" and "L2".
struct Window {
  SnapshotWindow window;
  IncompleteRows incomplete;

  explicit Window(std::vector<std::string> wanted = {}) {
    EncodedRows rows;
    for (const std::string key : {"1", "2"}) {
      const std::string payload = read(row("s" + key, "L" + key));
      REQUIRE(rows.add(
          {.category = "public.t", .key = key, .type = {}, .payload = payload, .metadata = {}}));
    }
    window.open("public.t", std::move(rows), std::move(wanted));
  }
  void saw(const Streamed& streamed) {
    window.saw(streamed.view());
    incomplete.saw(streamed.event.key, streamed.event.flags);
  }
  std::map<std::string, std::string> close() {
    MemoryOut out;
    REQUIRE(out.begin({}));
    REQUIRE(window.close(out, incomplete));
    std::map<std::string, std::string> rows;
    for (const RecordedEvent& event : out.open_events()) {
      CHECK(event.change().op() == Change::READ);
      CHECK(event.change().unchanged().empty());
      rows[event.key] = event.change().after();
    }
    return rows;
  }
};

using RowsByKey = std::map<std::string, std::string>;

TEST_CASE("I14: rows that nothing touched between the watermarks are as they were read",
          "[capture][window]") {
  Window window;
  window.saw(update("3", "x", "y"));
  CHECK(window.close() == RowsByKey{{"1", row("s1", "L1")}, {"2", row("s2", "L2")}});
  CHECK_FALSE(window.window.is_open());
}

TEST_CASE("I14: a row that is in the log as a newer event has it is not read",
          "[capture][window]") {
  Window window;
  SECTION("changed") { window.saw(update("1", "new", "NEW")); }
  SECTION("deleted") { window.saw(removal("1")); }
  SECTION("deleted and made anew without its large value being known") {
    window.saw(removal("1"));
    window.saw(update("1", "new", ""));
    CHECK(window.close() == RowsByKey{{"2", row("s2", "L2")}});
    CHECK(window.incomplete.some(10) == std::vector<std::string>{"1"});
    return;
  }
  CHECK(window.close() == RowsByKey{{"2", row("s2", "L2")}});
  CHECK(window.incomplete.empty());
}

TEST_CASE("F77, I14: a large value that updates between the watermarks left alone is not lost",
          "[capture][window]") {
  Window window;
  window.saw(update("1", "a", ""));
  window.saw(update("1", "b", ""));
  CHECK(window.incomplete.size() == 1);
  CHECK(window.close() == RowsByKey{{"1", row("b", "L1")}, {"2", row("s2", "L2")}});
  CHECK(window.incomplete.empty());
}

TEST_CASE("F77: after a large value was sent the newest is what counts", "[capture][window]") {
  Window window;
  window.saw(update("1", "a", ""));
  window.saw(update("1", "b", "NEW"));
  window.saw(update("1", "c", ""));  // what it leaves alone is in the log
  CHECK(window.close() == RowsByKey{{"2", row("s2", "L2")}});
  CHECK(window.incomplete.size() == 1);  // which nobody here knows: it is read once more
}

TEST_CASE("I14: a TRUNCATE between the watermarks leaves nothing to append", "[capture][window]") {
  Window window;
  window.saw({{.category = "public.t",
               .key = {},
               .type = {},
               .payload = {},
               .flags = EventFlags::kCategoryTombstone}});
  CHECK(window.close().empty());
}

TEST_CASE("rows that were asked for and are gone are waited for no longer", "[capture][window]") {
  Window window({"1", "7", "8"});
  for (const char* key : {"1", "7", "8"}) window.incomplete.saw(key, EventFlags::kPartial);
  window.saw(update("8", "x", ""));  // it has come back
  CHECK(window.close().size() == 2);
  CHECK(window.incomplete.some(10) == std::vector<std::string>{"8"});
}

SourceSnapshot snapshot(std::string_view xmax, std::string_view open) {
  const auto parsed = parse_source_snapshot(xmax, open);
  REQUIRE(parsed);
  return *parsed;
}

TEST_CASE("F98: a snapshot that misses what the stream has brought is not trusted",
          "[capture][window]") {
  VisibilityCheck check;
  CHECK(check.sees_all(snapshot("100", "")));
  check.streamed(100);
  check.streamed(101);
  CHECK_FALSE(check.sees_all(snapshot("105", "101,103")));  // logged, and not yet to be seen
  CHECK_FALSE(check.sees_all(snapshot("106", "101")));
  CHECK(check.sees_all(snapshot("107", "103,105")));  // open, but the stream has not brought them
}

TEST_CASE("F98: what was open when a session began may have come before it", "[capture][window]") {
  VisibilityCheck check;
  CHECK_FALSE(check.sees_all(snapshot("100", "90,95")));
  CHECK(check.waits_for() == 2);
  CHECK_FALSE(check.sees_all(snapshot("110", "95,105")));
  CHECK(check.sees_all(snapshot("120", "105")));
  check.reset();
  CHECK_FALSE(check.sees_all(snapshot("120", "105")));
}

TEST_CASE("what is left of snapshots is the fold of their events", "[capture][window]") {
  TableSnapshot orders{.id = "initial",
                       .table = "public.orders",
                       .oid = 7,
                       .where = {},
                       .parts = {{.oid = 7, .file = 70, .pages = 10, .next = {}}}};
  TableSnapshot other = orders;
  other.table = "public.other";
  other.oid = 8;
  SnapshotProgress progress;
  const auto tell = [&](const TableSnapshot& of, const SnapshotEvent& event) {
    REQUIRE(progress.apply(event.type, of.table, event.payload));
  };
  tell(orders, snapshot_began(orders));
  tell(other, snapshot_began(other));
  SnapshotPart part{.oid = 7, .file = 70, .pages = 10, .next = {RowPlace::page(4).value + 3}};
  tell(orders, snapshot_chunk(orders, part, 12));
  REQUIRE(progress.unfinished().size() == 2);
  CHECK(progress.unfinished()[0].rows == 12);
  CHECK(progress.unfinished()[0].parts[0].next == part.next);
  tell(other, snapshot_completed(other));
  tell(orders, snapshot_restarted(orders, "why not"));
  REQUIRE(progress.unfinished().size() == 1);
  CHECK(progress.unfinished()[0].parts[0].next == RowPlace{});
  tell(orders, snapshot_abandoned(orders, "gone"));
  CHECK(progress.unfinished().empty());
  CHECK(progress.knows("initial"));
  CHECK_FALSE(progress.apply("snapshot_chunk", "public.orders", "{}"));
}

}  // namespace
}  // namespace millrace
