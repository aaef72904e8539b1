#include "tests/support/pgoutput_bytes.h"

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "base/bytes.h"

namespace millrace::test::bytes {
namespace {

std::string big_endian(std::uint64_t value, int size) {
  std::string out;
  for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
  return out;
}

std::string head(char kind, Xid xid) { return std::string(1, kind) + (xid ? u32(*xid) : ""); }

std::string two_phase(Lsn at, Lsn end, std::uint32_t xid, std::string_view gid, std::int64_t time) {
  return u64(at.value) + u64(end.value) + u64(static_cast<std::uint64_t>(time)) + u32(xid) +
         string(gid);
}

}  // namespace

std::string u16(std::uint64_t value) { return big_endian(value, 2); }
std::string u32(std::uint64_t value) { return big_endian(value, 4); }
std::string u64(std::uint64_t value) { return big_endian(value, 8); }
std::string string(std::string_view text) { return std::string(text) + '\0'; }

std::string tuple(const TupleSpec& fields) {
  std::string out = u16(fields.size());
  for (const FieldSpec& field : fields) {
    out += field.kind;
    if (field.kind == 't' || field.kind == 'b') out += u32(field.value.size()) + field.value;
  }
  return out;
}

std::string begin(Lsn commit, std::uint32_t xid, std::int64_t time) {
  return "B" + u64(commit.value) + u64(static_cast<std::uint64_t>(time)) + u32(xid);
}

std::string commit(Lsn commit, Lsn end, std::int64_t time) {
  return "C" + std::string(1, '\0') + u64(commit.value) + u64(end.value) +
         u64(static_cast<std::uint64_t>(time));
}

std::string origin(Lsn commit, std::string_view name) {
  return "O" + u64(commit.value) + string(name);
}

std::string relation(std::uint32_t oid, std::string_view schema, std::string_view table,
                     char identity, const std::vector<ColumnSpec>& columns, Xid xid) {
  std::string out =
      head('R', xid) + u32(oid) + string(schema) + string(table) + identity + u16(columns.size());
  for (const ColumnSpec& column : columns)
    out += (column.key ? '\1' : '\0') + string(column.name) + u32(column.type_oid) +
           u32(static_cast<std::uint32_t>(column.modifier));
  return out;
}

std::string type(std::uint32_t oid, std::string_view schema, std::string_view name, Xid xid) {
  return head('Y', xid) + u32(oid) + string(schema) + string(name);
}

std::string insert(std::uint32_t relation, const TupleSpec& row, Xid xid) {
  return head('I', xid) + u32(relation) + 'N' + tuple(row);
}

std::string update(std::uint32_t relation, const TupleSpec& row, Xid xid) {
  return head('U', xid) + u32(relation) + 'N' + tuple(row);
}

std::string update(std::uint32_t relation, char marker, const TupleSpec& before,
                   const TupleSpec& row, Xid xid) {
  return head('U', xid) + u32(relation) + marker + tuple(before) + 'N' + tuple(row);
}

std::string remove(std::uint32_t relation, char marker, const TupleSpec& before, Xid xid) {
  return head('D', xid) + u32(relation) + marker + tuple(before);
}

std::string truncate(const std::vector<std::uint32_t>& relations, std::uint8_t flags, Xid xid) {
  std::string out = head('T', xid) + u32(relations.size()) + static_cast<char>(flags);
  for (const std::uint32_t oid : relations) out += u32(oid);
  return out;
}

std::string logical(bool transactional, Lsn lsn, std::string_view prefix, std::string_view content,
                    Xid xid) {
  return head('M', xid) + (transactional ? '\1' : '\0') + u64(lsn.value) + string(prefix) +
         u32(content.size()) + std::string(content);
}

std::string stream_start(std::uint32_t xid, bool first) {
  return "S" + u32(xid) + (first ? '\1' : '\0');
}
std::string stream_stop() { return "E"; }

std::string stream_commit(std::uint32_t xid, Lsn commit, Lsn end, std::int64_t time) {
  return "c" + u32(xid) + '\0' + u64(commit.value) + u64(end.value) +
         u64(static_cast<std::uint64_t>(time));
}

std::string stream_abort(std::uint32_t xid, std::uint32_t sub_xid) {
  return "A" + u32(xid) + u32(sub_xid);
}

std::string stream_abort(std::uint32_t xid, std::uint32_t sub_xid, Lsn abort, std::int64_t time) {
  return stream_abort(xid, sub_xid) + u64(abort.value) + u64(static_cast<std::uint64_t>(time));
}

std::string begin_prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                          std::int64_t time) {
  return "b" + two_phase(prepare, end, xid, gid, time);
}
std::string prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                    std::int64_t time) {
  return "P" + std::string(1, '\0') + two_phase(prepare, end, xid, gid, time);
}
std::string stream_prepare(Lsn prepare, Lsn end, std::uint32_t xid, std::string_view gid,
                           std::int64_t time) {
  return "p" + std::string(1, '\0') + two_phase(prepare, end, xid, gid, time);
}
std::string commit_prepared(Lsn commit, Lsn end, std::uint32_t xid, std::string_view gid,
                            std::int64_t time) {
  return "K" + std::string(1, '\0') + two_phase(commit, end, xid, gid, time);
}
std::string rollback_prepared(Lsn prepare_end, Lsn rollback_end, std::uint32_t xid,
                              std::string_view gid, std::int64_t prepare_time,
                              std::int64_t rollback_time) {
  return "r" + std::string(1, '\0') + u64(prepare_end.value) + u64(rollback_end.value) +
         u64(static_cast<std::uint64_t>(prepare_time)) +
         u64(static_cast<std::uint64_t>(rollback_time)) + u32(xid) + string(gid);
}

