// Transactions in progress: blocks that take turns, parts that are rolled back, shapes that change
// in and beside them. The bytes are built here; streamed_pgtest.cc asks a server.
#include <algorithm>
#include <random>
#include <set>

#include "capture/pipeline/stream_applier.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"
#include "tests/support/fault_fs.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace {
namespace {

namespace bytes = test::bytes;
using bytes::text;

constexpr std::uint32_t kThings = 16400;
const std::vector<bytes::ColumnSpec> kNarrow = {{"id", 23, true}, {"name"}};
const std::vector<bytes::ColumnSpec> kWide = {{"id", 23, true}, {"name"}, {"more"}};

std::string shape(const std::vector<bytes::ColumnSpec>& columns, bytes::Xid xid = {}) {
  return bytes::relation(kThings, "public", "things", 'd', columns, xid);
}
/// A row of as many columns as `columns`.
std::string insert(int id, bytes::Xid xid = {},
                   const std::vector<bytes::ColumnSpec>& columns = kNarrow) {
  bytes::TupleSpec row(columns.size(), text("v"));
  row[0] = text(std::to_string(id));
  return bytes::insert(kThings, row, xid);
}
using Messages = std::vector<std::string>;
using Keys = std::vector<std::string>;

Messages joined(std::initializer_list<Messages> parts) {
  Messages all;
  for (const Messages& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}
Messages block(std::uint32_t xid, bool first, const Messages& inside) {
  return joined({{bytes::stream_start(xid, first)}, inside, {bytes::stream_stop()}});
}
Messages ordinary(Lsn commit, const Messages& inside) {
  return joined({{bytes::begin(commit)}, inside, {bytes::commit(commit, Lsn{commit.value + 8})}});
}
std::string stream_commit(std::uint32_t xid, Lsn commit) {
  return bytes::stream_commit(xid, commit, Lsn{commit.value + 8}, 5);
}

struct Bench {
  explicit Bench(Lsn last_commit = Lsn{}) : applier(encoder, out, 3, last_commit, spill.get()) {}

  test::FaultFs disk;
  std::unique_ptr<TransactionSpill> spill = made();
  test::FakeCatalog catalog;
  std::unique_ptr<SchemaRegistry> registry = SchemaRegistry::in_memory();
  test::MemoryOut out;
  ChangeEncoder encoder{*registry, catalog, out};
  StreamApplier applier;

  std::unique_ptr<TransactionSpill> made() {
    REQUIRE(disk.make_directory("/store"));
    return TransactionSpill::open("/store/spill", disk).value();
  }
  /// The first error, of a message or of a replay.
  Result<void> try_feed(const Messages& messages) {
    for (const std::string& message : messages) {
      MILLRACE_RETURN_IF_ERROR(applier.apply(message, Lsn{0x50}));
      while (applier.replaying()) MILLRACE_RETURN_IF_ERROR(applier.replay_one());
    }
    return {};
  }
  void feed(const Messages& messages) {
    const auto fed = try_feed(messages);
    if (!fed) FAIL(fed.error().to_string());
  }
  std::string error(const Messages& messages) {
    const auto fed = try_feed(messages);
    REQUIRE_FALSE(fed);
    CHECK(fed.error().code() == ErrorCode::kCorruption);
    return fed.error().message();
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (const auto& transaction : out.transactions)
      for (const auto& event : transaction.events) all.push_back(event.key);
    return all;
  }
  std::vector<std::string> files() {
    return disk.exists("/store/spill").value() ? disk.names("/store/spill") : Keys();
  }
  /// Names of the columns that the event `i` has, by its own schema.
  std::vector<std::string> columns_of(std::size_t transaction, std::size_t event) {
    const v1::Change change = out.transactions.at(transaction).events.at(event).change();
    const auto schema = registry->find("public.things", change.schema());
    REQUIRE(schema);
    std::vector<std::string> names;
    for (const auto& [name, value] : test::row_of(**schema, change.after())) names.push_back(name);
    return names;
  }
};
const Keys kTwo = {"id", "name"}, kThree = {"id", "more", "name"};

TEST_CASE("a streamed transaction is handed on at its commit, whole, as an ordinary one",
          "[capture][applier][streamed]") {
  Bench bench;
  bench.feed(block(70, true, {bytes::origin(Lsn{1}, "other"), shape(kNarrow, 70), insert(1, 70)}));
  CHECK_FALSE(bench.applier.in_transaction());
  bench.feed({bytes::stream_start(70, false)});
  CHECK(bench.applier.in_transaction());
  bench.feed({insert(2, 71), bytes::stream_stop()});
  CHECK(bench.out.transactions.empty());
  CHECK(bench.catalog.questions == 0);
  CHECK(bench.files() == Keys{"70.spill"});

  REQUIRE(bench.applier.apply(stream_commit(70, Lsn{0x100}), Lsn{0x90}));
  int steps = 0;
  for (; bench.applier.replaying(); ++steps) {
    CHECK(bench.applier.in_transaction());
    CHECK(bench.out.transactions.empty());
    REQUIRE(bench.applier.replay_one());
  }
  CHECK(steps == 5);  // a message each, and the end
  CHECK_FALSE(bench.applier.in_transaction());
  REQUIRE(bench.out.transactions.size() == 1);
  const TransactionInfo& info = bench.out.transactions[0].info;
  CHECK(info.source == SourcePosition{.epoch = 3, .commit = 0x100, .end = 0x108});
  CHECK(info.source_xid == 70);
  CHECK(to_iso8601(info.commit_time) == "2000-01-01T00:00:00.000005Z");
  CHECK(bench.keys() == Keys{"1", "2"});
  CHECK(bench.out.transactions[0].events[0].change().lsn() == 0x50);
  CHECK(bench.applier.last_commit() == Lsn{0x100});
  CHECK(bench.applier.seen_end() == Lsn{0x108});
  CHECK(bench.applier.changes() == 2);
  CHECK(bench.files().empty());
}

TEST_CASE("what a killed process left in the spill's folder is removed, unread, nothing else",
          "[capture][applier][streamed]") {
  test::FaultFs disk;
  REQUIRE(disk.make_directory("/spill"));
  disk.set_content("/spill/17.spill", "anything");
  disk.set_content("/spill/notes", "somebody's");
  const auto spill = TransactionSpill::open("/spill", disk);
  REQUIRE(spill);
  CHECK(disk.names("/spill") == Keys{"notes"});
  REQUIRE((*spill)->start_block(17, true));
  REQUIRE((*spill)->end_block());
  CHECK(disk.names("/spill") == Keys{"17.spill", "notes"});
}

TEST_CASE("a spill whose folder somebody removed fails once, and is made again",
          "[capture][applier][streamed]") {
  Bench bench;
  const Messages open = block(70, true, {shape(kNarrow, 70), insert(1, 70)});
  bench.feed(open);
  bench.disk.erase_tree("/store/spill");
  CHECK_FALSE(bench.try_feed({stream_commit(70, Lsn{0x100})}));
  REQUIRE(bench.applier.reset());
  bench.feed(joined({open, {stream_commit(70, Lsn{0x100})}}));
  CHECK(bench.keys() == Keys{"1"});
}

TEST_CASE("F83: of transactions whose blocks take turns what committed comes, in commit order",
          "[capture][applier][streamed]") {
  Bench bench;
  bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                     block(80, true, {shape(kNarrow, 80), insert(11, 80)}),
                     block(90, true, {shape(kNarrow, 90), insert(21, 90)}),
                     ordinary(Lsn{0x100}, {shape(kNarrow), insert(99)}),
                     block(70, false, {insert(2, 70)}),
                     {stream_commit(80, Lsn{0x200})},
                     {bytes::stream_abort(90, 90)},
                     block(70, false, {insert(3, 70)}),
                     {stream_commit(70, Lsn{0x300})}}));
  CHECK(bench.keys() == Keys{"99", "11", "1", "2", "3"});
  CHECK(bench.out.transactions[2].info.source_xid == 70);
  CHECK(bench.files().empty());
  CHECK(bench.spill->transactions() == 0);
}

