#include "service/store_server.h"

#include <errno.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <chrono>

#include "millrace/v1/store_service.grpc.pb.h"
#include "service/wire.h"

namespace millrace {
namespace {

/// Each call has a thread while it waits for the disk. More wait in line.
constexpr int kThreadsMax = 128;
constexpr std::chrono::seconds kGrace{5};

/// gRPC's threads call these, several at once: so does EventStore allow it.
class Service final : public v1::StoreService::Service {
 public:
  explicit Service(EventStore& store) : store_(store) {}

  grpc::Status Append(grpc::ServerContext*, const v1::AppendRequest* message,
                      v1::AppendResponse* response) override {
    if (const auto here = check_store(message->store()); !here)
      return service::to_status(here.error());
    const service::AppendRequestView view(*message);
    const auto result = store_.append_durably(view.request());
    if (!result) return service::to_status(result.error());
    *response = service::to_message(*result);
    return grpc::Status::OK;
  }

 private:
  Result<void> check_store(const v1::StoreIdentity& identity) const {
    const StoreId& id = store_.id();
    if (identity.id() == std::string_view(id.bytes.data(), id.bytes.size())) return {};
    return Error(ErrorCode::kFailedPrecondition,
                 "the store in this folder is another one now, " + to_string(id))
        .hint("Open it anew.");
  }

  EventStore& store_;
};

class Server final : public StoreServer {
 public:
  Server(EventStore& store, service::SocketAddress address)
      : address_(std::move(address)), service_(store) {}

  ~Server() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + kGrace);
  }

  Result<void> start() {
    grpc::ServerBuilder builder;
    grpc::ResourceQuota quota;
    quota.SetMaxThreads(kThreadsMax);
    builder.SetResourceQuota(quota);
    builder.SetMaxReceiveMessageSize(service::kMessageBytesMax);
    builder.AddListeningPort(address_.uri(), grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_)
      return Error(ErrorCode::kIo, "can't listen on the socket service.sock in the store's folder")
          .hint("Other processes could not append while this one runs. Is the folder writable?");
    if (::chmod(address_.path().c_str(), S_IRUSR | S_IWUSR) != 0)
      return Error::from_errno(errno, "chmod service.sock");
    return {};
  }

 private:
  service::SocketAddress address_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<StoreServer>> StoreServer::start(EventStore& store, const Path& directory) {
  MILLRACE_ASSIGN_OR_RETURN(auto address, service::SocketAddress::open(directory));
  auto server = std::make_unique<Server>(store, std::move(address));
  if (auto started = server->start(); !started)
    return std::move(started).error().context("serve store " + directory.string());
  return server;
}

}  // namespace millrace
