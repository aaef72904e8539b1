#include "capture/daemon/schema_teller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "eventstore/stream_reader.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kType = "schema_changed";

/// Of a millrace.v1.Change, whose first fields are op and schema; 0 of one without.
std::uint32_t version_of(std::string_view payload) {
  constexpr char kOpTag = 1 << 3, kSchemaTag = 2 << 3;
  if (payload.size() < 4 || payload[0] != kOpTag || payload[2] != kSchemaTag) return 0;
  ByteReader in(payload.substr(3));
  return static_cast<std::uint32_t>(in.varint());
}

std::string_view name_of(ReplicaIdentity identity) {
  switch (identity) {
    case ReplicaIdentity::kDefault: return "default";
    case ReplicaIdentity::kNothing: return "nothing";
    case ReplicaIdentity::kFull: return "full";
    case ReplicaIdentity::kIndex: return "index";
  }
  return "default";
}

Json keys_of(const TableSchema& schema) {
  Json keys = Json::array();
  for (const ColumnSchema& column : schema.columns)
    if (column.key) keys.push_back(column.name);
  return keys;
}

bool same_columns(const TableSchema& a, const TableSchema& b) {
  return std::ranges::equal(a.columns, b.columns, [](const auto& x, const auto& y) {
    return x.name == y.name && x.type_name == y.type_name;
  });
}

void add_columns(const TableSchema& before, const TableSchema& now, Json& json) {
  Json added = Json::array(), removed = Json::array(), retyped = Json::array();
  for (const ColumnSchema& column : now.columns) {
    const ColumnSchema* old = before.column(column.name);
    if (old == nullptr)
      added.push_back(column.name);
    else if (old->type_name != column.type_name)
      retyped.push_back(
          {{"column", column.name}, {"from", old->type_name}, {"to", column.type_name}});
  }
  for (const ColumnSchema& column : before.columns)
    if (now.column(column.name) == nullptr) removed.push_back(column.name);
  if (!added.empty()) json["added"] = std::move(added);
  if (!removed.empty()) json["removed"] = std::move(removed);
  if (!retyped.empty()) json["retyped"] = std::move(retyped);
}

}  // namespace

std::string schema_changed_payload(const TableSchema* before, const TableSchema& now,
                                   std::string_view former_name) {
  Json json{{"table", now.category}, {"version", now.version}};
  if (before != nullptr) json["from"] = before->version;
  if (!former_name.empty()) json["renamed_from"] = former_name;
  if (before != nullptr) {
    add_columns(*before, now, json);
    if (Json keys = keys_of(now); keys != keys_of(*before)) json["key"] = std::move(keys);
    if (before->replica_identity != now.replica_identity)
      json["replica_identity"] = name_of(now.replica_identity);
    if (before->relation_oid != now.relation_oid && former_name.empty()) json["made_anew"] = true;
  }
  // Names in a SQL_ASCII database need not be UTF-8: the event's key has the exact one.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<void> SchemaTeller::add(const NewEvent& event) {
  if (event.type.empty()) {
    const std::uint32_t version = version_of(event.payload);
    if (version != 0 && (last_ == nullptr || version > last_->second ||
                         event.category != last_->first)) [[unlikely]]
      MILLRACE_RETURN_IF_ERROR(tell(event.category, version));
  }
  return out_.add(event);
}

Result<void> SchemaTeller::tell(std::string_view category, std::uint32_t version) {
  auto known = told_.find(category);
  if (known == told_.end() || version > known->second) {
    MILLRACE_ASSIGN_OR_RETURN(const auto now, schemas_.find(category, version));
    if (known == told_.end()) {
      MILLRACE_ASSIGN_OR_RETURN(known, told(*now));
    }
    if (version > known->second) {
      SchemaRegistry::Schema before;
      if (known->second != 0) {
        MILLRACE_ASSIGN_OR_RETURN(before, schemas_.find(category, known->second));
      }
      std::string former;
      if (before == nullptr || before->relation_oid != now->relation_oid) {
        MILLRACE_ASSIGN_OR_RETURN(former, former_name(*now));
      }
      const std::string payload = schema_changed_payload(before.get(), *now, former);
      MILLRACE_RETURN_IF_ERROR(out_.add({.category = kCaptureCategory,
                                         .key = category,
                                         .type = kType,
                                         .payload = payload,
                                         .metadata = {}}));
      open_.emplace_back(category, std::exchange(known->second, version));
    }
  }
  last_ = &*known;
  return {};
}

/// What the log was told before this run.
Result<SchemaTeller::Told::iterator> SchemaTeller::told(const TableSchema& schema) {
  std::optional<std::uint32_t> version;
  std::string former;
  if (schema.version == 1) {
    MILLRACE_ASSIGN_OR_RETURN(former, former_name(schema));
  }
  if (schema.version > 1 || !former.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(version, told_in_log(schema.category));
  }
  return told_.emplace(schema.category, version.value_or(former.empty() ? 1 : 0)).first;
}

Result<std::optional<std::uint32_t>> SchemaTeller::told_in_log(const std::string& category) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, StreamReader::open(store_, files_));
  std::optional<std::uint32_t> version;
  bool readable = true;
  MILLRACE_RETURN_IF_ERROR(reader->read(
      {kCaptureCategory, category}, {.direction = ReadDirection::kBackward},
      [&](const EventView& event, const TransactionInfo&) {
        if (event.type != kType) return true;
        const Json json = Json::parse(event.payload, nullptr, false);
        readable = json.is_object() && json.contains("version") && json["version"].is_number();
        if (readable) version = json["version"].get<std::uint32_t>();
        return false;
      }));
  if (!readable)
    return Error(ErrorCode::kCorruption,
                 "an event schema_changed of table " + printable(category) + " tells no version");
  return version;
}

/// Under which name the same table was captured before: the latest of them. Another server may have
/// given its OID to another table, which then has other columns, too.
Result<std::string> SchemaTeller::former_name(const TableSchema& schema) {
  MILLRACE_ASSIGN_OR_RETURN(const auto all, schemas_.all());
  const TableSchema* latest = nullptr;
  for (const auto& other : all)
    if (other->relation_oid == schema.relation_oid && other->category != schema.category &&
        same_columns(*other, schema) &&
        (latest == nullptr || other->source_lsn >= latest->source_lsn))
      latest = other.get();
  return latest == nullptr ? std::string() : latest->category;
}

Result<void> SchemaTeller::commit(std::uint64_t source_end) {
  MILLRACE_RETURN_IF_ERROR(out_.commit(source_end));
  open_.clear();
  return {};
}

Result<void> SchemaTeller::rollback() {
  for (; !open_.empty(); open_.pop_back())
    told_.find(open_.back().first)->second = open_.back().second;
  return out_.rollback();
}

}  // namespace millrace
