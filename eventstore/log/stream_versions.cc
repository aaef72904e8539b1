#include "eventstore/log/stream_versions.h"

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log_reader.h"

namespace millrace::log {

std::string_view StreamVersions::name_of(const StreamName& stream) {
  name_.assign(stream.category);
  name_ += '\0';  // which no category has
  name_ += stream.key;
  return name_;
}

void StreamVersions::set(std::string_view name, std::uint64_t next_version) {
  const auto known = versions_.find(name);
  if (known != versions_.end())
    known->second = next_version;
  else
    versions_.emplace(name, next_version);
}

Result<void> StreamVersions::load() {
  if (loaded_) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(store_, {.from = {}, .category = {}, .files = &files_}));
  KeyedAppend append;
  std::string key;  // of the transaction that is being read
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
    if (batch == nullptr) break;
    if (batch->first_of_transaction) {
      key = batch->idempotency_key;
      append = {.first = batch->first, .end = {}, .next_versions = {}};
    }
    while (const EventView* event = batch->next()) {
      append.end = {event->offset.value + 1};
      if (!event->version) continue;
      const auto name = name_of({event->category, event->key});
      set(name, *event->version + 1);
      if (key.empty()) continue;
      auto& streams = append.next_versions;
      if (streams.empty() || streams.back().first != name) streams.emplace_back(name, 0);
      streams.back().second = *event->version + 1;
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    if (batch->last_of_transaction && !key.empty()) appends_.insert_or_assign(key, append);
  }
  loaded_ = true;
  return {};
}

std::uint64_t StreamVersions::next_version(const StreamName& stream) {
  const auto known = versions_.find(name_of(stream));
  return known == versions_.end() ? 0 : known->second;
}

Result<std::optional<AppendResult>> StreamVersions::find_append(const AppendRequest& request) {
  const auto known = appends_.find(request.idempotency_key);
  if (known == appends_.end()) return std::optional<AppendResult>();
  const KeyedAppend& append = known->second;
  AppendResult result{
      .first = append.first, .end = append.end, .next_versions = {}, .repeated = true};
  std::size_t with_events = 0;
  for (const StreamAppend& part : request.streams) {
    if (part.events.empty()) {
      result.next_versions.push_back(next_version(part.stream));
      continue;
    }
    ++with_events;
    const auto name = name_of(part.stream);
    const auto stream = std::find_if(append.next_versions.begin(), append.next_versions.end(),
                                     [&](const auto& one) { return one.first == name; });
    if (stream != append.next_versions.end()) result.next_versions.push_back(stream->second);
  }
  if (result.next_versions.size() != request.streams.size() ||
      with_events != append.next_versions.size())
    return Error(ErrorCode::kInvalidArgument,
                 "idempotency key " + printable(request.idempotency_key) +
                     " was used for an append to other streams, at offset " +
                     std::to_string(append.first.value))
        .hint("Use a key of its own for each append, the same one only to repeat it.");
  return std::optional(std::move(result));
}

void StreamVersions::note(const AppendRequest& request, const AppendResult& result) {
  KeyedAppend append{.first = result.first, .end = result.end, .next_versions = {}};
  for (std::size_t i = 0; i < request.streams.size(); ++i) {
    const auto name = name_of(request.streams[i].stream);
    set(name, result.next_versions[i]);
    if (!request.idempotency_key.empty() && !request.streams[i].events.empty())
      append.next_versions.emplace_back(name, result.next_versions[i]);
  }
  if (!request.idempotency_key.empty())
    appends_.insert_or_assign(std::string(request.idempotency_key), std::move(append));
}

}  // namespace millrace::log
