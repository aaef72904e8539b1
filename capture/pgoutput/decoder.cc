#include "capture/pgoutput/decoder.h"

#include <limits>
#include <string>

#include "base/bytes.h"

// clang-format off
// The grammar, in network byte order; `xid` is there only inside a stream block. Source:
// PostgreSQL's src/backend/replication/logical/proto.c and the protocol's documentation, versions 1
// to 4. millrace asks for 1 or 2; 3 (two-phase commit) and 4 (the end of Stream Abort, for parallel
// streaming) are read all the same.
//
//   Begin         'B' u64(commit_lsn) i64(commit_time) u32(xid)
//   Commit        'C' u8(0) u64(commit_lsn) u64(end_lsn) i64(commit_time)
//   Origin        'O' u64(commit_lsn) string(name)
//   Relation      'R' [xid] u32(oid) string(schema) string(table)
//                     u8(replica identity: d n f i) u16(count)
//                     count * ( u8(flags: 1 = key) string(name) u32(type) i32(modifier) )
//   Type          'Y' [xid] u32(oid) string(schema) string(name)
//   Insert        'I' [xid] u32(relation) 'N' tuple
//   Update        'U' [xid] u32(relation) [ 'K' tuple | 'O' tuple ] 'N' tuple
//   Delete        'D' [xid] u32(relation) ( 'K' tuple | 'O' tuple )
//   Truncate      'T' [xid] u32(count) u8(flags: 1 = cascade, 2 = restart identity)
//                     count * u32(relation)
//   Message       'M' [xid] u8(flags: 1 = transactional) u64(lsn) string(prefix)
//                     u32(length) bytes
//   Stream Start  'S' u32(xid) u8(1 = first segment)
//   Stream Stop   'E'
//   Stream Commit 'c' u32(xid) u8(0) u64(commit_lsn) u64(end_lsn) i64(commit_time)
//   Stream Abort  'A' u32(xid) u32(subtransaction's xid) [ u64(abort_lsn) i64(abort_time) ]
//
//   Begin Prepare     'b'       u64(prepare_lsn) u64(end_lsn) i64(prepare_time) u32(xid) string(gid)
//   Prepare           'P' u8(0) u64(prepare_lsn) u64(end_lsn) i64(prepare_time) u32(xid) string(gid)
//   Stream Prepare    'p' u8(0) u64(prepare_lsn) u64(end_lsn) i64(prepare_time) u32(xid) string(gid)
//   Commit Prepared   'K' u8(0) u64(commit_lsn) u64(end_lsn) i64(commit_time) u32(xid) string(gid)
//   Rollback Prepared 'r' u8(0) u64(prepare_end_lsn) u64(rollback_end_lsn)
//                         i64(prepare_time) i64(rollback_time) u32(xid) string(gid)
//
//   tuple   u16(count) count * ( 'n' | 'u' | 't' u32(length) bytes | 'b' u32(length) bytes )
//   string  bytes up to a NUL       commit_time  microseconds since 2000-01-01 00:00 UTC
// clang-format on
namespace millrace::pgoutput {
namespace {

/// ByteReader that remembers where and why it failed first.
class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : in_(bytes), start_(bytes.data()) {}

  std::uint8_t u8() { return checked(&ByteReader::u8); }
  std::uint16_t u16() { return checked(&ByteReader::u16_be); }
  std::uint32_t u32() { return checked(&ByteReader::u32_be); }
  std::uint64_t u64() { return checked(&ByteReader::u64_be); }
  Lsn lsn() { return Lsn{u64()}; }

  UnixMicros time() {
    constexpr std::int64_t kPostgresEpoch = 946'684'800'000'000;  // 2000-01-01 in Unix microseconds
    std::int64_t unix_micros = 0;
    if (__builtin_add_overflow(static_cast<std::int64_t>(u64()), kPostgresEpoch, &unix_micros))
      unix_micros = std::numeric_limits<std::int64_t>::max();
    return UnixMicros{unix_micros};
  }

  std::string_view string() { return checked(&ByteReader::cstring); }

  std::string_view name() {
    const char* at = in_.position();
    const std::string_view text = string();
    if (text.empty()) fail_at(at, "an empty name");
    if (text.size() > kNameBytesMax) fail_at(at, "a name that is too long");
    return text;
  }

