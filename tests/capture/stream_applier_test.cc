#include "capture/pipeline/stream_applier.h"

#include <memory>

#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace {
namespace {

namespace bytes = test::bytes;
using bytes::null;
using bytes::text;

constexpr std::uint32_t kThings = 16400;

const std::string kShape =
    bytes::relation(kThings, "public", "things", 'd', {{"id", 23, true}, {"name"}});
const std::string kWiderShape =
    bytes::relation(kThings, "public", "things", 'd', {{"id", 23, true}, {"name"}, {"more"}});

std::string insert(int id) { return bytes::insert(kThings, {text(std::to_string(id)), null()}); }

/// An applier with an in-memory store that already has everything up to `last_commit`.
struct Bench {
  explicit Bench(Lsn last_commit = Lsn{}) : applier(encoder, out, 3, last_commit) {}

  test::FakeCatalog catalog;
  std::unique_ptr<SchemaRegistry> registry = SchemaRegistry::in_memory();
  test::MemoryOut out;
  ChangeEncoder encoder{*registry, catalog, out};
  StreamApplier applier;

  void feed(const std::vector<std::string>& messages) {
    for (const std::string& message : messages) {
      const auto applied = applier.apply(message, Lsn{0x50});
      if (!applied) FAIL(applied.error().to_string());
    }
  }

  /// The error of `message`; the applier must then refuse everything until reset().
  Error error(const std::string& message) {
    const auto applied = applier.apply(message, Lsn{0x50});
    REQUIRE_FALSE(applied);
    const auto next = applier.apply(insert(1), Lsn{0x51});
    REQUIRE_FALSE(next);
    CHECK(next.error().code() == ErrorCode::kFailedPrecondition);
    return applied.error();
  }

  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (const auto& transaction : out.transactions)
      for (const auto& event : transaction.events) all.push_back(event.key);
    return all;
  }
};

std::vector<std::string> transaction(Lsn commit, const std::vector<std::string>& inside,
                                     std::uint32_t xid = 7) {
  std::vector<std::string> messages = {bytes::begin(commit, xid, 5)};
  messages.insert(messages.end(), inside.begin(), inside.end());
  messages.push_back(bytes::commit(commit, Lsn{commit.value + 8}, 5));
  return messages;
}

TEST_CASE("a transaction is handed on whole, with its position, number and time",
          "[capture][applier]") {
  Bench bench;
  bench.feed({bytes::begin(Lsn{0x100}, 77, 5), bytes::origin(Lsn{1}, "other"), kShape,
              bytes::type(1, "s", "t"), insert(1), insert(2)});
  CHECK(bench.applier.in_transaction());
  CHECK(bench.out.transactions.empty());
  CHECK(bench.out.open_events().size() == 2);
  bench.feed({bytes::commit(Lsn{0x100}, Lsn{0x108}, 5)});

  REQUIRE(bench.out.transactions.size() == 1);
  const TransactionInfo& info = bench.out.transactions[0].info;
  CHECK(info.source == SourcePosition{.epoch = 3, .commit = 0x100, .end = 0x108});
  CHECK(info.source_xid == 77);
  CHECK(to_iso8601(info.commit_time) == "2000-01-01T00:00:00.000005Z");
  CHECK_FALSE(info.snapshot);
  CHECK(bench.keys() == std::vector<std::string>{"1", "2"});
  CHECK_FALSE(bench.applier.in_transaction());
  CHECK(bench.applier.last_commit() == Lsn{0x100});
  CHECK(bench.applier.last_end() == Lsn{0x108});
  CHECK(bench.applier.seen_end() == Lsn{0x108});
  CHECK(bench.applier.transactions() == 1);
  CHECK(bench.applier.changes() == 2);
}

TEST_CASE("a transaction without events is not handed on, only its end is remembered",
          "[capture][applier]") {
  Bench bench;
  bench.feed(transaction(Lsn{0x100}, {kShape, insert(1)}));
  bench.feed(transaction(Lsn{0x200}, {}));
  bench.feed(transaction(Lsn{0x300}, {kShape}));
  CHECK(bench.out.transactions.size() == 1);
  CHECK(bench.applier.empty() == 2);
  CHECK(bench.applier.last_commit() == Lsn{0x100});
  CHECK(bench.applier.last_end() == Lsn{0x108});
  CHECK(bench.applier.seen_end() == Lsn{0x308});
}