TEST_CASE("F78: parts that were rolled back are left out, with what they said of tables",
          "[capture][applier][streamed]") {
  Bench bench;
  bench.feed(
      joined({block(70, true, {shape(kNarrow, 70), insert(1, 70), insert(2, 71), insert(3, 72)}),
              {bytes::stream_abort(70, 71)},
              block(70, false,
                    {shape(kNarrow, 70), insert(4, 70), shape(kWide, 73), insert(5, 73, kWide),
                     bytes::logical(true, Lsn{1}, "p", "gone", 73)}),
              {bytes::stream_abort(70, 73)},
              block(70, false, {shape(kNarrow, 74), insert(6, 74), insert(7, 70)}),
              {stream_commit(70, Lsn{0x100})}}));
  CHECK(bench.keys() == Keys{"1", "3", "4", "6", "7"});
  CHECK(bench.registry->all()->size() == 1);  // nobody ever saw the wide one
}

TEST_CASE("F78: ten thousand parts, every third of them rolled back",
          "[capture][applier][streamed]") {
  Bench bench;
  Messages stream = block(70, true, {shape(kNarrow, 70)});
  Keys expected;
  for (std::uint32_t part = 0; part < 10'000; ++part) {
    const std::uint32_t xid = 4'294'960'000u + part;  // over the end: they wrap around to 3
    const std::uint32_t wrapped = xid < 4'294'960'000u ? xid + 3 : xid;
    for (const auto& message :
         block(70, false, {shape(kNarrow, wrapped), insert(static_cast<int>(part), wrapped)}))
      stream.push_back(message);
    if (part % 3 == 0)
      stream.push_back(bytes::stream_abort(70, wrapped));
    else
      expected.push_back(std::to_string(part));
  }
  stream.push_back(stream_commit(70, Lsn{0x100}));
  bench.feed(stream);
  CHECK(bench.keys() == expected);
  CHECK(bench.registry->all()->size() == 1);
}