  std::string_view gid() {
    const char* at = in_.position();
    const std::string_view text = string();
    if (text.empty()) fail_at(at, "an empty name");
    if (text.size() > kGidBytesMax) fail_at(at, "a name that is too long");
    return text;
  }

  /// The wire leaves the name of the schema that every database has empty.
  std::string_view schema_name() {
    const char* at = in_.position();
    const std::string_view text = string();
    if (text.size() > kNameBytesMax) fail_at(at, "a name that is too long");
    return text.empty() ? "pg_catalog" : text;
  }

  std::string_view sized_bytes() {
    const char* at = in_.position();
    const std::uint32_t size = u32();
    if (size > in_.remaining()) [[unlikely]]
      return fail_at(at, "a length beyond the message's end"), "";
    return in_.bytes(size);
  }

  /// 'n' | 'u' | 't' u32(length) bytes | 'b' u32(length) bytes; false after an error.
  bool field(bool may_be_unchanged, Field& out) {
    const char* at = in_.position();
    const char kind = static_cast<char>(in_.u8());
    if (kind == 't' || kind == 'b') [[likely]] {
      const char* length_at = in_.position();
      const std::uint32_t size = in_.u32_be();
      if (in_.failed()) [[unlikely]]
        return fail_at(length_at, "ends too early"), false;
      if (size > in_.remaining()) [[unlikely]]
        return fail_at(length_at, "a length beyond the message's end"), false;
      out = {kind == 't' ? FieldState::kText : FieldState::kBinary, in_.bytes(size)};
      return true;
    }
    out = {kind == 'n' ? FieldState::kNull : FieldState::kUnchanged, {}};
    if (kind == 'n') return true;
    if (in_.failed()) return fail_at(at, "ends too early"), false;
    if (kind != 'u') return fail_at(at, "an unknown kind of value"), false;
    if (!may_be_unchanged)
      return fail_at(at, "an unchanged value where there is no older one"), false;
    return true;
  }

  std::uint8_t flags(std::uint8_t known) {
    const char* at = in_.position();
    const std::uint8_t value = u8();
    if ((value & ~known) != 0) [[unlikely]]
      fail_at(at, "an unknown flag");
    return value;
  }

  /// The byte, or 0 when it is none of `allowed`.
  char one_of(std::string_view allowed) {
    const char* at = in_.position();
    const char byte = static_cast<char>(u8());
    if (failed() || allowed.find(byte) != std::string_view::npos) [[likely]]
      return failed() ? '\0' : byte;
    return fail_at(at, "an unexpected byte"), '\0';
  }

  std::uint64_t remaining() const { return in_.remaining(); }
  const char* position() const { return in_.position(); }
  bool failed() const { return reason_ != nullptr; }

  void fail_at(const char* at, const char* reason) {
    if (failed()) return;
    reason_ = reason;
    failed_at_ = at;
    in_.fail();
  }

  /// Nothing if every byte was read and none was missing.
  Result<void> finish(char kind) {
    if (!failed() && in_.remaining() != 0) fail_at(in_.position(), "left-over bytes");
    if (!failed()) [[likely]]
      return {};
    return Error(ErrorCode::kCorruption, "pgoutput message " + std::string(name_of_kind(kind)) +
                                             ": " + reason_ + " at byte " +
                                             std::to_string(failed_at_ - start_));
  }

 private:
  template <typename T>
  T checked(T (ByteReader::*read)()) {
    const char* at = in_.position();
    const T value = (in_.*read)();
    if (in_.failed()) [[unlikely]]
      fail_at(at, "ends too early");
    return value;
  }

