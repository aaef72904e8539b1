#include "service/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace millrace::service {
namespace {

/// Each code of ours and the one that gRPC's tools show.
constexpr std::array<std::pair<ErrorCode, grpc::StatusCode>, 13> kCodes{{
    {ErrorCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
    {ErrorCode::kNotFound, grpc::StatusCode::NOT_FOUND},
    {ErrorCode::kConflict, grpc::StatusCode::ABORTED},
    {ErrorCode::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION},
    {ErrorCode::kUnavailable, grpc::StatusCode::UNAVAILABLE},
    {ErrorCode::kLocked, grpc::StatusCode::FAILED_PRECONDITION},
    {ErrorCode::kCorruption, grpc::StatusCode::DATA_LOSS},
    {ErrorCode::kIo, grpc::StatusCode::INTERNAL},
    {ErrorCode::kNoSpace, grpc::StatusCode::RESOURCE_EXHAUSTED},
    {ErrorCode::kUnsupported, grpc::StatusCode::UNIMPLEMENTED},
    {ErrorCode::kCancelled, grpc::StatusCode::CANCELLED},
    {ErrorCode::kInternal, grpc::StatusCode::INTERNAL},
    {ErrorCode::kGone, grpc::StatusCode::OUT_OF_RANGE},
}};

v1::AppendRequest::Stream::Expected to_message(ExpectedVersion::Kind kind) {
  switch (kind) {
    case ExpectedVersion::Kind::kAny: return v1::AppendRequest::Stream::ANY;
    case ExpectedVersion::Kind::kNone: return v1::AppendRequest::Stream::NONE;
    case ExpectedVersion::Kind::kExact: return v1::AppendRequest::Stream::EXACT;
  }
  return v1::AppendRequest::Stream::ANY;
}

ExpectedVersion from_message(const v1::AppendRequest::Stream& stream) {
  switch (stream.expected()) {
    case v1::AppendRequest::Stream::NONE: return ExpectedVersion::none();
    case v1::AppendRequest::Stream::EXACT: return ExpectedVersion::exact(stream.version());
    default: return ExpectedVersion::any();
  }
}

}  // namespace

Result<SocketAddress> SocketAddress::open(const Path& store) {
  const int descriptor = ::open(store.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return Error::from_errno(errno, "open " + store.string());
  return SocketAddress(descriptor);
}

SocketAddress::~SocketAddress() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

SocketAddress::SocketAddress(SocketAddress&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

Path SocketAddress::path() const {
  return "/proc/self/fd/" + std::to_string(descriptor_) + "/service.sock";
}

v1::StoreIdentity to_message(const StoreId& store) {
  v1::StoreIdentity message;
  message.set_id(store.bytes.data(), store.bytes.size());
  return message;
}

v1::AppendRequest to_message(const AppendRequest& request, const StoreId& store) {
  v1::AppendRequest message;
  *message.mutable_store() = to_message(store);
  message.set_idempotency_key(std::string(request.idempotency_key));
  for (const StreamAppend& part : request.streams) {
    v1::AppendRequest::Stream& stream = *message.add_streams();
    stream.set_category(std::string(part.stream.category));
    stream.set_key(std::string(part.stream.key));
    stream.set_expected(to_message(part.expected.kind));
    stream.set_version(part.expected.version);
    for (const NewStreamEvent& event : part.events) {
      v1::AppendRequest::Event& added = *stream.add_events();
      added.set_type(std::string(event.type));
      added.set_payload(std::string(event.payload));
      added.set_metadata(std::string(event.metadata));
    }
  }
  return message;
}

AppendRequestView::AppendRequestView(const v1::AppendRequest& message) {
  events_.reserve(static_cast<std::size_t>(message.streams_size()));
  for (const v1::AppendRequest::Stream& stream : message.streams()) {
    auto& events = events_.emplace_back();
    for (const v1::AppendRequest::Event& event : stream.events())
      events.push_back(
          {.type = event.type(), .payload = event.payload(), .metadata = event.metadata()});
    streams_.push_back({.stream = {stream.category(), stream.key()},
                        .expected = from_message(stream),
                        .events = events});
  }
  request_ = {.streams = streams_, .idempotency_key = message.idempotency_key()};
}

v1::AppendResponse to_message(const AppendResult& result) {
  v1::AppendResponse message;
  message.set_first(result.first.value);
  message.set_end(result.end.value);
  message.mutable_next_versions()->Add(result.next_versions.begin(), result.next_versions.end());
  message.set_repeated_append(result.repeated);
  return message;
}

AppendResult from_message(const v1::AppendResponse& response) {
  return {.first = {response.first()},
          .end = {response.end()},
          .next_versions = {response.next_versions().begin(), response.next_versions().end()},
          .repeated = response.repeated_append()};
}

v1::CompactRequest to_message(const CompactionOptions& options, const StoreId& store) {
  v1::CompactRequest message;
  *message.mutable_store() = to_message(store);
  message.set_dry_run(options.dry_run);
  message.set_dead_share_min(options.dead_share_min);
  message.set_memory_bytes(options.memory_bytes);
  message.set_bytes_per_second(options.bytes_per_second);
  return message;
}

CompactionOptions from_message(const v1::CompactRequest& message) {
  CompactionOptions options;
  options.dry_run = message.dry_run();
  options.dead_share_min = message.dead_share_min();
  options.memory_bytes = message.memory_bytes();
  options.bytes_per_second = message.bytes_per_second();
  return options;
}

v1::CompactUpdate to_message(const MaintenanceProgress& progress) {
  v1::CompactUpdate message;
  message.mutable_progress()->set_done_bytes(progress.done_bytes);
  message.mutable_progress()->set_total_bytes(progress.total_bytes);
  return message;
}

v1::CompactUpdate to_message(const CompactionReport& report) {
  v1::CompactUpdate message;
  v1::CompactUpdate::Report& to = *message.mutable_report();
  to.set_segments(report.segments);
  to.set_passes(report.passes);
  to.set_bytes_read(report.bytes_read);
  for (const RewrittenSegment& from : report.rewritten) {
    v1::CompactUpdate::Segment& segment = *to.add_rewritten();
    segment.set_file(from.file);
    segment.set_bytes_before(from.bytes_before);
    segment.set_bytes_after(from.bytes_after);
    segment.set_events_removed(from.events_removed);
    segment.set_events_completed(from.events_completed);
  }
  for (const RemovedEvents& from : report.removed) {
    v1::CompactUpdate::Removed& removed = *to.add_removed();
    removed.set_category(from.category);
    removed.set_reason(from.reason);
    removed.set_first(from.first.value);
    removed.set_last(from.last.value);
    removed.set_count(from.count);
  }
  return message;
}

CompactionReport from_message(const v1::CompactUpdate::Report& message) {
  CompactionReport report{.segments = message.segments(),
                          .passes = message.passes(),
                          .bytes_read = message.bytes_read(),
                          .rewritten = {},
                          .removed = {}};
  for (const v1::CompactUpdate::Segment& segment : message.rewritten())
    report.rewritten.push_back({.file = segment.file(),
                                .bytes_before = segment.bytes_before(),
                                .bytes_after = segment.bytes_after(),
                                .events_removed = segment.events_removed(),
                                .events_completed = segment.events_completed()});
  for (const v1::CompactUpdate::Removed& removed : message.removed())
    report.removed.push_back({.category = removed.category(),
                              .reason = removed.reason(),
                              .first = {removed.first()},
                              .last = {removed.last()},
                              .count = removed.count()});
  return report;
}

v1::EraseRequest to_message(const EraseRequest& request, const StoreId& store) {
  v1::EraseRequest message;
  *message.mutable_store() = to_message(store);
  message.set_category(std::string(request.category));
  for (const EntityToErase& entity : request.entities) {
    v1::EraseRequest::Entity& added = *message.add_entities();
    added.set_key(std::string(entity.key));
    added.set_tombstone_type(std::string(entity.tombstone_type));
    added.set_tombstone_payload(std::string(entity.tombstone_payload));
  }
  return message;
}

std::vector<EntityToErase> entities_of(const v1::EraseRequest& message) {
  std::vector<EntityToErase> entities;
  for (const v1::EraseRequest::Entity& entity : message.entities())
    entities.push_back({.key = entity.key(),
                        .tombstone_type = entity.tombstone_type(),
                        .tombstone_payload = entity.tombstone_payload()});
  return entities;
}

v1::EraseReport to_message(const EraseReport& report) {
  v1::EraseReport message;
  message.set_segments(report.segments);
  message.set_segments_rewritten(report.segments_rewritten);
  for (const ErasedEntity& entity : report.entities) {
    v1::EraseReport::Entity& added = *message.add_entities();
    added.set_key(entity.key);
    added.set_tombstone(entity.tombstone.value);
    added.set_events(entity.events);
    added.set_bytes(entity.bytes);
    added.set_first(entity.first.value);
    added.set_last(entity.last.value);
  }
  return message;
}

EraseReport from_message(const v1::EraseReport& message) {
  EraseReport report{.segments = message.segments(),
                     .segments_rewritten = message.segments_rewritten(),
                     .entities = {}};
  for (const v1::EraseReport::Entity& entity : message.entities())
    report.entities.push_back({.key = entity.key(),
                               .tombstone = {entity.tombstone()},
                               .events = entity.events(),
                               .bytes = entity.bytes(),
                               .first = {entity.first()},
                               .last = {entity.last()}});
  return report;
}

v1::SnapshotResponse to_message(const StoreCopyReport& report) {
  v1::SnapshotResponse message;
  message.set_end(report.end.value);
  message.set_segments(report.segments);
  message.set_linked(report.linked);
  message.set_copied_bytes(report.copied_bytes);
  return message;
}

StoreCopyReport from_message(const v1::SnapshotResponse& message) {
  return {.end = {message.end()},
          .segments = message.segments(),
          .linked = message.linked(),
          .copied_bytes = message.copied_bytes()};
}

grpc::Status to_status(const Error& error) {
  v1::ServiceError details;
  details.set_code(std::string(name_of(error.code())));
  details.set_message(error.message());
  details.set_hint(error.hint());
  grpc::StatusCode code = grpc::StatusCode::INTERNAL;
  for (const auto& [ours, theirs] : kCodes)
    if (ours == error.code()) code = theirs;
  return {code, error.message(), details.SerializeAsString()};
}

Error from_status(const grpc::Status& status) {
  v1::ServiceError details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details()))
    for (const auto& [code, theirs] : kCodes)
      if (details.code() == name_of(code)) {
        Error error(code, details.message());
        if (!details.hint().empty()) return std::move(error).hint(details.hint());
        return error;
      }
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED)
    return Error(ErrorCode::kInvalidArgument,
                 "the request is too large: " + status.error_message());
  return Error(ErrorCode::kUnavailable,
               "the process that holds the store gave no answer: " + status.error_message())
      .hint(
          "Whether it was done is not known. Repeat it with the same idempotency key, or look "
          "first.");
}

}  // namespace millrace::service