std::vector<std::string> one_of_each() {
  const std::vector<ColumnSpec> columns = {{"id", 23, true}, {"name"}, {"note"}};
  const TupleSpec row = {text("1"), text("anvil"), null()};
  const TupleSpec old_key = {text("2"), null(), null()};
  const TupleSpec touched = {text("1"), text("anvil"), unchanged()};
  std::vector<std::string> all = {
      begin(Lsn{0x1000}, 700, 1),
      origin(Lsn{0x900}, "other"),
      type(16500, "public", "mood"),
      relation(16400, "public", "things", 'd', columns),
      insert(16400, row),
      insert(16400, {text("3"), binary("\1\2"), text("")}),
      update(16400, touched),
      update(16400, 'K', old_key, row),
      update(16400, 'O', row, touched),
      remove(16400, 'K', old_key),
      remove(16400, 'O', row),
      truncate({16400}, 0),
      truncate({16400, 16401}, 3),
      logical(true, Lsn{0xfff}, "note", "hello"),
      commit(Lsn{0x1000}, Lsn{0x1040}, 1),
      logical(false, Lsn{0x1041}, "", ""),
      stream_start(701, true),
      type(16500, "public", "mood", 701),
      relation(16400, "", "things", 'f', columns, 701),
      insert(16400, row, 701),
      update(16400, 'O', row, touched, 702),
      remove(16400, 'O', row, 702),
      truncate({16400}, 1, 701),
      logical(true, Lsn{0x1050}, "note", "hello", 701),
      stream_stop(),
      stream_abort(701, 702),
      stream_start(701, false),
      stream_stop(),
      stream_commit(701, Lsn{0x2000}, Lsn{0x2040}, 2),
      begin_prepare(Lsn{0x3000}, Lsn{0x3040}, 704, "gid", 3),
      insert(16400, row),
      prepare(Lsn{0x3000}, Lsn{0x3040}, 704, "gid", 3),
      commit_prepared(Lsn{0x3100}, Lsn{0x3140}, 704, "gid", 4),
      rollback_prepared(Lsn{0x3240}, Lsn{0x3340}, 705, "another", 5, 6),
      stream_prepare(Lsn{0x3400}, Lsn{0x3440}, 706, std::string(199, 'g'), 7),
  };
  return all;
}

std::vector<Recorded> read_golden(const std::string& name) {
  const auto path = std::filesystem::path(MILLRACE_SOURCE_DIR) / "tests" / "golden" / name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("can't read " + path.string());
  std::vector<Recorded> messages;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t space = line.find(' ');
    if (space == std::string::npos) throw std::runtime_error(path.string() + ": " + line);
    messages.push_back(
        {parse_lsn(line.substr(0, space)).value(), from_hex(line.substr(space + 1)).value()});
  }
  return messages;
}

}  // namespace millrace::test::bytes