  ByteReader in_;
  const char* start_;
  const char* failed_at_ = nullptr;
  const char* reason_ = nullptr;
};

void read_tuple(MessageReader& in, bool may_be_unchanged, Tuple& tuple) {
  const char* at = in.position();
  const std::size_t count = in.u16();
  // A field has one byte at least, so the count is checked before anything is allocated for it.
  if (count > kColumnsMax || count > in.remaining()) [[unlikely]]
    return in.fail_at(at, "a number of columns that can't be");
  tuple.resize(count);  // what stays of the message before is overwritten below
  for (Field& field : tuple)
    if (!in.field(may_be_unchanged, field)) [[unlikely]]
      return;
}

OldTuple old_kind_of(char marker) { return marker == 'K' ? OldTuple::kKey : OldTuple::kFull; }

void read(MessageReader& in, Begin& out) {
  out.commit_lsn = in.lsn();
  out.commit_time = in.time();
  out.xid = in.u32();
}

void read(MessageReader& in, Commit& out) {
  in.flags(0);
  out.commit_lsn = in.lsn();
  out.end_lsn = in.lsn();
  out.commit_time = in.time();
}

void read(MessageReader& in, Origin& out) {
  out.commit_lsn = in.lsn();
  out.name = in.string();
}

void read(MessageReader& in, bool streamed, Relation& out) {
  constexpr std::size_t kColumnBytesMin = 1 + 2 + 4 + 4;
  out.xid = streamed ? in.u32() : 0;
  out.oid = in.u32();
  out.schema_name = in.schema_name();
  out.table_name = in.name();
  out.replica_identity = in.one_of("dnfi");
  out.columns.clear();
  const char* at = in.position();
  const std::size_t count = in.u16();
  if (count > kColumnsMax || count * kColumnBytesMin > in.remaining())
    return in.fail_at(at, "a number of columns that can't be");
  out.columns.resize(count);
  for (RelationColumn& column : out.columns) {
    column.key = in.flags(1) != 0;
    column.name = in.name();
    column.type_oid = in.u32();
    column.type_modifier = static_cast<std::int32_t>(in.u32());
    if (in.failed()) return;
  }
}

void read(MessageReader& in, bool streamed, Type& out) {
  out.xid = streamed ? in.u32() : 0;
  out.oid = in.u32();
  out.schema_name = in.schema_name();
  out.name = in.name();
}

void read(MessageReader& in, bool streamed, Insert& out) {
  out.xid = streamed ? in.u32() : 0;
  out.relation_oid = in.u32();
  in.one_of("N");
  read_tuple(in, false, out.after);
}

void read(MessageReader& in, bool streamed, Update& out) {
  out.xid = streamed ? in.u32() : 0;
  out.relation_oid = in.u32();
  out.old_kind = OldTuple::kNone;
  out.before.clear();
  const char marker = in.one_of("NKO");
  if (marker == 'K' || marker == 'O') {
    out.old_kind = old_kind_of(marker);
    read_tuple(in, false, out.before);
    in.one_of("N");
  }
  read_tuple(in, true, out.after);
}

void read(MessageReader& in, bool streamed, Delete& out) {
  out.xid = streamed ? in.u32() : 0;
  out.relation_oid = in.u32();
  out.old_kind = old_kind_of(in.one_of("KO"));
  read_tuple(in, false, out.before);
}

void read(MessageReader& in, bool streamed, Truncate& out) {
  out.xid = streamed ? in.u32() : 0;
  const char* at = in.position();
  const std::uint32_t count = in.u32();
  const std::uint8_t flags = in.flags(3);
  out.cascade = (flags & 1) != 0;
  out.restart_identity = (flags & 2) != 0;
  out.relation_oids.clear();
  if (count == 0 || count > in.remaining() / 4)
    return in.fail_at(at, "a number of tables that can't be");
  out.relation_oids.resize(count);
  for (std::uint32_t& oid : out.relation_oids) oid = in.u32();
}

void read(MessageReader& in, bool streamed, LogicalMessage& out) {
  out.xid = streamed ? in.u32() : 0;
  out.transactional = in.flags(1) != 0;
  out.lsn = in.lsn();
  out.prefix = in.string();
  out.content = in.sized_bytes();
}

void read(MessageReader& in, StreamStart& out) {
  out.xid = in.u32();
  out.first_segment = in.flags(1) != 0;
}

void read(MessageReader& in, StreamCommit& out) {
  out.xid = in.u32();
  in.flags(0);
  out.commit_lsn = in.lsn();
  out.end_lsn = in.lsn();
  out.commit_time = in.time();
}

void read(MessageReader& in, bool parallel, StreamAbort& out) {
  out.xid = in.u32();
  out.sub_xid = in.u32();
  out.abort_lsn = parallel ? in.lsn() : Lsn{};
  out.abort_time = parallel ? in.time() : UnixMicros{};
}

void read(MessageReader& in, BeginPrepare& out) {
  out.prepare_lsn = in.lsn();
  out.end_lsn = in.lsn();
  out.prepare_time = in.time();
  out.xid = in.u32();
  out.gid = in.gid();
}

/// Prepare and Stream Prepare.
void read_prepare(MessageReader& in, BeginPrepare& out) {
  in.flags(0);
  read(in, out);
}

void read(MessageReader& in, CommitPrepared& out) {
  in.flags(0);
  out.commit_lsn = in.lsn();
  out.end_lsn = in.lsn();
  out.commit_time = in.time();
  out.xid = in.u32();
  out.gid = in.gid();
}

void read(MessageReader& in, RollbackPrepared& out) {
  in.flags(0);
  out.prepare_end_lsn = in.lsn();
  out.rollback_end_lsn = in.lsn();
  out.prepare_time = in.time();
  out.rollback_time = in.time();
  out.xid = in.u32();
  out.gid = in.gid();
}

/// What may not stand where the stream blocks say we are; empty if it may.
std::string_view misplaced(char kind, bool in_stream) {
  if (kind == 'E') return in_stream ? "" : "without a Stream Start";
  constexpr std::string_view kOutsideOnly = "BCScAbPpKr";
  const bool misplaced = in_stream && kOutsideOnly.find(kind) != std::string_view::npos;
  return misplaced ? "inside a stream block" : "";
}

}  // namespace

