#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "schemas/lsn.h"

/// Messages of the logical replication plugin pgoutput, protocols 1 to 4
/// (https://www.postgresql.org/docs/15/protocol-logicalrep-message-formats.html).
/// Views point into the bytes that were decoded. The grammar stands in decoder.cc.
namespace millrace::pgoutput {

struct Begin {
  Lsn commit_lsn;  ///< Where the commit record starts: the transaction's place in commit order.
  UnixMicros commit_time;
  std::uint32_t xid = 0;
};
struct Commit {
  Lsn commit_lsn;
  Lsn end_lsn;  ///< After the commit record: where reading resumes.
  UnixMicros commit_time;
};
struct Origin {
  Lsn commit_lsn;
  std::string_view name;
};
struct RelationColumn {
  bool key = false;  ///< Part of the replica identity; with identity FULL every column is.
  std::string_view name;
  std::uint32_t type_oid = 0;
  std::int32_t type_modifier = -1;
};
struct Relation {
  std::uint32_t xid = 0;  ///< Streamed transactions only, here and below.
  std::uint32_t oid = 0;
  std::string_view schema_name;  ///< Never empty: what the wire leaves out is "pg_catalog".
  std::string_view table_name;
  char replica_identity = 'd';  ///< 'd' default, 'n' nothing, 'f' full, 'i' index.
  std::vector<RelationColumn> columns;
};
struct Type {
  std::uint32_t xid = 0;
  std::uint32_t oid = 0;
  std::string_view schema_name;
  std::string_view name;
};
/// kUnchanged: a large value that the change left alone (TOAST); only in the new row of an Update.
enum class FieldState : std::uint8_t { kNull, kUnchanged, kText, kBinary };
struct Field {
  FieldState state = FieldState::kNull;
  std::string_view value;
};
using Tuple = std::vector<Field>;
struct Insert {
  std::uint32_t xid = 0;
  std::uint32_t relation_oid = 0;
  Tuple after;
};
/// How much of the old row the source sent. Of a kKey tuple only the replica identity's columns
/// hold values; the others stand there as null and mean nothing.
enum class OldTuple : std::uint8_t { kNone, kKey, kFull };
struct Update {
  std::uint32_t xid = 0;
  std::uint32_t relation_oid = 0;
  OldTuple old_kind = OldTuple::kNone;
  Tuple before;
  Tuple after;
};
struct Delete {
  std::uint32_t xid = 0;
  std::uint32_t relation_oid = 0;
  OldTuple old_kind = OldTuple::kKey;
  Tuple before;
};
struct Truncate {
  std::uint32_t xid = 0;
  bool cascade = false;
  bool restart_identity = false;
  std::vector<std::uint32_t> relation_oids;
};
struct LogicalMessage {
  std::uint32_t xid = 0;
  bool transactional = false;
  Lsn lsn;
  std::string_view prefix;
  std::string_view content;
};
struct StreamStart {
  std::uint32_t xid = 0;
  bool first_segment = false;
};
struct StreamStop {};
struct StreamCommit {
  std::uint32_t xid = 0;
  Lsn commit_lsn;
  Lsn end_lsn;
  UnixMicros commit_time;
};
struct StreamAbort {
  std::uint32_t xid = 0;
  std::uint32_t sub_xid = 0;  ///< `xid` itself where all of the transaction is aborted.
  Lsn abort_lsn;              ///< 0 unless parallel streaming (protocol 4) was asked for.
  UnixMicros abort_time;
};
/// Two-phase commit, protocol 3: sent for a slot with two_phase only. `gid` is the name that
/// PREPARE TRANSACTION gave.
struct BeginPrepare {
  Lsn prepare_lsn;
  Lsn end_lsn;
  UnixMicros prepare_time;
  std::uint32_t xid = 0;
  std::string_view gid;
};
struct Prepare : BeginPrepare {};
struct StreamPrepare : BeginPrepare {};
struct CommitPrepared {
  Lsn commit_lsn;
  Lsn end_lsn;
  UnixMicros commit_time;
  std::uint32_t xid = 0;
  std::string_view gid;
};
struct RollbackPrepared {
  Lsn prepare_end_lsn;
  Lsn rollback_end_lsn;
  UnixMicros prepare_time;
  UnixMicros rollback_time;
  std::uint32_t xid = 0;
  std::string_view gid;
};

/// A decoded message where the decoder keeps it; copying this copies no message.
using Message =
    std::variant<const Begin*, const Commit*, const Origin*, const Relation*, const Type*,
                 const Insert*, const Update*, const Delete*, const Truncate*,
                 const LogicalMessage*, const StreamStart*, const StreamStop*, const StreamCommit*,
                 const StreamAbort*, const BeginPrepare*, const Prepare*, const StreamPrepare*,
                 const CommitPrepared*, const RollbackPrepared*>;

}  // namespace millrace::pgoutput