TEST_CASE("I2: what is there already is dropped whole, and the next transaction is not",
          "[capture][applier]") {
  Bench bench(Lsn{0x200});
  bench.feed(transaction(Lsn{0x100}, {kShape, insert(1), bytes::truncate({kThings})}));
  bench.feed(transaction(Lsn{0x200}, {insert(2), bytes::logical(true, Lsn{1}, "p", "c")}));
  CHECK(bench.out.transactions.empty());
  CHECK(bench.applier.repeated() == 2);
  CHECK(bench.applier.changes() == 0);
  CHECK(bench.catalog.questions == 0);
  bench.feed(transaction(Lsn{0x201}, {insert(3)}));  // with the shape that a dropped one brought
  CHECK(bench.keys() == std::vector<std::string>{"3"});
}

TEST_CASE("I2: a stream that is cut anywhere and sent again gives every event once",
          "[capture][applier]") {
  std::vector<std::string> stream;
  const auto add = [&](const std::vector<std::string>& messages) {
    stream.insert(stream.end(), messages.begin(), messages.end());
  };
  add(transaction(Lsn{0x100}, {kShape, insert(1), insert(2)}));
  add(transaction(Lsn{0x200}, {}));
  add(transaction(Lsn{0x300}, {insert(3), kWiderShape,
                               bytes::insert(kThings, {text("4"), null(), text("m")})}));
  add(transaction(Lsn{0x400}, {bytes::insert(kThings, {text("5"), null(), null()})}));
  const std::vector<std::string> all = {"1", "2", "3", "4", "5"};

  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    const std::vector<std::string> first(stream.begin(),
                                         stream.begin() + static_cast<std::ptrdiff_t>(cut));
    Bench reconnected;  // the same process
    reconnected.feed(first);
    REQUIRE(reconnected.applier.reset());
    CHECK_FALSE(reconnected.out.in_transaction);
    reconnected.feed(stream);
    CHECK(reconnected.keys() == all);
    // Cut behind the wider shape, the narrower one comes again and is a version anew: true, if not
    // needed.
    CHECK(reconnected.registry->all()->size() == (cut > 9 && cut < 12 ? 4 : 2));

    Bench crashed;
    crashed.feed(first);
    Bench restarted(crashed.applier.last_commit());  // another process that found this in the store
    restarted.feed(stream);
    auto keys = crashed.keys();
    const auto later = restarted.keys();
    keys.insert(keys.end(), later.begin(), later.end());
    CHECK(keys == all);
  }
}

TEST_CASE("a shape that a later one replaced is not learned again from dropped transactions",
          "[capture][applier]") {
  Bench bench(Lsn{0x200});
  bench.feed(transaction(Lsn{0x100}, {kShape, insert(1)}));
  bench.feed(transaction(Lsn{0x200}, {kWiderShape}));
  bench.feed(transaction(Lsn{0x300}, {bytes::insert(kThings, {text("3"), null(), null()})}));
  CHECK(bench.registry->all()->size() == 1);
  CHECK(bench.encoder.schema_of(kThings)->columns.size() == 3);
}

TEST_CASE("a transactional message is an event of its transaction, any other is ignored",
          "[capture][applier]") {
  Bench bench;
  bench.feed({bytes::logical(false, Lsn{1}, "p", "c")});
  bench.feed(transaction(Lsn{0x100}, {bytes::logical(true, Lsn{1}, "in", "c"),
                                      bytes::logical(false, Lsn{1}, "out", "c")}));
  REQUIRE(bench.out.transactions.size() == 1);
  CHECK(bench.keys() == std::vector<std::string>{"in"});
  CHECK(bench.out.transactions[0].events[0].category == kMessagesCategory);
}

TEST_CASE("reset rolls the open transaction back and forgets every shape", "[capture][applier]") {
  Bench bench;
  bench.feed({bytes::begin(Lsn{0x100}), kShape, insert(1)});
  REQUIRE(bench.applier.reset());
  CHECK(bench.out.rollbacks == 1);
  CHECK_FALSE(bench.applier.in_transaction());
  CHECK(bench.encoder.schema_of(kThings) == nullptr);
  REQUIRE(bench.applier.reset());
  CHECK(bench.out.rollbacks == 1);
  bench.feed({bytes::begin(Lsn{0x100})});  // nothing of it was handed on
  REQUIRE(bench.applier.reset());
  CHECK(bench.out.rollbacks == 1);
}