TEST_CASE("F85: messages in a stream block: of the transaction, of none, of capture itself",
          "[capture][applier][streamed]") {
  Bench bench;
  bench.feed(joined({block(70, true,
                           {bytes::logical(true, Lsn{1}, "in", "c", 70),
                            bytes::logical(false, Lsn{1}, "beside", "c", 70),
                            bytes::logical(true, Lsn{1}, std::string(kOwnMessagePrefix), "c", 70)}),
                     {bytes::logical(false, Lsn{1}, "between", "c")},
                     {stream_commit(70, Lsn{0x100})}}));
  CHECK(bench.keys() == Keys{"in"});
}

TEST_CASE("a part that is rolled back beside messages of its transaction is asked for again",
          "[capture][applier][streamed]") {
  Bench bench;
  const Messages begun =
      block(70, true,
            {shape(kNarrow, 71), insert(1, 71), bytes::logical(true, Lsn{1}, "whose", "c", 70)});
  // Of another transaction, or of all of this one: that tells enough.
  bench.feed(joined({block(80, true, {shape(kNarrow, 81), insert(2, 81)}),
                     begun,
                     {bytes::stream_abort(80, 81), bytes::stream_abort(70, 70)}}));
  CHECK_FALSE(bench.applier.needs_whole_transactions());
  bench.feed(begun);
  const auto failed = bench.try_feed({bytes::stream_abort(70, 71)});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code() == ErrorCode::kUnavailable);
  CHECK(bench.applier.needs_whole_transactions());
  REQUIRE(bench.applier.reset());
  CHECK_FALSE(bench.applier.needs_whole_transactions());
  bench.feed(ordinary(Lsn{0x100}, {bytes::logical(true, Lsn{1}, "kept", "c")}));
  CHECK(bench.keys() == Keys{"kept"});
}

TEST_CASE("a streamed transaction without events is not handed on, only its end is remembered",
          "[capture][applier][streamed]") {
  Bench bench;
  bench.feed(joined({block(70, true, {}), {stream_commit(70, Lsn{0x100})}}));
  bench.feed(joined({block(71, true, {shape(kNarrow, 72), insert(1, 72)}),
                     {bytes::stream_abort(71, 72), stream_commit(71, Lsn{0x200})}}));
  CHECK(bench.out.transactions.empty());
  CHECK(bench.applier.empty() == 2);
  CHECK(bench.applier.seen_end() == Lsn{0x208});
  CHECK(bench.files().empty());
}

