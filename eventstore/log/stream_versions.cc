#include "eventstore/log/stream_versions.h"

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/index_format.h"
#include "eventstore/log_reader.h"

namespace millrace::log {
namespace {

void set_name(const StreamName& stream, std::string& name) {
  name.assign(stream.category);
  name += '\0';  // which no category has
  name += stream.key;
}

}  // namespace

/// Everything with a version that is durable is in the log's part that the lookup knows, or in the
/// tables: nobody but this class gives versions, and it forgets only what the lookup has.
Result<void> StreamVersions::look_up() {
  if (lookup_) return {};
  MILLRACE_ASSIGN_OR_RETURN(auto lookup, StreamLookup::open(files_, store_));
  MILLRACE_RETURN_IF_ERROR(lookup->refresh());
  lookup_ = std::move(lookup);
  return {};
}

Result<void> StreamVersions::forget_durable() {
  if (versions_.size() + appends_.size() <= recent_max_) return {};
  MILLRACE_RETURN_IF_ERROR(look_up());
  MILLRACE_RETURN_IF_ERROR(lookup_->refresh());
  const auto known = [&](const auto& entry) { return entry.second.end <= lookup_->end(); };
  std::erase_if(versions_, known);
  std::erase_if(appends_, known);
  return {};
}

void StreamVersions::set(std::string_view name, std::uint64_t next, Offset end) {
  const Version version{.next = next, .end = end};
  const auto known = versions_.find(name);
  if (known != versions_.end())
    known->second = version;
  else
    versions_.emplace(name, version);
}

Result<std::uint64_t> StreamVersions::next_version(const StreamName& stream) {
  MutexLock lock(mutex_);
  return find_next(stream);
}

Result<std::uint64_t> StreamVersions::find_next(const StreamName& stream) {
  set_name(stream, name_);
  if (const auto known = versions_.find(name_); known != versions_.end()) return known->second.next;
  MILLRACE_RETURN_IF_ERROR(look_up());
  std::uint64_t next = 0;
  Result<void> readable;
  MILLRACE_RETURN_IF_ERROR(
      lookup_->visit(stream_hash(stream.category, stream.key), true, [&](Batch& batch) {
        while (const EventView* event = batch.next())
          if (event->version && event->category == stream.category && event->key == stream.key)
            next = *event->version + 1;
        readable = batch.status();
        return readable && next == 0;
      }));
  MILLRACE_RETURN_IF_ERROR(readable);
  return next;
}

Result<StreamVersions::KeyedAppend> StreamVersions::read_append(Offset first) {
  ReadOptions options;
  options.from = first;
  options.accepts_gaps = true;
  options.files = &files_;
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(store_, std::move(options)));
  KeyedAppend append{.first = first, .end = first, .next_versions = {}};
  auto& streams = append.next_versions;
  for (bool last = false; !last;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      append.end = {event->offset.value + 1};
      set_name({event->category, event->key}, name_);
      if (streams.empty() || streams.back().first != name_) streams.emplace_back(name_, 0);
      streams.back().second = event->version.value_or(0) + 1;
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    last = batch->last_of_transaction;
  }
  return append;
}

Result<std::optional<StreamVersions::KeyedAppend>> StreamVersions::look_up_append(
    std::string_view idempotency_key) {
  MILLRACE_RETURN_IF_ERROR(look_up());
  std::optional<Offset> first;
  bool erased = false;
  const std::string known_by = erased_key(idempotency_key);
  MILLRACE_RETURN_IF_ERROR(
      lookup_->visit(idempotency_hash(idempotency_key), true, [&](Batch& batch) {
        erased = batch.erased_key == known_by;
        if (erased || batch.idempotency_key == idempotency_key) first = batch.first;
        return !first;
      }));
  if (!first) return std::optional<KeyedAppend>();
  if (erased)
    return std::optional(
        KeyedAppend{.first = *first, .end = *first, .next_versions = {}, .erased = true});
  MILLRACE_ASSIGN_OR_RETURN(KeyedAppend append, read_append(*first));
  return std::optional(std::move(append));
}

Result<std::optional<AppendResult>> StreamVersions::find_append(const AppendRequest& request) {
  MutexLock lock(mutex_);
  std::optional<KeyedAppend> append;
  if (const auto known = appends_.find(request.idempotency_key); known != appends_.end()) {
    append = known->second;
  } else {
    MILLRACE_ASSIGN_OR_RETURN(append, look_up_append(request.idempotency_key));
  }
  if (!append) return std::optional<AppendResult>();
  if (append->erased)
    return Error(ErrorCode::kGone, "the append with the idempotency key " +
                                       printable(request.idempotency_key) + ", at offset " +
                                       std::to_string(append->first.value) +
                                       ", was made, and a part of it has been erased since")
        .hint("Do not repeat it: what is left of it is in the log.");
  AppendResult result{
      .first = append->first, .end = append->end, .next_versions = {}, .repeated = true};
  std::size_t with_events = 0;
  for (const StreamAppend& part : request.streams) {
    if (part.events.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t next, find_next(part.stream));
      result.next_versions.push_back(next);
      continue;
    }
    ++with_events;
    set_name(part.stream, name_);
    const auto stream = std::find_if(append->next_versions.begin(), append->next_versions.end(),
                                     [&](const auto& one) { return one.first == name_; });
    if (stream != append->next_versions.end()) result.next_versions.push_back(stream->second);
  }
  if (result.next_versions.size() != request.streams.size() ||
      with_events != append->next_versions.size())
    return Error(ErrorCode::kInvalidArgument,
                 "idempotency key " + printable(request.idempotency_key) +
                     " was used for an append to other streams, at offset " +
                     std::to_string(append->first.value))
        .hint("Use a key of its own for each append, the same one only to repeat it.");
  return std::optional(std::move(result));
}

void StreamVersions::drop_replaced() {
  MutexLock lock(mutex_);
  if (!lookup_) return;
  // First to the end: the segment that was the newest when it was read last may be one of them.
  if (const auto refreshed = lookup_->refresh(); !refreshed) {
    lookup_.reset();  // who needs it next opens another one
    return;
  }
  std::erase_if(appends_, [&](const auto& entry) { return entry.second.end <= lookup_->end(); });
}

void StreamVersions::note(const AppendRequest& request, const AppendResult& result) {
  MutexLock lock(mutex_);
  KeyedAppend append{.first = result.first, .end = result.end, .next_versions = {}};
  for (std::size_t i = 0; i < request.streams.size(); ++i) {
    if (request.streams[i].events.empty()) continue;
    set_name(request.streams[i].stream, name_);
    set(name_, result.next_versions[i], result.end);
    if (!request.idempotency_key.empty())
      append.next_versions.emplace_back(name_, result.next_versions[i]);
  }
  if (!request.idempotency_key.empty())
    appends_.insert_or_assign(std::string(request.idempotency_key), std::move(append));
  // What can't be read now is a matter of the next lookup; until then there is only more in memory.
  static_cast<void>(forget_durable());
}

}  // namespace millrace::log
