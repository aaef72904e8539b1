#include "eventstore/log/stream_appender.h"

#include <algorithm>

#include "base/bytes.h"

namespace millrace::log {
namespace {

constexpr std::size_t kBufferBytesKept = 8 << 20;

Error invalid(std::string what) { return Error(ErrorCode::kInvalidArgument, std::move(what)); }

std::string printable(const StreamName& stream) {
  return millrace::printable(std::string(stream.category) + "/" + std::string(stream.key));
}

NewEvent event_of(const StreamName& stream, const NewStreamEvent& event) {
  return {.category = stream.category,
          .key = stream.key,
          .type = event.type,
          .payload = event.payload,
          .metadata = event.metadata};
}

/// `next` is what the stream's next event gets: one above its last.
Result<void> check_version(const StreamAppend& part, std::uint64_t next) {
  const auto conflict = [&](const std::string& wanted) {
    return Error(ErrorCode::kConflict,
                 "stream " + printable(part.stream) +
                     (next == 0 ? " has no events" : " is at version " + std::to_string(next - 1)) +
                     ", not " + wanted)
        .hint("Read the stream again, decide again, and append with the version it has then.");
  };
  switch (part.expected.kind) {
    case ExpectedVersion::Kind::kAny: return {};
    case ExpectedVersion::Kind::kNone:
      if (next != 0) return conflict("new");
      return {};
    case ExpectedVersion::Kind::kExact:
      if (next == 0 || part.expected.version != next - 1)
        return conflict("at version " + std::to_string(part.expected.version));
      return {};
  }
  return {};
}

bool names_twice(std::span<const StreamAppend> parts) {
  std::vector<StreamName> names;
  for (const StreamAppend& part : parts) names.push_back(part.stream);
  std::sort(names.begin(), names.end());
  return std::adjacent_find(names.begin(), names.end()) != names.end();
}

}  // namespace

Result<void> check_limits(const NewEvent& event) {
  if (event.category.empty() || event.category.size() > kCategoryBytesMax)
    return invalid("a category has 1 to " + std::to_string(kCategoryBytesMax) + " bytes, not " +
                   std::to_string(event.category.size()));
  if (event.category.find('\0') != std::string_view::npos)
    return invalid("a category without NUL is needed: " + millrace::printable(event.category));
  if (event.type.size() > kCategoryBytesMax)
    return invalid("an event type has at most " + std::to_string(kCategoryBytesMax) +
                   " bytes, not " + std::to_string(event.type.size()));
  if (event.key.size() > kKeyBytesMax)
    return invalid("a key has at most " + std::to_string(kKeyBytesMax) + " bytes, not " +
                   std::to_string(event.key.size()));
  constexpr std::uint8_t kAllFlags = 7;
  if ((static_cast<std::uint8_t>(event.flags) & ~kAllFlags) != 0)
    return invalid("an event flag that there is not");
  const std::uint64_t bytes = std::uint64_t{event.category.size()} + event.key.size() +
                              event.type.size() + event.payload.size() + event.metadata.size();
  if (bytes > kEventBytesMax)
    return invalid("an event has at most " + std::to_string(kEventBytesMax) + " bytes, not " +
                   std::to_string(bytes));
  return {};
}

Result<void> StreamAppender::check(const AppendRequest& request) {
  if (request.idempotency_key.size() > kIdempotencyKeyBytesMax)
    return invalid("an idempotency key has at most " + std::to_string(kIdempotencyKeyBytesMax) +
                   " bytes, not " + std::to_string(request.idempotency_key.size()));
  std::uint64_t events = 0, bytes = 0;
  for (const StreamAppend& part : request.streams) {
    // A name counts also where it only is to be checked.
    MILLRACE_RETURN_IF_ERROR(check_limits(event_of(part.stream, {})));
    for (const NewStreamEvent& event : part.events) {
      if (event.type.empty())
        return invalid("an event of stream " + printable(part.stream) + " has no type");
      const NewEvent whole = event_of(part.stream, event);
      MILLRACE_RETURN_IF_ERROR(check_limits(whole));
      bytes += whole.category.size() + whole.key.size() + whole.type.size() + whole.payload.size() +
               whole.metadata.size();
      ++events;
    }
  }
  if (events == 0) return invalid("an append has at least one event");
  if (bytes > kAppendBytesMax)
    return invalid("the events of one append have at most " + std::to_string(kAppendBytesMax) +
                   " bytes together, not " + std::to_string(bytes));
  if (names_twice(request.streams)) return invalid("an append names each stream once");
  return {};
}

Result<std::vector<std::uint64_t>> StreamAppender::first_versions(const AppendRequest& request) {
  std::vector<std::uint64_t> versions;
  versions.reserve(request.streams.size());
  for (const StreamAppend& part : request.streams) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t next, versions_.next_version(part.stream));
    versions.push_back(next);
    MILLRACE_RETURN_IF_ERROR(check_version(part, versions.back()));
  }
  return versions;
}

Result<Offset> StreamAppender::append_tombstones(std::span<const NewEvent> events,
                                                 const Place& place) {
  std::vector<std::uint64_t> versions;
  for (const NewEvent& event : events) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t version,
                              versions_.next_version({event.category, event.key}));
    versions.push_back(version);
  }
  TransactionInfo info;
  info.commit_time = clock_.wall();
  batches_.clear(kBufferBytesKept);
  builder_.begin(info, Offset{0}, batch_bytes_);
  const NewStreamEvent any;  // only its number counts
  std::vector<StreamAppend> versioned;
  AppendResult result;
  for (std::size_t i = 0; i < events.size(); ++i) {
    builder_.add(events[i], versions[i] == 0 ? std::nullopt : std::optional(versions[i]));
    if (versions[i] == 0) continue;
    versioned.push_back(
        {.stream = {events[i].category, events[i].key}, .expected = {}, .events = {&any, 1}});
    result.next_versions.push_back(versions[i] + 1);
  }
  builder_.commit(0);
  MILLRACE_ASSIGN_OR_RETURN(result.end, place(builder_, batches_));
  result.first = {result.end.value - events.size()};
  versions_.note({.streams = versioned, .idempotency_key = {}}, result);
  return result.end;
}

Result<AppendResult> StreamAppender::append(const AppendRequest& request, const Place& place) {
  if (!request.idempotency_key.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(auto earlier, versions_.find_append(request));
    if (earlier) return *std::move(earlier);
  }
  AppendResult result;
  MILLRACE_ASSIGN_OR_RETURN(result.next_versions, first_versions(request));

  TransactionInfo info;
  info.commit_time = clock_.wall();
  batches_.clear(kBufferBytesKept);
  builder_.begin(info, Offset{0}, batch_bytes_, request.idempotency_key);
  std::uint64_t events = 0;
  for (std::size_t i = 0; i < request.streams.size(); ++i) {
    const StreamAppend& part = request.streams[i];
    for (const NewStreamEvent& event : part.events)
      builder_.add(event_of(part.stream, event), result.next_versions[i]++);
    events += part.events.size();
  }
  builder_.commit(0);
  MILLRACE_ASSIGN_OR_RETURN(result.end, place(builder_, batches_));
  result.first = {result.end.value - events};
  versions_.note(request, result);
  return result;
}

}  // namespace millrace::log