TEST_CASE("B6, B7: changes, shapes and commits outside a transaction are refused",
          "[capture][applier]") {
  for (const std::string& message :
       {insert(1), bytes::update(kThings, {text("1"), null()}),
        bytes::remove(kThings, 'K', {text("1"), null()}), bytes::truncate({kThings}),
        bytes::logical(true, Lsn{1}, "p", "c"), kShape, bytes::commit(Lsn{0x100}, Lsn{0x108})}) {
    Bench bench;
    CHECK(bench.error(message).code() == ErrorCode::kCorruption);
    CHECK(bench.out.transactions.empty());
  }
  Bench bench;
  bench.feed({bytes::begin(Lsn{0x100}, 7)});
  CHECK(bench.error(insert(1)).message() ==
        "replication message at 0/50 of the transaction that commits at 0/100: "
        "a change of table OID 16400, whose columns were never sent");
}

TEST_CASE("B7: a begin inside a transaction or another's commit is refused", "[capture][applier]") {
  for (const std::string& message :
       {bytes::begin(Lsn{0x200}), bytes::commit(Lsn{0x101}, Lsn{0x108}),
        bytes::commit(Lsn{0xFF}, Lsn{0x108}), bytes::commit(Lsn{0x100}, Lsn{0x100}),
        bytes::commit(Lsn{0x100}, Lsn{})}) {
    Bench bench;
    bench.feed({bytes::begin(Lsn{0x100}), kShape, insert(1)});
    CHECK(bench.error(message).code() == ErrorCode::kCorruption);
    CHECK(bench.out.transactions.empty());
    REQUIRE(bench.applier.reset());
    CHECK(bench.out.rollbacks == 1);
  }
}

TEST_CASE("B8: commit LSNs that are 0 or do not increase on a connection are refused",
          "[capture][applier]") {
  Bench zero;
  CHECK(zero.error(bytes::begin(Lsn{})).code() == ErrorCode::kCorruption);
  for (const Lsn second : {Lsn{0x100}, Lsn{0xFF}}) {
    Bench bench;
    bench.feed(transaction(Lsn{0x100}, {}));
    CHECK(bench.error(bytes::begin(second)).code() == ErrorCode::kCorruption);
    Bench dropping(Lsn{0x500});
    dropping.feed(transaction(Lsn{0x100}, {}));
    CHECK(dropping.error(bytes::begin(second)).code() == ErrorCode::kCorruption);
  }
  Bench high;
  high.feed(transaction(Lsn{0xFFFFFFFF00000000}, {kShape, insert(1)}));  // beyond what is signed
  CHECK(high.applier.last_commit() == Lsn{0xFFFFFFFF00000000});
}

TEST_CASE("streamed transactions are refused, since they are not asked for", "[capture][applier]") {
  for (const std::string& message :
       {bytes::stream_start(1, true), bytes::stream_commit(1, Lsn{1}, Lsn{2}),
        bytes::stream_abort(1, 1)}) {
    Bench bench;
    CHECK(bench.error(message).code() == ErrorCode::kCorruption);
  }
}

TEST_CASE("an error in the middle of a transaction leaves nothing of it", "[capture][applier]") {
  Bench bench;
  bench.feed({bytes::begin(Lsn{0x100}), kShape, insert(1)});
  CHECK(bench.error("Z").code() == ErrorCode::kUnsupported);
  CHECK_FALSE(bench.applier.apply(bytes::commit(Lsn{0x100}, Lsn{0x108}), Lsn{0x100}));
  REQUIRE(bench.applier.reset());
  CHECK(bench.out.transactions.empty());
  bench.feed(transaction(Lsn{0x100}, {kShape, insert(1)}));
  CHECK(bench.keys() == std::vector<std::string>{"1"});
}

TEST_CASE("the recorded stream of PostgreSQL 15 goes through whole", "[capture][applier]") {
  Bench bench;
  std::uint64_t commits = 0;
  for (const auto& recorded : bytes::read_golden("pgoutput_15_proto1.hex")) {
    const auto applied = bench.applier.apply(recorded.bytes, recorded.lsn);
    if (!applied) FAIL(applied.error().to_string());
    commits += recorded.bytes[0] == 'C';
  }
  CHECK(bench.applier.transactions() + bench.applier.empty() == commits);
  CHECK_FALSE(bench.applier.in_transaction());
  for (const auto& transaction : bench.out.transactions)
    for (const auto& event : transaction.events)
      CHECK(event.change().SerializeAsString() == event.payload);
}

}  // namespace
}  // namespace millrace