Result<Message> Decoder::decode(std::string_view bytes) {
  if (bytes.empty()) return Error(ErrorCode::kCorruption, "pgoutput message without a byte");
  const char kind = bytes[0];
  if (const std::string_view why = misplaced(kind, in_stream_); !why.empty()) [[unlikely]]
    return Error(ErrorCode::kCorruption,
                 "pgoutput message " + std::string(name_of_kind(kind)) + " " + std::string(why));

  MessageReader in(bytes);
  in.u8();
  const auto decoded = [&](const auto& message) -> Result<Message> {
    MILLRACE_RETURN_IF_ERROR(in.finish(kind));
    return Message(&message);
  };
  switch (kind) {
    case 'I': return read(in, in_stream_, insert_), decoded(insert_);
    case 'U': return read(in, in_stream_, update_), decoded(update_);
    case 'D': return read(in, in_stream_, delete_), decoded(delete_);
    case 'B': return read(in, begin_), decoded(begin_);
    case 'C': return read(in, commit_), decoded(commit_);
    case 'R': return read(in, in_stream_, relation_), decoded(relation_);
    case 'Y': return read(in, in_stream_, type_), decoded(type_);
    case 'O': return read(in, origin_), decoded(origin_);
    case 'T': return read(in, in_stream_, truncate_), decoded(truncate_);
    case 'M': return read(in, in_stream_, logical_message_), decoded(logical_message_);
    case 'c': return read(in, stream_commit_), decoded(stream_commit_);
    case 'A': return read(in, parallel_streaming_, stream_abort_), decoded(stream_abort_);
    case 'b': return read(in, begin_prepare_), decoded(begin_prepare_);
    case 'P': return read_prepare(in, prepare_), decoded(prepare_);
    case 'p': return read_prepare(in, stream_prepare_), decoded(stream_prepare_);
    case 'K': return read(in, commit_prepared_), decoded(commit_prepared_);
    case 'r': return read(in, rollback_prepared_), decoded(rollback_prepared_);
    case 'S':
    case 'E': {
      if (kind == 'S') read(in, stream_start_);
      auto message = kind == 'S' ? decoded(stream_start_) : decoded(stream_stop_);
      if (message) in_stream_ = kind == 'S';
      return message;
    }
    default:
      return Error(ErrorCode::kUnsupported,
                   "unknown pgoutput message 0x" + to_hex(bytes.substr(0, 1)))
          .hint(
              "The server may be newer than this millrace, or the slot's plugin is not pgoutput.");
  }
}

std::string_view name_of_kind(char kind) {
  switch (kind) {
    case 'B': return "Begin";
    case 'C': return "Commit";
    case 'O': return "Origin";
    case 'R': return "Relation";
    case 'Y': return "Type";
    case 'I': return "Insert";
    case 'U': return "Update";
    case 'D': return "Delete";
    case 'T': return "Truncate";
    case 'M': return "Message";
    case 'S': return "Stream Start";
    case 'E': return "Stream Stop";
    case 'c': return "Stream Commit";
    case 'A': return "Stream Abort";
    case 'b': return "Begin Prepare";
    case 'P': return "Prepare";
    case 'p': return "Stream Prepare";
    case 'K': return "Commit Prepared";
    case 'r': return "Rollback Prepared";
    default: return "unknown";
  }
}

}  // namespace millrace::pgoutput
