#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/appender.h"
#include "eventstore/maintenance_api.h"
#include "eventstore/types.h"
#include "millrace/v1/store_service.pb.h"

// The messages of the store's service from and to the store's own types.
namespace millrace::service {

/// Larger messages are refused by both sides: an append of kAppendBytesMax and what is around it.
inline constexpr int kMessageBytesMax = static_cast<int>(kAppendBytesMax + (64u << 20));

/// The service's address. A socket's path has 107 bytes at most, a store's need not, so the folder
/// is named by a descriptor that stays open as long as the object.
class SocketAddress {
 public:
  /// Errors: kNotFound, kIo.
  static Result<SocketAddress> open(const Path& store);
  ~SocketAddress();
  SocketAddress(SocketAddress&& other) noexcept;
  SocketAddress& operator=(SocketAddress&&) = delete;

  std::string uri() const { return "unix:" + path().string(); }
  Path path() const;

 private:
  explicit SocketAddress(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

v1::StoreIdentity to_message(const StoreId& store);

v1::AppendRequest to_message(const AppendRequest& request, const StoreId& store);
AppendResult from_message(const v1::AppendResponse& response);
v1::AppendResponse to_message(const AppendResult& result);

/// Views into `message`.
class AppendRequestView {
 public:
  explicit AppendRequestView(const v1::AppendRequest& message);
  AppendRequestView(const AppendRequestView&) = delete;
  AppendRequestView& operator=(const AppendRequestView&) = delete;
  const AppendRequest& request() const { return request_; }

 private:
  std::vector<std::vector<NewStreamEvent>> events_;
  std::vector<StreamAppend> streams_;
  AppendRequest request_;
};

/// Of the options what a message can say: not its functions.
v1::CompactRequest to_message(const CompactionOptions& options, const StoreId& store);
CompactionOptions from_message(const v1::CompactRequest& message);
v1::CompactUpdate to_message(const MaintenanceProgress& progress);
v1::CompactUpdate to_message(const CompactionReport& report);
CompactionReport from_message(const v1::CompactUpdate::Report& message);

v1::EraseRequest to_message(const EraseRequest& request, const StoreId& store);
/// Views into `message`.
std::vector<EntityToErase> entities_of(const v1::EraseRequest& message);
v1::EraseReport to_message(const EraseReport& report);
EraseReport from_message(const v1::EraseReport& message);

v1::SnapshotResponse to_message(const StoreCopyReport& report);
StoreCopyReport from_message(const v1::SnapshotResponse& message);

grpc::Status to_status(const Error& error);
/// The error that to_status() made `status` of; else what gRPC itself says: kUnavailable (the
/// outcome is not known), kInvalidArgument (too large).
Error from_status(const grpc::Status& status);

}  // namespace millrace::service
