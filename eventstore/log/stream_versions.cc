#include "eventstore/log/stream_versions.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/batch_file.h"
#include "eventstore/log/index_format.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"

namespace millrace::log {
namespace {

void set_name(const StreamName& stream, std::string& name) {
  name.assign(stream.category);
  name += '\0';  // which no category has
  name += stream.key;
}

}  // namespace

const std::pair<std::string, std::uint64_t>* StreamVersions::KeyedAppend::find(
    std::string_view name) const {
  const auto one = std::find_if(next_versions.begin(), next_versions.end(),
                                [&](const auto& stream) { return stream.first == name; });
  return one == next_versions.end() ? nullptr : &*one;
}

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
  const auto known = [end = lookup_->end()](const auto& entry) { return entry.second.end <= end; };
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
  MILLRACE_ASSIGN_OR_RETURN(const Batch* const next, reader->next());
  append.end_max = next != nullptr ? next->first : reader->durable_end();
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
  MILLRACE_ASSIGN_OR_RETURN(auto result, result_of(*append, request));
  return std::optional(std::move(result));
}

Result<AppendResult> StreamVersions::result_of(const KeyedAppend& append,
                                               const AppendRequest& request) {
  AppendResult result{
      .first = append.first, .end = append.end, .next_versions = {}, .repeated = true};
  std::size_t found = 0, missing = 0;
  std::uint64_t events = 0;
  for (const StreamAppend& part : request.streams) {
    events += part.events.size();
    if (part.events.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t next, find_next(part.stream));
      result.next_versions.push_back(next);
      continue;
    }
    set_name(part.stream, name_);
    const auto* const stream = append.find(name_);
    if (stream == nullptr) {
      ++missing;
      continue;
    }
    ++found;
    result.next_versions.push_back(stream->second);
  }
  const bool names_all = found == append.next_versions.size();
  if (names_all && missing == 0) return result;
  // What is missing may have been there: if there is room for it, and all that is left is named.
  const std::uint64_t end = append.first.value + events;
  if (names_all && append.end_max && end >= append.end.value && end <= append.end_max->value) {
    MILLRACE_ASSIGN_OR_RETURN(Error error, gone(append, request));
    return error;
  }
  return Error(ErrorCode::kInvalidArgument,
               "idempotency key " + printable(request.idempotency_key) +
                   " was used for an append to other streams, at offset " +
                   std::to_string(append.first.value))
      .hint("Use a key of its own for each append, the same one only to repeat it.");
}

/// Tells of the first stream of which nothing is left.
Result<Error> StreamVersions::gone(const KeyedAppend& append, const AppendRequest& request) {
  Offset from = append.first;
  for (const StreamAppend& part : request.streams) {
    const Offset end{from.value + part.events.size()};
    set_name(part.stream, name_);
    if (from != end && append.find(name_) == nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(const std::string what, what_became_of(part.stream, from, end));
      return Error(ErrorCode::kGone,
                   "the append with idempotency key " + printable(request.idempotency_key) +
                       " was done, at offset " + std::to_string(append.first.value) +
                       ", but its result is not known any more: what it wrote to stream " +
                       printable(std::string(part.stream.category) + "/" +
                                 std::string(part.stream.key)) +
                       " " + what)
          .hint("Do not append it again. Read its streams to see where they are now.");
    }
    from = end;
  }
  return Error(ErrorCode::kInternal, "an append lacks nothing of what it lacks");
}

/// As the segments say in which it was.
Result<std::string> StreamVersions::what_became_of(const StreamName& stream, Offset from,
                                                   Offset end) {
  const StorePaths paths(store_);
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, list_segments(files_, paths));
  for (std::size_t i = 0; i < segments.size() && segments[i] < end.value; ++i) {
    if (i + 1 < segments.size() && segments[i + 1] <= from.value) continue;
    MILLRACE_ASSIGN_OR_RETURN(auto segment,
                              SegmentReader::open(files_, paths, lookup_->store_id(), segments[i]));
    if (!segment.header().rewritten) continue;
    MILLRACE_ASSIGN_OR_RETURN(const auto control, segment.read_control());
    if (control.fault != BatchFault::kNone)
      return fault_error(segments[i], control.position, control.fault);
    MILLRACE_ASSIGN_OR_RETURN(const auto removals, decode_removals(control.payload));
    for (const Removal& removal : removals) {
      if (removal.category != stream.category || removal.last < from || removal.first >= end)
        continue;
      switch (removal.kind) {
        case RemovalKind::kExpired: return std::string("has expired");
        case RemovalKind::kErased: return std::string("was erased");
        case RemovalKind::kTombstone: return std::string("was a deletion, past its grace");
        case RemovalKind::kLost: break;
      }
    }
  }
  return std::string("was compacted: newer events stand for it");
}

Result<std::uint64_t> StreamVersions::give(const StreamName& stream) {
  MutexLock lock(mutex_);
  set_name(stream, name_);
  if (const auto given = given_.find(name_); given != given_.end()) return given->second++;
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t next, find_next(stream));
  given_.emplace(name_, next + 1);
  return next;
}

void StreamVersions::keep_given(Offset end) {
  MutexLock lock(mutex_);
  for (const auto& [name, next] : given_) set(name, next, end);
  given_ = {};
  static_cast<void>(forget_durable());  // as in note()
}

void StreamVersions::drop_given() {
  MutexLock lock(mutex_);
  given_ = {};
}

Result<void> StreamVersions::learn(const StreamName& stream) {
  MutexLock lock(mutex_);
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t next, find_next(stream));
  set_name(stream, name_);
  if (!versions_.contains(name_)) set(name_, next, lookup_->end());
  return {};
}

void StreamVersions::drop_replaced(const LogMark& durable) {
  MutexLock lock(mutex_);
  std::erase_if(appends_,
                [end = durable.end](const auto& entry) { return entry.second.end <= end; });
  if (!lookup_) return;
  // The segment that was the newest when it was read last may be one of those replaced, so it has
  // to come to the end; from far behind a new one, which begins at the newest segment, is there
  // sooner.
  const bool is_near = lookup_->newest_segment() == durable.segment;
  const Result<void> refreshed = is_near ? lookup_->refresh() : Result<void>();
  if (!refreshed)
    spdlog::warn("store {}: what it knows of streams is read anew: {}", store_.string(),
                 refreshed.error().message());
  if (!is_near || !refreshed) lookup_.reset();  // who needs it next opens another one
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
