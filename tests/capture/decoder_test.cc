#include "capture/pgoutput/decoder.h"

#include <algorithm>
#include <type_traits>

#include "base/bytes.h"
#include "tests/support/catch.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace::pgoutput {
namespace {

namespace bytes = test::bytes;
using bytes::binary;
using bytes::null;
using bytes::text;
using bytes::unchanged;

/// Bytes in an allocation of exactly their size, so that a sanitizer sees a read beyond them.
class Exact {
 public:
  explicit Exact(std::string_view from) : bytes_(from.begin(), from.end()) {}
  std::string_view view() const { return {bytes_.data(), bytes_.size()}; }

 private:
  std::vector<char> bytes_;
};

/// A message and whether it stands in a stream block.
struct Sample {
  std::string bytes;
  bool in_stream = false;
};

Decoder decoder_for(const Sample& sample) {
  Decoder decoder;
  if (sample.in_stream) REQUIRE(decoder.decode(bytes::stream_start(1, true)));
  return decoder;
}

/// Every message that PostgreSQL was recorded to send, and one of each that we know of.
std::vector<Sample> samples() {
  std::vector<Sample> all;
  const auto add = [&](const std::vector<std::string>& messages) {
    bool in_stream = false;
    for (const std::string& message : messages) {
      if (message[0] == 'S') all.push_back({message, false});
      if (message[0] == 'S' || message[0] == 'E') in_stream = message[0] == 'S';
      if (message[0] != 'S') all.push_back({message, in_stream || message[0] == 'E'});
    }
  };
  add(bytes::one_of_each());
  for (const char* name :
       {"pgoutput_15_proto1.hex", "pgoutput_15_proto2_streaming.hex", "pgoutput_15_proto3.hex"}) {
    std::vector<std::string> messages;
    for (const bytes::Recorded& recorded : bytes::read_golden(name))
      messages.push_back(recorded.bytes);
    add(messages);
  }
  return all;
}

template <typename T>
const T& decoded(Decoder& decoder, std::string_view from) {
  const auto message = decoder.decode(from);
  if (!message) FAIL(message.error().to_string());
  REQUIRE(std::holds_alternative<const T*>(*message));
  return *std::get<const T*>(*message);
}

std::string error_of(std::string_view from, ErrorCode code = ErrorCode::kCorruption) {
  Decoder decoder;
  const Exact exact(from);
  const auto message = decoder.decode(exact.view());
  REQUIRE_FALSE(message);
  CHECK(message.error().code() == code);
  return message.error().message();
}

/// Visits every view that a message holds.
template <typename Visit>
void each_view(const Message& message, Visit&& visit) {
  const auto tuple = [&](const Tuple& fields) {
    for (const Field& field : fields)
      if (field.state == FieldState::kText || field.state == FieldState::kBinary)
        visit(field.value);
  };
  std::visit(
      [&](const auto* m) {
        using T = std::remove_cvref_t<decltype(*m)>;
        if constexpr (requires { m->after; }) tuple(m->after);
        if constexpr (requires { m->before; }) tuple(m->before);
        if constexpr (requires { m->name; }) visit(m->name);
        if constexpr (requires { m->gid; }) visit(m->gid);
        if constexpr (requires { m->schema_name; })
          if (m->schema_name != "pg_catalog") visit(m->schema_name);
        if constexpr (std::is_same_v<T, Relation>) {
          visit(m->table_name);
          for (const RelationColumn& column : m->columns) visit(column.name);
        }
        if constexpr (std::is_same_v<T, LogicalMessage>) visit(m->prefix), visit(m->content);
      },
      message);
}

bool views_lie_within(const Message& message, std::string_view from) {
  bool inside = true;
  each_view(message, [&](std::string_view view) {
    inside = inside && view.data() >= from.data() &&
             view.data() + view.size() <= from.data() + from.size();
  });
  return inside;
}

TEST_CASE("the golden bytes of every message type are what we build", "[capture][pgoutput]") {
  const auto golden = bytes::read_golden("pgoutput_one_of_each.hex");
  const auto built = bytes::one_of_each();
  REQUIRE(golden.size() == built.size());
  for (std::size_t i = 0; i < built.size(); ++i) CHECK(to_hex(golden[i].bytes) == to_hex(built[i]));
}

TEST_CASE("begin and commit decode", "[capture][pgoutput]") {
  Decoder decoder;
  const Begin& begin =
      decoded<Begin>(decoder, bytes::begin(Lsn{0xFFFFFFFF00000001}, 4000000000u, 1));
  CHECK(begin.commit_lsn == Lsn{0xFFFFFFFF00000001});
  CHECK(begin.xid == 4000000000u);
  CHECK(to_iso8601(begin.commit_time) == "2000-01-01T00:00:00.000001Z");

  const Commit& commit = decoded<Commit>(decoder, bytes::commit(Lsn{5}, Lsn{9}, -1));
  CHECK(commit.commit_lsn == Lsn{5});
  CHECK(commit.end_lsn == Lsn{9});
  CHECK(commit.commit_time.value == 946'684'799'999'999);
}

TEST_CASE("a commit time beyond what microseconds since 1970 hold is the latest there is",
          "[capture][pgoutput]") {
  Decoder decoder;
  CHECK(decoded<Begin>(decoder, bytes::begin(Lsn{1}, 1, INT64_MAX)).commit_time.value == INT64_MAX);
  CHECK(decoded<Begin>(decoder, bytes::begin(Lsn{1}, 1, INT64_MIN)).commit_time.value ==
        INT64_MIN + 946'684'800'000'000);
}

TEST_CASE("relation, type and origin decode", "[capture][pgoutput]") {
  Decoder decoder;
  const std::string relation = bytes::relation(16400, "shop", "orders", 'i',
                                               {{"id", 23, true}, {"total", 1700, false, 786438}});
  const Relation& r = decoded<Relation>(decoder, relation);
  CHECK(r.oid == 16400);
  CHECK(r.xid == 0);
  CHECK(r.schema_name == "shop");
  CHECK(r.table_name == "orders");
  CHECK(r.replica_identity == 'i');
  REQUIRE(r.columns.size() == 2);
  CHECK(r.columns[0].key);
  CHECK(r.columns[0].name == "id");
  CHECK(r.columns[0].type_oid == 23);
  CHECK(r.columns[0].type_modifier == -1);
  CHECK_FALSE(r.columns[1].key);
  CHECK(r.columns[1].type_modifier == 786438);

  const std::string type = bytes::type(16500, "", "mood");
  CHECK(decoded<Type>(decoder, type).name == "mood");
  CHECK(decoded<Type>(decoder, type).schema_name == "pg_catalog");
  const std::string origin = bytes::origin(Lsn{3}, "other");
  CHECK(decoded<Origin>(decoder, origin).name == "other");
  CHECK(decoded<Origin>(decoder, origin).commit_lsn == Lsn{3});
}

TEST_CASE("rows keep null, empty, unchanged, text and binary apart", "[capture][pgoutput]") {
  Decoder decoder;
  const std::string insert =
      bytes::insert(7, {null(), text(""), text("x"), binary(std::string("\0y", 2))});
  const Insert& i = decoded<Insert>(decoder, insert);
  CHECK(i.relation_oid == 7);
  REQUIRE(i.after.size() == 4);
  CHECK(i.after[0].state == FieldState::kNull);
  CHECK(i.after[1].state == FieldState::kText);
  CHECK(i.after[1].value.empty());
  CHECK(i.after[2].value == "x");
  CHECK(i.after[3].state == FieldState::kBinary);
  CHECK(i.after[3].value == std::string_view("\0y", 2));

  const std::string plain = bytes::update(7, {text("1"), unchanged()});
  const Update& u = decoded<Update>(decoder, plain);
  CHECK(u.old_kind == OldTuple::kNone);
  CHECK(u.before.empty());
  CHECK(u.after[1].state == FieldState::kUnchanged);

  const std::string moved = bytes::update(7, 'K', {text("0"), null()}, {text("1"), text("2")});
  CHECK(decoded<Update>(decoder, moved).old_kind == OldTuple::kKey);
  CHECK(u.before[0].value == "0");
  CHECK(u.after[1].value == "2");
  decoded<Update>(decoder, plain);
  CHECK(u.before.empty());  // nothing of the message before shows through

  const std::string remove = bytes::remove(7, 'O', {text("0"), text("2")});
  const Delete& d = decoded<Delete>(decoder, remove);
  CHECK(d.old_kind == OldTuple::kFull);
  CHECK(d.before[1].value == "2");
  CHECK(decoded<Delete>(decoder, bytes::remove(7, 'K', {null(), null()})).old_kind ==
        OldTuple::kKey);
}

TEST_CASE("truncate and logical messages decode", "[capture][pgoutput]") {
  Decoder decoder;
  const Truncate& t = decoded<Truncate>(decoder, bytes::truncate({1, 4000000000u}, 2));
  CHECK(t.relation_oids == std::vector<std::uint32_t>{1, 4000000000u});
  CHECK_FALSE(t.cascade);
  CHECK(t.restart_identity);

  const std::string message = bytes::logical(true, Lsn{9}, "p", std::string("\0c", 2));
  const LogicalMessage& m = decoded<LogicalMessage>(decoder, message);
  CHECK(m.transactional);
  CHECK(m.lsn == Lsn{9});
  CHECK(m.prefix == "p");
  CHECK(m.content == std::string_view("\0c", 2));
}

TEST_CASE("messages carry a transaction number inside a stream block only", "[capture][pgoutput]") {
  Decoder decoder;
  CHECK(decoded<StreamStart>(decoder, bytes::stream_start(70, true)).first_segment);
  const std::string insert = bytes::insert(7, {text("1")}, 71);
  CHECK(decoded<Insert>(decoder, insert).xid == 71);
  CHECK(decoded<Relation>(decoder, bytes::relation(7, "s", "t", 'd', {}, 72)).xid == 72);
  decoded<StreamStop>(decoder, bytes::stream_stop());
  CHECK(decoded<Insert>(decoder, bytes::insert(7, {text("1")})).xid == 0);
  CHECK(decoded<StreamAbort>(decoder, bytes::stream_abort(70, 71)).sub_xid == 71);
  const StreamCommit& commit =
      decoded<StreamCommit>(decoder, bytes::stream_commit(70, Lsn{5}, Lsn{6}));
  CHECK(commit.xid == 70);
  CHECK(commit.end_lsn == Lsn{6});

  decoded<StreamStart>(decoder, bytes::stream_start(73, false));
  decoder.reset();  // a new connection
  CHECK(decoded<Insert>(decoder, bytes::insert(7, {text("1")})).xid == 0);
}

TEST_CASE("F84: the messages of two-phase commit decode", "[capture][pgoutput]") {
  Decoder decoder;
  const std::string begin = bytes::begin_prepare(Lsn{0x3000}, Lsn{0x3040}, 704, "gid", 3);
  const BeginPrepare& b = decoded<BeginPrepare>(decoder, begin);
  CHECK(b.prepare_lsn == Lsn{0x3000});
  CHECK(b.end_lsn == Lsn{0x3040});
  CHECK(to_iso8601(b.prepare_time) == "2000-01-01T00:00:00.000003Z");
  CHECK(b.xid == 704);
  CHECK(b.gid == "gid");
  const std::string prepare = bytes::prepare(Lsn{1}, Lsn{2}, 4'000'000'000u, "p", 3);
  CHECK(decoded<Prepare>(decoder, prepare).xid == 4'000'000'000u);
  CHECK(decoded<Prepare>(decoder, prepare).end_lsn == Lsn{2});
  const std::string streamed = bytes::stream_prepare(Lsn{1}, Lsn{2}, 5, "s", 3);
  CHECK(decoded<StreamPrepare>(decoder, streamed).gid == "s");

  const std::string commit = bytes::commit_prepared(Lsn{7}, Lsn{8}, 704, "gid", 4);
  const CommitPrepared& c = decoded<CommitPrepared>(decoder, commit);
  CHECK(c.commit_lsn == Lsn{7});
  CHECK(c.end_lsn == Lsn{8});
  CHECK(to_iso8601(c.commit_time) == "2000-01-01T00:00:00.000004Z");
  CHECK(c.xid == 704);
  CHECK(c.gid == "gid");

  const std::string rollback = bytes::rollback_prepared(Lsn{7}, Lsn{8}, 705, "g", 5, 6);
  const RollbackPrepared& r = decoded<RollbackPrepared>(decoder, rollback);
  CHECK(r.prepare_end_lsn == Lsn{7});
  CHECK(r.rollback_end_lsn == Lsn{8});
  CHECK(to_iso8601(r.prepare_time) == "2000-01-01T00:00:00.000005Z");
  CHECK(to_iso8601(r.rollback_time) == "2000-01-01T00:00:00.000006Z");
  CHECK(r.xid == 705);
  CHECK(r.gid == "g");

  const std::string longest(199, 'g');
  CHECK(decoded<BeginPrepare>(decoder, bytes::begin_prepare(Lsn{1}, Lsn{2}, 3, longest)).gid ==
        longest);
  error_of(bytes::begin_prepare(Lsn{1}, Lsn{2}, 3, longest + 'g'));
  error_of(bytes::commit_prepared(Lsn{1}, Lsn{2}, 3, ""));
  std::string flagged = bytes::rollback_prepared(Lsn{1}, Lsn{2}, 3, "g");
  flagged[1] = '\1';
  CHECK(error_of(flagged) == "pgoutput message Rollback Prepared: an unknown flag at byte 1");
}

TEST_CASE("a Stream Abort tells where, if parallel streaming was asked for",
          "[capture][pgoutput]") {
  const std::string abort = bytes::stream_abort(70, 71, Lsn{0x2100}, 3);
  CHECK(to_hex(abort) ==
        "410000004600000047"
        "0000000000002100"
        "0000000000000003");
  Decoder decoder(true);
  CHECK(decoded<StreamAbort>(decoder, abort).sub_xid == 71);
  CHECK(decoded<StreamAbort>(decoder, abort).abort_lsn == Lsn{0x2100});
  CHECK(to_iso8601(decoded<StreamAbort>(decoder, abort).abort_time) ==
        "2000-01-01T00:00:00.000003Z");
  for (std::size_t cut = 0; cut < abort.size(); ++cut)
    CHECK_FALSE(decoder.decode(Exact(abort.substr(0, cut)).view()));
  Decoder without;
  CHECK(decoded<StreamAbort>(without, bytes::stream_abort(70, 71)).abort_lsn == Lsn{});
}

TEST_CASE("what PostgreSQL 15 was recorded to send decodes, of every kind", "[capture][pgoutput]") {
  std::string kinds;
  for (const Sample& sample : samples()) {
    Decoder decoder = decoder_for(sample);
    const auto message = decoder.decode(sample.bytes);
    if (!message) FAIL(message.error().to_string() + ": " + to_hex(sample.bytes));
    CHECK(views_lie_within(*message, sample.bytes));
    kinds += sample.bytes[0];
  }
  for (const char kind : std::string_view("BCORYIUDTMSEcAbPpKr"))
    CHECK(std::count(kinds.begin(), kinds.end(), kind) >= 2);
}

TEST_CASE("B1: a message that is cut at any byte, or a byte too long, is refused",
          "[capture][pgoutput]") {
  for (const Sample& sample : samples()) {
    Decoder decoder = decoder_for(sample);
    const std::size_t step = 1 + sample.bytes.size() / 4096;
    for (std::size_t cut = 0; cut < sample.bytes.size(); cut += step) {
      const Exact exact(std::string_view(sample.bytes).substr(0, cut));
      const auto message = decoder.decode(exact.view());
      REQUIRE_FALSE(message);
      REQUIRE(message.error().code() == ErrorCode::kCorruption);
    }
    REQUIRE_FALSE(decoder.decode(sample.bytes + '\0'));
    REQUIRE(decoder.decode(sample.bytes));  // failures left no trace
  }
}

TEST_CASE("B2: any flipped bit gives an error or another valid message", "[capture][pgoutput]") {
  const std::vector<Sample> all = samples();
  REQUIRE(all.size() >= 200);
  std::size_t refused = 0, accepted = 0;
  for (const Sample& sample : all) {
    const std::size_t step = 1 + sample.bytes.size() / 1024;
    for (std::size_t bit = 0; bit < sample.bytes.size() * 8; bit += step) {
      std::string flipped = sample.bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      const Exact exact(flipped);
      Decoder decoder = decoder_for(sample);
      const auto message = decoder.decode(exact.view());
      ++(message ? accepted : refused);
      if (message) REQUIRE(views_lie_within(*message, exact.view()));
    }
  }
  CHECK(refused > 0);
  CHECK(accepted > 0);  // a digit of a value is as good as another
}

TEST_CASE("B3, B16: an unknown message is an error and never skipped", "[capture][pgoutput]") {
  CHECK(error_of("") == "pgoutput message without a byte");
  CHECK(error_of("Z123", ErrorCode::kUnsupported) == "unknown pgoutput message 0x5a");
  CHECK(error_of(std::string(1, '\0'), ErrorCode::kUnsupported) == "unknown pgoutput message 0x00");
  // A Stream Abort has an LSN and a time at its end only where parallel streaming was asked for.
  CHECK(error_of(bytes::stream_abort(1, 2) + bytes::u64(3) + bytes::u64(4)) ==
        "pgoutput message Stream Abort: left-over bytes at byte 9");
}

TEST_CASE("B4: counts and lengths that can't be are refused before anything is allocated",
          "[capture][pgoutput]") {
  const std::string head = "I" + bytes::u32(7) + "N";
  CHECK(error_of(head + bytes::u16(0xFFFF)) ==
        "pgoutput message Insert: a number of columns that can't be at byte 6");
  error_of(head + bytes::u16(1601) + std::string(1601, 'n'));
  error_of(head + bytes::u16(1600) + std::string(1599, 'n'));
  error_of(head + bytes::u16(2) + "n");
  error_of(head + bytes::u16(1) + "nn");
  for (const std::uint64_t length : {0xFFFFFFFFull, 0x7FFFFFFFull, 0x80000000ull, 4ull})
    CHECK(error_of(head + bytes::u16(1) + "t" + bytes::u32(length) + "abc") ==
          "pgoutput message Insert: a length beyond the message's end at byte 9");
  error_of(head + bytes::u16(1) + "t" + bytes::u32(2) + "abc");
  error_of("T" + bytes::u32(0xFFFFFFFF) + '\0' + bytes::u32(1));
  error_of("T" + bytes::u32(0x40000001) + '\0' + bytes::u32(1));
  error_of(bytes::truncate({}));

  Decoder decoder;
  const std::string widest = head + bytes::u16(1600) + std::string(1600, 'n');
  CHECK(decoded<Insert>(decoder, widest).after.size() == 1600);
}

TEST_CASE("B5: strings that do not end, are empty or far too long are refused",
          "[capture][pgoutput]") {
  CHECK(error_of("Y" + bytes::u32(1) + "public") ==
        "pgoutput message Type: ends too early at byte 5");
  CHECK(error_of(bytes::type(1, "s", "")) == "pgoutput message Type: an empty name at byte 7");
  error_of(bytes::relation(1, "s", "", 'd', {}));
  error_of(bytes::relation(1, "s", "t", 'd', {{""}}));
  const std::string huge(64 << 10, 'x');
  CHECK(error_of(bytes::type(1, "s", huge)) ==
        "pgoutput message Type: a name that is too long at byte 7");
  error_of(bytes::type(1, huge, "t"));
  error_of(bytes::relation(1, "s", huge, 'd', {}));
  error_of(bytes::relation(1, "s", "t", 'd', {{huge}}));
}

TEST_CASE("B7: stream blocks that do not nest right are refused", "[capture][pgoutput]") {
  CHECK(error_of(bytes::stream_stop()) == "pgoutput message Stream Stop without a Stream Start");
  for (const std::string& message :
       {bytes::stream_start(2, true), bytes::begin(Lsn{1}), bytes::commit(Lsn{1}, Lsn{2}),
        bytes::stream_commit(1, Lsn{1}, Lsn{2}), bytes::stream_abort(1, 1),
        bytes::begin_prepare(Lsn{1}, Lsn{2}, 3, "g"), bytes::prepare(Lsn{1}, Lsn{2}, 3, "g"),
        bytes::stream_prepare(Lsn{1}, Lsn{2}, 3, "g"),
        bytes::commit_prepared(Lsn{1}, Lsn{2}, 3, "g"),
        bytes::rollback_prepared(Lsn{1}, Lsn{2}, 3, "g")}) {
    Decoder decoder;
    REQUIRE(decoder.decode(bytes::stream_start(1, true)));
    CHECK_FALSE(decoder.decode(message));
    CHECK(decoder.decode(bytes::stream_stop()));  // the block is still open
  }
}

TEST_CASE("B10: parts of a row change in the wrong place are refused", "[capture][pgoutput]") {
  const std::string row = bytes::tuple({text("1")});
  const std::string oid = bytes::u32(7);
  CHECK(error_of("I" + oid + "K" + row) == "pgoutput message Insert: an unexpected byte at byte 5");
  error_of("I" + oid + "O" + row);
  error_of("U" + oid + "K" + row + "O" + row + "N" + row);
  error_of("U" + oid + "K" + row);
  error_of("U" + oid + "K" + row + "K" + row);
  error_of("U" + oid + "X" + row);
  error_of("U" + oid + "N" + row + "N" + row);
  error_of("D" + oid + "N" + row);
  error_of("D" + oid + row);
  error_of("D" + oid + "K" + row + "N" + row);
}

TEST_CASE("B11: an unchanged value stands in the new row of an update only",
          "[capture][pgoutput]") {
  CHECK(error_of(bytes::insert(7, {unchanged()})) ==
        "pgoutput message Insert: an unchanged value where there is no older one at byte 8");
  error_of(bytes::remove(7, 'O', {unchanged()}));
  error_of(bytes::update(7, 'K', {unchanged()}, {text("1")}));
  error_of("I" + bytes::u32(7) + "N" + bytes::u16(1) + "x");
}

TEST_CASE("B15: a table may have up to 1600 columns", "[capture][pgoutput]") {
  std::vector<bytes::ColumnSpec> columns;
  Decoder decoder;
  CHECK(decoded<Relation>(decoder, bytes::relation(1, "s", "t", 'd', columns)).columns.empty());
  for (int i = 0; i < 1600; ++i) columns.push_back({"c" + std::to_string(i)});
  CHECK(decoded<Relation>(decoder, bytes::relation(1, "s", "t", 'd', columns)).columns.size() ==
        1600);
  columns.push_back({"one_more"});
  error_of(bytes::relation(1, "s", "t", 'd', columns));
  error_of("R" + bytes::u32(1) + bytes::string("s") + bytes::string("t") + "d" + bytes::u16(65535));
}

TEST_CASE("B17: a logical message whose length is not its content's is refused",
          "[capture][pgoutput]") {
  const std::string head = "M" + std::string(1, '\1') + bytes::u64(1) + bytes::string("p");
  error_of(head + bytes::u32(4) + "abc");
  error_of(head + bytes::u32(2) + "abc");
  error_of(head + bytes::u32(1 << 30) + "abc");
}

TEST_CASE("unknown flags are refused", "[capture][pgoutput]") {
  std::string commit = bytes::commit(Lsn{1}, Lsn{2});
  commit[1] = '\1';
  CHECK(error_of(commit) == "pgoutput message Commit: an unknown flag at byte 1");
  error_of(bytes::truncate({1}, 4));
  std::string start = bytes::stream_start(1, true);
  start.back() = '\2';
  error_of(start);
  std::string relation = bytes::relation(1, "s", "t", 'd', {{"c", 25, true}});
  relation[1 + 4 + 2 + 2 + 1 + 2] = '\3';
  error_of(relation);
  error_of(bytes::relation(1, "s", "t", 'x', {}));
}

}  // namespace
}  // namespace millrace::pgoutput