TEST_CASE("F71, F72: a replay has its own transaction's shapes, and ordinary ones theirs",
          "[capture][applier][streamed]") {
  Bench bench;
  SECTION("DDL in the open transaction: the shape it brought counts for all after its commit") {
    bench.feed(
        joined({ordinary(Lsn{0x100}, {shape(kNarrow), insert(1)}),
                block(70, true,
                      {shape(kNarrow, 70), insert(2, 70), shape(kWide, 70), insert(3, 70, kWide)}),
                {stream_commit(70, Lsn{0x200})},
                ordinary(Lsn{0x300}, {insert(4, {}, kWide)})}));
    CHECK(bench.columns_of(1, 0) == kTwo);
    CHECK(bench.columns_of(1, 1) == kThree);
    CHECK(bench.columns_of(2, 0) == kThree);
    CHECK(bench.registry->all()->size() == 2);
  }
  SECTION("the table changes beside it: what was sent later is right for those that follow") {
    bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                       ordinary(Lsn{0x100}, {shape(kWide), insert(2, {}, kWide)}),
                       {stream_commit(70, Lsn{0x200})},
                       ordinary(Lsn{0x300}, {insert(3, {}, kWide)})}));
    CHECK(bench.columns_of(0, 0) == kThree);
    CHECK(bench.columns_of(1, 0) == kTwo);
    CHECK(bench.columns_of(2, 0) == kThree);
  }
  SECTION("it learns of the change beside it in a later block") {
    bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                       ordinary(Lsn{0x100}, {shape(kWide), insert(2, {}, kWide)}),
                       block(70, false, {shape(kWide, 70), insert(3, 70, kWide)}),
                       {stream_commit(70, Lsn{0x200})},
                       ordinary(Lsn{0x300}, {insert(4, {}, kWide)})}));
    CHECK(bench.columns_of(1, 0) == kTwo);
    CHECK(bench.columns_of(1, 1) == kThree);
    CHECK(bench.columns_of(2, 0) == kThree);
  }
  SECTION("the table changes beside it and back: what it sent again is the later one") {
    bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                       ordinary(Lsn{0x100}, {shape(kWide), insert(2, {}, kWide)}),
                       block(70, false, {shape(kNarrow, 70), insert(3, 70)}),
                       {stream_commit(70, Lsn{0x200})},
                       ordinary(Lsn{0x300}, {insert(4)})}));
    CHECK(bench.columns_of(1, 0) == kTwo);
    CHECK(bench.columns_of(1, 1) == kTwo);
    CHECK(bench.columns_of(2, 0) == kTwo);
  }
  SECTION("two of them, the one that began first commits last") {
    bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                       block(80, true, {shape(kWide, 80), insert(2, 80, kWide)}),
                       {stream_commit(80, Lsn{0x100})},
                       ordinary(Lsn{0x180}, {insert(3, {}, kWide)}),
                       {stream_commit(70, Lsn{0x200})},
                       ordinary(Lsn{0x300}, {insert(4, {}, kWide)})}));
    CHECK(bench.columns_of(0, 0) == kThree);
    CHECK(bench.columns_of(1, 0) == kThree);
    CHECK(bench.columns_of(2, 0) == kTwo);
    CHECK(bench.columns_of(3, 0) == kThree);
  }
  SECTION("a shape of a transaction that was rolled back is nobody's") {
    bench.feed(joined({ordinary(Lsn{0x100}, {shape(kNarrow), insert(1)}),
                       block(70, true, {shape(kWide, 70), insert(2, 70, kWide)}),
                       {bytes::stream_abort(70, 70)},
                       ordinary(Lsn{0x200}, {insert(3)})}));
    CHECK(bench.columns_of(1, 0) == kTwo);
    CHECK(bench.registry->all()->size() == 1);
  }
  SECTION("sent again after a part was rolled back, it is learned once in a replay") {
    Messages stream = ordinary(Lsn{0x100}, {shape(kNarrow), insert(1)});
    const int before = (bench.feed(stream), bench.catalog.questions);
    stream = block(70, true, {shape(kNarrow, 70), insert(2, 70)});
    for (std::uint32_t part = 71; part < 171; ++part)
      stream = joined({stream,
                       block(70, false, {shape(kNarrow, part), insert(3, part)}),
                       {bytes::stream_abort(70, part)},
                       block(70, false, {shape(kNarrow, 70), insert(4, 70)})});
    bench.feed(joined({stream, {stream_commit(70, Lsn{0x200})}}));
    CHECK(bench.catalog.questions - before <= before);
    CHECK(bench.keys().size() == 102);
  }
}

