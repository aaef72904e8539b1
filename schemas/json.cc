#include "schemas/json.h"

#include <charconv>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "schemas/lsn.h"
#include "schemas/rendering/change.h"
#include "schemas/rendering/json_string.h"

namespace millrace {
namespace {

using rendering::Change;
using rendering::ChangedRows;

void append_number(std::uint64_t number, std::string& out) {
  char digits[20];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
}

/// `"name":text` or, where it is no UTF-8, `"name_base64":...`: unlike in a column, both are
/// strings.
void append_text_member(std::string_view name, std::string_view text, std::string& out) {
  (out += '"') += name;
  const std::size_t after_name = out.size();
  out += "\":";
  const std::size_t value = out.size();
  rendering::append_json_text(text, out);
  if (out[value] == '"') return;
  out.resize(after_name);
  out += "_base64\":";
  rendering::append_json_base64(text, out);
}

/// The payload of a domain event: JSON as it is, anything else as base64 under another name.
void append_data_member(std::string_view payload, std::string& out) {
  if (rendering::is_json(payload)) {
    out += "\"data\":";
    rendering::append_json_verbatim(payload, out);
  } else {
    out += "\"data_base64\":";
    rendering::append_json_base64(payload, out);
  }
}

/// "cart/9f3a"
void append_stream(const EventRecord& event, std::string& out) {
  rendering::append_json_name(event.category, out);
  out.back() = '/';
  const std::size_t key = out.size();
  rendering::append_json_name(event.key, out);
  out.erase(key, 1);
}

/// `"source":...`; `lsn` is the change's own, 0 where only the commit's is known.
void append_source(const EventRecord& event, std::uint64_t lsn, std::string& out) {
  if (!event.captured) {
    out += "\"source\":null";
    return;
  }
  out += "\"source\":{\"lsn\":\"";
  append_lsn(Lsn{lsn != 0 ? lsn : event.commit_lsn}, out);
  out += "\",\"commit_lsn\":\"";
  append_lsn(Lsn{event.commit_lsn}, out);
  out += "\",\"xid\":";
  append_number(event.xid, out);
  out += ",\"commit_time\":\"";
  append_iso8601(event.commit_time, out);
  out += "\"}";
}

/// `{"offset":17,"op":"c","category":"public.orders",`
void append_head(const EventRecord& event, std::string_view op, bool with_offset,
                 std::string& out) {
  out += '{';
  if (with_offset) {
    out += "\"offset\":";
    append_number(event.offset, out);
    out += ',';
  }
  out += "\"op\":\"";
  out += op;
  out += "\",\"category\":";
  rendering::append_json_name(event.category, out);
  out += ',';
}

/// `,"metadata":{...}`, if there is any.
void append_metadata(const EventRecord::Metadata& metadata, std::string& out) {
  if (metadata == EventRecord::Metadata{}) return;
  out += ",\"metadata\":";
  char before = '{';
  const auto text = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    out += std::exchange(before, ',');
    append_text_member(name, value, out);
  };
  text("id", metadata.event_id);
  text("correlation_id", metadata.correlation_id);
  text("causation_id", metadata.causation_id);
  if (metadata.time) {
    out += std::exchange(before, ',');
    out += "\"time\":\"";
    append_iso8601(*metadata.time, out);
    out += '"';
  }
  text("extra", metadata.extra);
  out += '}';
}

void append_domain_event(const EventRecord& event, bool with_offset, std::string& out) {
  append_head(event, "a", with_offset, out);
  out += "\"stream\":";
  append_stream(event, out);
  out += ",\"type\":";
  rendering::append_json_name(event.type, out);
  if (event.version) append_number(*event.version, out += ",\"version\":");
  out += ',';
  append_data_member(event.payload, out);
  out += ',';
  append_source(event, 0, out);
  out += ",\"time\":\"";
  append_iso8601(event.commit_time, out);
  out += '"';
  append_metadata(event.metadata, out);
  out += '}';
}

void append_message(const EventRecord& event, const Change& change, bool with_offset,
                    std::string& out) {
  append_head(event, letter_of(change.op), with_offset, out);
  append_text_member("prefix", change.prefix, out);
  out += ',';
  append_text_member("content", change.content, out);
  out += ',';
  append_source(event, change.lsn, out);
  out += '}';
}

Result<void> append_row_change(const EventRecord& event, const Change& change,
                               SchemaRegistry& schemas, bool with_offset, std::string& out) {
  thread_local ChangedRows rows;  // its buffers are reused by the next event of this thread
  MILLRACE_RETURN_IF_ERROR(rows.read(change, event.category, schemas));
  append_head(event, letter_of(change.op), with_offset, out);
  out += "\"key\":{";
  const std::size_t key = out.size();
  MILLRACE_RETURN_IF_ERROR(rows.append_key(true, out));
  if (out.size() != key)
    out += '}';
  else
    out.replace(key - 1, 1, "null");
  out += ",\"before\":";
  MILLRACE_RETURN_IF_ERROR(rows.append_before(out));
  out += ",\"after\":";
  MILLRACE_RETURN_IF_ERROR(rows.append_after(out));
  out += ",\"unchanged\":";
  rows.append_unchanged(out);
  out += ',';
  append_source(event, change.lsn, out);
  out += ",\"schema\":";
  append_number(change.schema, out);
  out += '}';
  return {};
}

Result<void> append_json(const EventRecord& event, SchemaRegistry& schemas, bool with_offset,
                         std::string& out) {
  if (!event.type.empty()) return append_domain_event(event, with_offset, out), Result<void>{};
  MILLRACE_ASSIGN_OR_RETURN(const Change change, rendering::read_change(event.payload));
  if (change.op != rendering::Op::kMessage)
    return append_row_change(event, change, schemas, with_offset, out);
  append_message(event, change, with_offset, out);
  return {};
}

/// A name or payload for a person: as in JSON, but without quotes around it.
void append_bare(std::string_view text, std::string& out) {
  const std::size_t start = out.size();
  rendering::append_json_name(text, out);
  out.pop_back();
  out.erase(start, 1);
}

void append_payload(std::string_view payload, std::string& out) {
  if (rendering::is_json(payload))
    rendering::append_json_verbatim(payload, out);
  else
    append_bare(payload, out);
}

Result<void> append_row_text(const EventRecord& event, const Change& change,
                             SchemaRegistry& schemas, std::string& out) {
  thread_local ChangedRows rows;
  MILLRACE_RETURN_IF_ERROR(rows.read(change, event.category, schemas));
  const std::size_t key = out.size();
  out += "  ";
  MILLRACE_RETURN_IF_ERROR(rows.append_key(false, out));
  if (out.size() == key + 2) out.resize(key);
  if (!rows.has_before() && !rows.has_after()) return {};
  out += "  ";
  return rows.has_after() ? rows.append_after(out) : rows.append_before(out);
}

Result<void> append_text(const EventRecord& event, SchemaRegistry& schemas, bool with_offset,
                         std::string& out) {
  if (with_offset) {
    append_number(event.offset, out);
    out += "  ";
  }
  if (!event.type.empty()) {
    out += "a  ";
    append_bare(event.category, out);
    out += '/';
    append_bare(event.key, out);
    out += "  ";
    append_bare(event.type, out);
    out += "  ";
    append_payload(event.payload, out);
    return {};
  }
  MILLRACE_ASSIGN_OR_RETURN(const Change change, rendering::read_change(event.payload));
  out += letter_of(change.op);
  out += "  ";
  if (change.op != rendering::Op::kMessage) {
    append_bare(event.category, out);
    return append_row_text(event, change, schemas, out);
  }
  append_bare(change.prefix, out);
  out += "  ";
  append_payload(change.content, out);
  return {};
}

/// What failed half-way leaves nothing behind, and says which event it was.
Result<void> undo_on_error(Result<void> done, const EventRecord& event, bool with_offset,
                           std::size_t start, std::string& out) {
  if (done) return done;
  out.resize(start);
  std::string where = with_offset ? "event " + std::to_string(event.offset) + " of " : "change of ";
  return std::move(done).error().context(where + printable(event.category));
}

}  // namespace

Result<void> append_event_json(const EventRecord& event, SchemaRegistry& schemas, std::string& out,
                               bool with_offset) {
  const std::size_t start = out.size();
  return undo_on_error(append_json(event, schemas, with_offset, out), event, with_offset, start,
                       out);
}

Result<void> append_event_text(const EventRecord& event, SchemaRegistry& schemas, std::string& out,
                               bool with_offset) {
  const std::size_t start = out.size();
  return undo_on_error(append_text(event, schemas, with_offset, out), event, with_offset, start,
                       out);
}

}  // namespace millrace
