#include "capture/daemon/known_history.h"
#include "capture/pipeline/history_check.h"
#include "eventstore/event_store.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

constexpr SourceCommit kLast{.lsn = Lsn{0x500}, .xid = 70, .time = {1000}};

bool rewound(const Result<void>& outcome) {
  return !outcome && outcome.error().message().starts_with("SOURCE_REWOUND: ") &&
         !outcome.error().hint().empty();
}

TEST_CASE("streaming begins at the log's last transaction, or where the log has read to",
          "[capture][history]") {
  CHECK(HistoryCheck(kLast).start(Lsn{0x900}) == kLast.lsn);
  CHECK(HistoryCheck(std::nullopt).start(Lsn{0x900}) == Lsn{0x900});
  CHECK(HistoryCheck().start(Lsn{0x900}) == Lsn{0x900});
}

TEST_CASE("F91: a slot that is not beyond the last transaction has to send it again, as it was",
          "[capture][history]") {
  HistoryCheck check(kLast);
  check.begin(Lsn{0x500});
  SECTION("it does") {
    CHECK(check.sent_all_before(Lsn{0x500}));
    CHECK(check.sent(kLast));
    CHECK(check.sent({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}}));
    CHECK(check.sent_all_before(Lsn{0x900}));
  }
  SECTION("older ones may come before") {
    CHECK(check.sent({.lsn = Lsn{0x400}, .xid = 69, .time = {999}}));
    CHECK(check.sent_again({.lsn = Lsn{0x400}, .xid = 69, .time = {999}}));
    CHECK(check.sent(kLast));
  }
  SECTION("another transaction stands there") {
    CHECK(rewound(check.sent({.lsn = Lsn{0x500}, .xid = 71, .time = {1000}})));
    CHECK(rewound(check.sent({.lsn = Lsn{0x500}, .xid = 70, .time = {1001}})));
  }
  SECTION("a later one comes first") {
    CHECK(rewound(check.sent({.lsn = Lsn{0x508}, .xid = 71, .time = {1001}})));
  }
  SECTION("nothing comes") { CHECK(rewound(check.sent_all_before(Lsn{0x501}))); }
}

TEST_CASE("a slot beyond the last transaction sends what is newer", "[capture][history]") {
  HistoryCheck check(kLast);
  check.begin(Lsn{0x501});
  CHECK(check.sent_all_before(Lsn{0x900}));
  CHECK(check.sent({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}}));
  SECTION("F91: but no changes where the log has read already") {
    CHECK(rewound(check.sent_again({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}})));
  }
  SECTION("what the log takes in is its last") {
    check.taken({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}});
    check.begin(Lsn{0x600});
    CHECK(rewound(check.sent({.lsn = Lsn{0x700}, .xid = 72, .time = {1002}})));
  }
}

TEST_CASE("of a log that does not tell, nothing is held against the server until it does",
          "[capture][history]") {
  HistoryCheck check;
  check.begin(Lsn{});
  CHECK(check.sent({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}}));
  CHECK(check.sent_again({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}}));
  CHECK(check.sent_all_before(Lsn{0x900}));
  check.taken({.lsn = Lsn{0x600}, .xid = 71, .time = {1001}});
  CHECK(rewound(check.sent_again({.lsn = Lsn{0x608}, .xid = 72, .time = {1001}})));
}

/// A log in the making.
struct Log {
  test::TemporaryDirectory directory;
  std::unique_ptr<EventStore> store = *EventStore::open(directory.path() / "store", {});

  void captured(std::uint32_t epoch, std::uint64_t commit, std::uint32_t xid, bool events = true) {
    REQUIRE(store->begin({.source = {.epoch = epoch, .commit = commit, .end = 0},
                          .source_xid = xid,
                          .commit_time = {static_cast<std::int64_t>(commit) * 10}}));
    if (events)
      REQUIRE(store->add(
          {.category = "public.t", .key = "k", .type = "", .payload = "p", .metadata = {}}));
    REQUIRE(store->commit(commit + 8));
  }
  void appended(int count) {
    const NewEvent event{
        .category = "cart", .key = "1", .type = "T", .payload = "p", .metadata = {}};
    for (int i = 0; i < count; ++i)
      REQUIRE(store->append({.source = {}, .commit_time = {1}}, {&event, 1}));
  }
  HistoryCheck history(std::uint32_t epoch) {
    store->request_flush();
    REQUIRE(*store->wait_durable(store->appended_end(), 0, std::chrono::seconds(10)));
    auto found = known_history(directory.path() / "store", epoch, FileSystem::real());
    REQUIRE(found);
    return *found;
  }
};

TEST_CASE("the last transaction is found behind idle positions and events of others",
          "[capture][history]") {
  Log log;
  CHECK(log.history(1).start(Lsn{5}) == Lsn{5});
  log.captured(1, 0x100, 7);
  log.captured(1, 0x200, 8);
  CHECK(log.history(1).start(Lsn{5}) == Lsn{0x200});
  log.captured(1, 0x2ff, 0, false);  // an idle position
  CHECK(log.history(1).start(Lsn{5}) == Lsn{0x200});
  log.appended(700);
  HistoryCheck check = log.history(1);
  CHECK(check.start(Lsn{5}) == Lsn{0x200});
  check.begin(Lsn{0x200});
  CHECK(check.sent({.lsn = Lsn{0x200}, .xid = 8, .time = {0x1400}}));
  // One of an epoch before is none of this one's.
  CHECK(log.history(2).start(Lsn{5}) == Lsn{5});
}

}  // namespace
}  // namespace millrace
