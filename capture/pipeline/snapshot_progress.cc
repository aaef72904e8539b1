#include "capture/pipeline/snapshot_progress.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kReasons{"initial", "added", "requested"};

/// Names in a SQL_ASCII database need not be UTF-8: the event's key has the exact one.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json head_of(const TableSnapshot& snapshot) {
  return {{"snapshot", snapshot.id}, {"table", snapshot.table}, {"oid", snapshot.oid}};
}

Json json_of(const SnapshotPart& part) {
  return {{"oid", part.oid},
          {"file", part.file},
          {"pages", part.pages},
          {"next", part.next.value >> 16},
          {"next_line", part.next.value & 0xffff}};
}

SnapshotPart part_of(const nlohmann::json& json) {
  return {.oid = json.at("oid").get<std::uint32_t>(),
          .file = json.at("file").get<std::uint32_t>(),
          .pages = json.at("pages").get<std::uint32_t>(),
          .next = {json.at("next").get<std::uint64_t>() << 16 |
                   json.at("next_line").get<std::uint64_t>()}};
}

}  // namespace

void set_part(TableSnapshot& snapshot, const SnapshotPart& part) {
  const auto found = std::find_if(snapshot.parts.begin(), snapshot.parts.end(),
                                  [&](const SnapshotPart& known) { return known.oid == part.oid; });
  if (found == snapshot.parts.end())
    snapshot.parts.push_back(part);
  else
    *found = part;
}

SnapshotEvent snapshot_began(const TableSnapshot& snapshot) {
  Json json = head_of(snapshot);
  json["reason"] = kReasons[static_cast<std::size_t>(snapshot.reason)];
  if (!snapshot.where.empty()) json["where"] = snapshot.where;
  json["parts"] = Json::array();
  for (const SnapshotPart& part : snapshot.parts) json["parts"].push_back(json_of(part));
  return {"snapshot_began", dump(json)};
}

SnapshotEvent snapshot_chunk(const TableSnapshot& snapshot, const SnapshotPart& part,
                             std::uint64_t rows) {
  Json json = head_of(snapshot);
  json["part"] = json_of(part);
  json["rows"] = rows;
  return {"snapshot_chunk", dump(json)};
}

SnapshotEvent snapshot_completed(const TableSnapshot& snapshot) {
  Json json = head_of(snapshot);
  json["reason"] = kReasons[static_cast<std::size_t>(snapshot.reason)];
  json["rows"] = snapshot.rows;
  return {"snapshot_completed", dump(json)};
}

SnapshotEvent snapshot_restarted(const TableSnapshot& snapshot, std::string_view why) {
  Json json = head_of(snapshot);
  json["why"] = why;
  return {"snapshot_restarted", dump(json)};
}

SnapshotEvent snapshot_abandoned(const TableSnapshot& snapshot, std::string_view why) {
  Json json = head_of(snapshot);
  json["why"] = why;
  return {"snapshot_abandoned", dump(json)};
}

bool SnapshotProgress::knows(std::string_view id) const {
  return std::find(ids_.begin(), ids_.end(), id) != ids_.end();
}

Result<void> SnapshotProgress::apply(std::string_view type, std::string_view key,
                                     std::string_view payload) {
  if (!type.starts_with("snapshot_")) return {};
  try {
    const nlohmann::json json = nlohmann::json::parse(payload);
    const std::string id = json.at("snapshot");
    const auto oid = json.at("oid").get<std::uint32_t>();
    const auto found = std::find_if(
        unfinished_.begin(), unfinished_.end(),
        [&](const TableSnapshot& other) { return other.id == id && other.oid == oid; });
    if (type == "snapshot_began") {
      const auto reason = std::find(kReasons.begin(), kReasons.end(), json.at("reason"));
      if (reason == kReasons.end() || found != unfinished_.end())
        return Error(ErrorCode::kCorruption,
                     "an impossible event of $capture: " + std::string(payload.substr(0, 200)));
      TableSnapshot begun{.id = id,
                          .reason = static_cast<SnapshotReason>(reason - kReasons.begin()),
                          .table = std::string(key),
                          .oid = oid,
                          .where = json.value("where", ""),
                          .parts = {}};
      for (const auto& part : json.at("parts")) begun.parts.push_back(part_of(part));
      unfinished_.push_back(std::move(begun));
      if (!knows(id)) ids_.push_back(id);
      return {};
    }
    if (found == unfinished_.end()) return {};  // begun before the first event that was read
    found->table = key;                         // it may have another name by now
    if (type == "snapshot_chunk") {
      set_part(*found, part_of(json.at("part")));
      found->rows += json.at("rows").get<std::uint64_t>();
    } else if (type == "snapshot_restarted") {
      for (SnapshotPart& part : found->parts) part.next = {};
    } else if (type == "snapshot_completed" || type == "snapshot_abandoned") {
      unfinished_.erase(found);
    }
  } catch (const nlohmann::json::exception& e) {
    return Error(
        ErrorCode::kCorruption,
        "event " + std::string(type) + " of $capture is not as capture writes it: " + e.what());
  }
  return {};
}

}  // namespace millrace