TEST_CASE("I2: a streamed transaction that is there already is dropped whole, its shape is not",
          "[capture][applier][streamed]") {
  Bench bench(Lsn{0x200});
  bench.feed(joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                     {stream_commit(70, Lsn{0x200})},
                     ordinary(Lsn{0x201}, {insert(2)})}));
  CHECK(bench.applier.repeated() == 1);
  CHECK(bench.keys() == Keys{"2"});
  CHECK(bench.files().empty());
}

TEST_CASE("B7: streamed parts out of order are refused", "[capture][applier][streamed]") {
  const Messages open = block(70, true, {shape(kNarrow, 70), insert(1, 70)});
  const auto error = [](std::initializer_list<Messages> parts) {
    Bench bench;
    const std::string message = bench.error(joined(parts));
    CHECK(bench.applier.apply(insert(1), Lsn{1}).error().code() == ErrorCode::kFailedPrecondition);
    REQUIRE(bench.applier.reset());
    CHECK(bench.files().empty());
    CHECK_FALSE(bench.out.in_transaction);
    return message;
  };
  CHECK(
      error({{bytes::stream_start(70, false)}}) ==
      "replication message at 0/50: a stream block of transaction 70, whose beginning never came");
  error({open, {bytes::stream_start(70, true)}});
  error({{bytes::begin(Lsn{1}), bytes::stream_start(70, true)}});
  error({open, {bytes::begin(Lsn{1}), stream_commit(70, Lsn{0x100})}});
  error({open, {bytes::begin(Lsn{1}), bytes::stream_abort(70, 70)}});
  error({{stream_commit(70, Lsn{0x100})}});
  error({open, {stream_commit(70, Lsn{0x100}), stream_commit(70, Lsn{0x200})}});
  error({open, {bytes::stream_abort(70, 70), stream_commit(70, Lsn{0x200})}});
  error({ordinary(Lsn{0x300}, {}), open, {stream_commit(70, Lsn{0x300})}});  // B8
  error({open, {stream_commit(70, Lsn{})}});
  error({open, {bytes::stream_commit(70, Lsn{0x100}, Lsn{0x100})}});
  error({block(70, true, {insert(1, 70)}), {stream_commit(70, Lsn{0x100})}});
  Bench bench;  // what is not here needs no dropping
  bench.feed({bytes::stream_abort(1, 1), bytes::stream_abort(1, 2)});
}

TEST_CASE("F84: parts of a two-phase commit are refused, since they are not asked for",
          "[capture][applier][streamed]") {
  for (const std::string& message :
       {bytes::begin_prepare(Lsn{1}, Lsn{2}, 3, "g"), bytes::prepare(Lsn{1}, Lsn{2}, 3, "g"),
        bytes::stream_prepare(Lsn{1}, Lsn{2}, 3, "g"),
        bytes::commit_prepared(Lsn{1}, Lsn{2}, 3, "an orphan"),
        bytes::rollback_prepared(Lsn{1}, Lsn{2}, 3, "an orphan")}) {
    Bench bench;
    CHECK(bench.error({message}).find("did not ask for") != std::string::npos);
  }
}

