#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schemas/lsn.h"

/// Builds pgoutput messages byte by byte, also ones that no server sends. The grammar stands in
/// capture/pgoutput/decoder.cc; this is written from PostgreSQL's documentation, apart from it.
namespace millrace::test::bytes {

struct FieldSpec {
  char kind = 'n';
  std::string value = {};
};
inline FieldSpec null() { return {'n'}; }
inline FieldSpec unchanged() { return {'u'}; }
inline FieldSpec text(std::string value) { return {'t', std::move(value)}; }
inline FieldSpec binary(std::string value) { return {'b', std::move(value)}; }
using TupleSpec = std::vector<FieldSpec>;

struct ColumnSpec {
  std::string name;
  std::uint32_t type_oid = 25;  ///< text
  bool key = false;
  std::int32_t modifier = -1;
};
/// Of a message in a stream block; nothing outside of one.
using Xid = std::optional<std::uint32_t>;

std::string u16(std::uint64_t value);
std::string u32(std::uint64_t value);
std::string u64(std::uint64_t value);
std::string string(std::string_view text);  ///< With its NUL.
std::string tuple(const TupleSpec& fields);

std::string begin(Lsn commit, std::uint32_t xid = 7, std::int64_t time = 0);
std::string commit(Lsn commit, Lsn end, std::int64_t time = 0);
std::string origin(Lsn commit, std::string_view name);
std::string relation(std::uint32_t oid, std::string_view schema, std::string_view table,
                     char identity, const std::vector<ColumnSpec>& columns, Xid xid = {});
std::string type(std::uint32_t oid, std::string_view schema, std::string_view name, Xid xid = {});
std::string insert(std::uint32_t relation, const TupleSpec& row, Xid xid = {});
/// Without the old row.
std::string update(std::uint32_t relation, const TupleSpec& row, Xid xid = {});
/// `marker` is 'K' or 'O'.
std::string update(std::uint32_t relation, char marker, const TupleSpec& before,
                   const TupleSpec& row, Xid xid = {});
std::string remove(std::uint32_t relation, char marker, const TupleSpec& before, Xid xid = {});
std::string truncate(const std::vector<std::uint32_t>& relations, std::uint8_t flags = 0,
                     Xid xid = {});
std::string logical(bool transactional, Lsn lsn, std::string_view prefix, std::string_view content,
                    Xid xid = {});
std::string stream_start(std::uint32_t xid, bool first);
std::string stream_stop();
std::string stream_commit(std::uint32_t xid, Lsn commit, Lsn end, std::int64_t time = 0);
std::string stream_abort(std::uint32_t xid, std::uint32_t sub_xid);
/// As with parallel streaming (protocol 4).
std::string stream_abort(std::uint32_t xid, std::uint32_t sub_xid, Lsn abort, std::int64_t time);
std::string begin_prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                          std::int64_t time = 0);
std::string prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                    std::int64_t time = 0);
std::string stream_prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                           std::int64_t time = 0);
std::string commit_prepared(Lsn commit, Lsn end, std::uint32_t xid, std::string_view gid,
                            std::int64_t time = 0);
std::string rollback_prepared(Lsn prepare_end, Lsn rollback_end, std::uint32_t xid,
                              std::string_view gid, std::int64_t prepare_time = 0,
                              std::int64_t rollback_time = 0);

/// One message of every kind and shape, in an order that a server could send them in.
std::vector<std::string> one_of_each();

/// A recorded message: "<LSN> <hex>" per line, '#' starts a comment.
struct Recorded {
  Lsn lsn;
  std::string bytes;
};
/// tests/golden/<name>; throws where it is missing or no such file.
std::vector<Recorded> read_golden(const std::string& name);

}  // namespace millrace::test::bytes
