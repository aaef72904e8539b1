#include "cli/log_report.h"

#include <cstdio>

#include "base/bytes.h"
#include "base/progress.h"
#include "cli/event_record.h"
#include "cli/json.h"
#include "cli/text.h"
#include "eventstore/log_reader.h"
#include "schemas/json.h"

namespace millrace {
namespace {

constexpr std::size_t kEventFaultsMax = 20;

// The `op` of a millrace.v1.Change without decoding the rest: its first field, a varint. Protobuf
// writes fields in the order of their numbers, but need not.
char operation_of(const EventView& event) {
  static constexpr std::string_view kByNumber = "?cudrtm";
  if (!event.type.empty()) return 'a';
  ByteReader in(event.payload);
  while (in.remaining() > 0) {
    const std::uint64_t tag = in.varint();
    if (tag == (1 << 3 | 0)) {
      const std::uint64_t op = in.varint();
      return op < kByNumber.size() ? kByNumber[op] : '?';
    }
    switch (tag & 7) {
      case 0: in.varint(); break;
      case 1: in.bytes(8); break;
      case 2: in.bytes(in.varint()); break;
      default: in.fail();
    }
  }
  return '?';
}

std::uint64_t total(const CategoryCounts& counts, std::uint64_t EventCounts::*number) {
  std::uint64_t sum = 0;
  for (const auto& [category, count] : counts) sum += count.*number;
  return sum;
}

std::uint64_t bytes_on_disk(const StoreSummary& store) {
  std::uint64_t bytes = 0;
  for (const SegmentSummary& segment : store.segments) bytes += segment.used_bytes;
  return bytes;
}

Fault event_fault(const Batch& batch, const EventView& event, const Error& error) {
  char name[32];
  std::snprintf(name, sizeof name, "%020llu.log", static_cast<unsigned long long>(batch.segment));
  return {.file = std::string("log/") + name,
          .position = batch.position,
          .kind = "event",
          .detail = "offset " + std::to_string(event.offset.value) + ": " + error.message()};
}

}  // namespace

Result<CategoryCounts> count_events(const Path& store) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, LogReader::open(store));
  const std::uint64_t end = reader->durable_end().value;
  Progress progress("log stat", end, ProgressUnit::kEvents);
  CategoryCounts counts;
  while (reader->position().value < end) {
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      auto count = counts.find(event->category);
      if (count == counts.end()) count = counts.emplace(event->category, EventCounts()).first;
      const std::size_t operation = kOperations.find(operation_of(*event));
      if (operation != kOperations.npos) ++count->second.by_operation[operation];
      ++count->second.events;
      count->second.bytes +=
          event->key.size() + event->type.size() + event->payload.size() + event->metadata.size();
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    progress.update(reader->position().value);
  }
  return counts;
}

Result<void> verify_events(const Path& store, VerifyReport& report) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, LogReader::open(store));
  MILLRACE_ASSIGN_OR_RETURN(auto schemas, SchemaRegistry::open_read_only(store));
  const std::uint64_t end = reader->durable_end().value;
  Progress progress("log verify: events", end, ProgressUnit::kEvents);
  std::uint64_t unreadable = 0;
  std::string rendered;
  while (reader->position().value < end) {
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      rendered.clear();
      const auto done = append_event_json(to_record(*event, batch->info), *schemas, rendered);
      if (!done && ++unreadable <= kEventFaultsMax)
        report.faults.push_back(event_fault(*batch, *event, done.error()));
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    progress.update(reader->position().value);
  }
  if (unreadable > kEventFaultsMax)
    report.faults.push_back({.file = "",
                             .kind = "event",
                             .detail = grouped(unreadable - kEventFaultsMax) + " more like these"});
  return {};
}

std::string stat_text(const StoreSummary& store, const CategoryCounts& counts) {
  const std::uint64_t bytes = bytes_on_disk(store);
  std::string text =
      "store       " + to_string(store.id) + ", format " + std::to_string(store.format_version) +
      "\noffsets     " + std::to_string(store.first.value) + " to " +
      std::to_string(store.durable_end.value) + "\nlog         " +
      human_bytes(static_cast<double>(bytes)) + " in " + std::to_string(store.segments.size()) +
      (store.segments.size() == 1 ? " segment\n\n" : " segments\n\n");
  std::vector<std::string> header{"category", "events"};
  for (const char operation : kOperations) header.emplace_back(1, operation);
  header.emplace_back("bytes");
  TextTable table(std::move(header));
  EventCounts sum;
  const auto add_row = [&](const std::string& name, const EventCounts& count) {
    std::vector<std::string> row{name, grouped(count.events)};
    for (const std::uint64_t number : count.by_operation) row.push_back(grouped(number));
    row.push_back(grouped(count.bytes));
    table.add(std::move(row));
  };
  for (const auto& [category, count] : counts) {
    add_row(printable(category), count);
    for (std::size_t i = 0; i < kOperations.size(); ++i)
      sum.by_operation[i] += count.by_operation[i];
  }
  sum.events = total(counts, &EventCounts::events);
  sum.bytes = total(counts, &EventCounts::bytes);
  add_row("total", sum);
  table.append_to(text);
  return text;
}

std::string stat_json(const StoreSummary& store, const CategoryCounts& counts) {
  Json categories = Json::array();
  for (const auto& [category, count] : counts) {
    Json operations = Json::object();
    for (std::size_t i = 0; i < kOperations.size(); ++i)
      if (count.by_operation[i] > 0)
        operations[std::string(1, kOperations[i])] = count.by_operation[i];
    categories.push_back({{"category", category},
                          {"events", count.events},
                          {"operations", std::move(operations)},
                          {"bytes", count.bytes}});
  }
  return to_line({{"store_id", to_string(store.id)},
                  {"format_version", store.format_version},
                  {"first_offset", store.first.value},
                  {"durable_end", store.durable_end.value},
                  {"segments", store.segments.size()},
                  {"log_bytes", bytes_on_disk(store)},
                  {"events", total(counts, &EventCounts::events)},
                  {"bytes", total(counts, &EventCounts::bytes)},
                  {"categories", std::move(categories)}});
}

std::string verify_text(const VerifyReport& report) {
  std::string text;
  for (const Fault& fault : report.faults) {
    if (!fault.file.empty())
      text += fault.file + " at byte " + std::to_string(fault.position) + ": ";
    text += fault.kind + (fault.detail.empty() ? "" : ": " + printable(fault.detail, 1000)) + "\n";
  }
  text += (report.faults.empty() ? "ok: " : "checked: ") + grouped(report.events) + " events in " +
          grouped(report.batches) + " batches, " + human_bytes(static_cast<double>(report.bytes)) +
          "\n";
  if (report.torn_tail_bytes > 0)
    text +=
        "note: " + grouped(report.torn_tail_bytes) +
        " bytes after the last whole transaction are unfinished; the next writer cuts them off\n";
  return text;
}

std::string verify_json(const VerifyReport& report) {
  Json faults = Json::array();
  for (const Fault& fault : report.faults)
    faults.push_back({{"file", fault.file},
                      {"position", fault.position},
                      {"kind", fault.kind},
                      {"detail", fault.detail}});
  return to_line({{"ok", report.faults.empty()},
                  {"bytes", report.bytes},
                  {"batches", report.batches},
                  {"events", report.events},
                  {"torn_tail_bytes", report.torn_tail_bytes},
                  {"faults", std::move(faults)}});
}

}  // namespace millrace