/// Random transactions whose blocks take turns, with the keys that must come of them.
struct RandomStream {
  explicit RandomStream(unsigned seed) : random(seed) {
    for (std::uint32_t lsn = 0x100; lsn < 0x100 + 0x10 * 60;) {
      const int what = pick(0, 9);
      if (open.empty() || (what == 0 && open.size() < 8)) {
        begin();
      } else if (what <= 5) {
        more();
      } else if (what == 6) {
        roll_part_back();
      } else if (what == 7) {
        const auto [xid, own] = chosen();
        add({bytes::stream_abort(xid, xid)});
        open.erase(xid);
      } else if (what == 8) {
        const auto [xid, own] = chosen();
        add({stream_commit(xid, Lsn{lsn})});
        commit(lsn, own);
        open.erase(xid);
      } else {
        ++number;
        add(ordinary(Lsn{lsn}, {shape(kNarrow), insert(number)}));
        commit(lsn, {{0, number}});
      }
    }
  }
  using Rows = std::vector<std::pair<std::uint32_t, int>>;  // part and id

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }
  void add(const Messages& messages) {
    stream.insert(stream.end(), messages.begin(), messages.end());
  }
  void commit(std::uint32_t& lsn, const Rows& rows) {
    for (const auto& [part, id] : rows) expected.push_back(std::to_string(id));
    lsn += 0x10;
  }
  std::pair<std::uint32_t, Rows> chosen() {
    return *std::next(open.begin(), pick(0, static_cast<int>(open.size()) - 1));
  }
  void begin() {
    const std::uint32_t xid = next_xid += 3;
    open[xid];
    add(block(xid, true, {shape(kNarrow, xid)}));
  }
  void more() {
    const std::uint32_t xid = chosen().first;
    Messages inside;
    for (int i = pick(0, 4); i > 0; --i) {
      const std::uint32_t part = pick(0, 1) == 0 ? xid : next_xid += 3;
      open[xid].emplace_back(part, ++number);
      inside.push_back(insert(number, part));
    }
    add(block(xid, false, inside));
  }
  void roll_part_back() {
    const auto [xid, rows] = chosen();
    if (rows.empty()) return;
    const std::uint32_t part =
        rows[static_cast<std::size_t>(pick(0, static_cast<int>(rows.size()) - 1))].first;
    if (part == xid) return;
    add({bytes::stream_abort(xid, part)});
    std::erase_if(open[xid], [&](const auto& row) { return row.first == part; });
  }

  std::minstd_rand random;
  std::uint32_t next_xid = 700;
  int number = 0;
  std::map<std::uint32_t, Rows> open;
  Messages stream;
  Keys expected;
};

TEST_CASE("F83: random streams, cut anywhere and sent again, give every event once",
          "[capture][applier][streamed]") {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    const RandomStream made(seed);
    for (std::size_t cut = 0; cut <= made.stream.size(); cut += 1 + seed % 5) {
      const Messages first(made.stream.begin(),
                           made.stream.begin() + static_cast<std::ptrdiff_t>(cut));
      Bench bench;
      bench.feed(first);
      REQUIRE(bench.applier.reset());
      CHECK(bench.files().empty());
      bench.feed(made.stream);
      REQUIRE(bench.keys() == made.expected);
      REQUIRE(bench.files().size() == made.open.size());
    }
  }
}

TEST_CASE("a replay that is cut at any step leaves nothing of its transaction",
          "[capture][applier][streamed]") {
  const Messages stream = joined({block(70, true, {shape(kNarrow, 70), insert(1, 70)}),
                                  block(70, false, {insert(2, 70), insert(3, 70)}),
                                  {stream_commit(70, Lsn{0x100})}});
  for (int steps = 0; steps <= 4; ++steps) {
    Bench bench;
    for (const std::string& message : stream) REQUIRE(bench.applier.apply(message, Lsn{0x50}));
    for (int i = 0; i < steps; ++i) REQUIRE(bench.applier.replay_one());
    REQUIRE(bench.applier.reset());
    CHECK_FALSE(bench.applier.replaying());
    CHECK_FALSE(bench.out.in_transaction);
    CHECK(bench.out.transactions.empty());
    CHECK(bench.files().empty());
    bench.feed(stream);
    CHECK(bench.keys() == Keys{"1", "2", "3"});
  }
}

/// Blocks that fill several frames, with one message that is larger than a frame.
Messages large_stream() {
  Messages stream = block(70, true, {shape(kNarrow, 70)});
  for (int i = 0; i < 40; ++i)
    stream = joined(
        {stream,
         block(70, false,
               {bytes::insert(kThings,
                              {text(std::to_string(2 * i)), text(std::string(30'000, 'x'))}, 70),
                insert(2 * i + 1, 71)})});
  return joined({stream,
                 block(70, false,
                       {bytes::insert(kThings, {text("80"), text(std::string(3 << 20, 'y'))}, 70)}),
                 {stream_commit(70, Lsn{0x100})}});
}

TEST_CASE("F19: any operation on the disk that fails while spilling loses nothing",
          "[capture][applier][streamed]") {
  const Messages stream = large_stream();
  Bench counted;
  const std::uint64_t before = counted.disk.operations();
  counted.feed(stream);
  const std::uint64_t operations = counted.disk.operations() - before;
  REQUIRE(operations > 40);
  CHECK(counted.disk.syncs() == 0);  // a crash costs nothing: it is sent again
  const Keys all = counted.keys();
  REQUIRE(all.size() == 81);
  for (std::uint64_t number = 1; number <= operations; ++number) {
    Bench bench;
    bench.disk.fail_at(number, ErrorCode::kNoSpace);
    const auto fed = bench.try_feed(stream);
    CAPTURE(number);
    REQUIRE_FALSE(fed);
    CHECK(fed.error().code() == ErrorCode::kNoSpace);
    bench.disk.clear_faults();
    const Keys first = bench.keys();  // all of it where only the file could not be removed
    REQUIRE(bench.applier.reset());
    CHECK(bench.files().empty());
    if (first.empty()) bench.feed(stream);
    REQUIRE(bench.keys() == all);
  }
}

TEST_CASE("F19: a disk that is full, whole or for a part of a frame, is told with the file's name",
          "[capture][applier][streamed]") {
  const Messages stream = large_stream();
  for (std::uint64_t space = 0; space < 4'000'000; space += 333'333) {
    Bench bench;
    bench.disk.set_space_left(space);
    const auto fed = bench.try_feed(stream);
    REQUIRE_FALSE(fed);
    CHECK(fed.error().code() == ErrorCode::kNoSpace);
    CHECK(fed.error().message().find("keep transaction 70 in /store/spill/70.spill") !=
          std::string::npos);
    CHECK(bench.out.transactions.empty());
    REQUIRE(bench.applier.reset());
    CHECK(bench.files().empty());
  }
}

TEST_CASE("I8: a spill that does not read back as it was written is never replayed",
          "[capture][applier][streamed]") {
  const Messages stream = joined(
      {block(70, true, {shape(kNarrow, 70), insert(1, 70)}), block(70, false, {insert(2, 70)})});
  Bench whole;
  whole.feed(stream);
  const Path path = "/store/spill/70.spill";
  const std::string content = whole.disk.content(path);
  for (std::size_t bit = 0; bit < content.size() * 8; bit += 3) {
    Bench bench;
    bench.feed(stream);
    std::string damaged = content;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    bench.disk.set_content(path, damaged);
    CHECK(bench.error({stream_commit(70, Lsn{0x100})}).find("70.spill") != std::string::npos);
    CHECK(bench.out.transactions.empty());
    REQUIRE(bench.applier.reset());
    CHECK_FALSE(bench.out.in_transaction);
  }
  for (std::size_t cut = 0; cut < content.size(); ++cut) {
    Bench bench;
    bench.feed(stream);
    bench.disk.set_content(path, content.substr(0, cut));
    bench.error({stream_commit(70, Lsn{0x100})});
    CHECK(bench.out.transactions.empty());
  }
}

TEST_CASE("the recorded stream of PostgreSQL 15 with transactions in progress is the one without",
          "[capture][applier][streamed]") {
  // The same workload was recorded twice: the events must be the same.
  const auto events_of = [](const char* name) {
    Bench bench;
    for (const auto& recorded : bytes::read_golden(name)) {
      REQUIRE(bench.applier.apply(recorded.bytes, recorded.lsn));
      while (bench.applier.replaying()) REQUIRE(bench.applier.replay_one());
    }
    CHECK(bench.files().empty());
    std::vector<std::vector<std::pair<std::string, std::string>>> events;
    for (const auto& transaction : bench.out.transactions) {
      events.emplace_back();
      for (const auto& event : transaction.events) {
        v1::Change change = event.change();
        change.clear_lsn();
        events.back().emplace_back(event.category + "/" + event.key, change.SerializeAsString());
      }
    }
    return events;
  };
  const auto whole = events_of("pgoutput_15_proto1.hex");
  CHECK(whole.size() > 10);
  CHECK(events_of("pgoutput_15_proto2_streaming.hex") == whole);
}

}  // namespace
}  // namespace millrace
