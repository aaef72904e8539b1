#include "service/store_server.h"

#include <errno.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <stop_token>
#include <type_traits>
#include <utility>

#include "base/mutex.h"
#include "millrace/v1/store_service.grpc.pb.h"
#include "service/captured_tables.h"
#include "service/updates.h"
#include "service/wire.h"

namespace millrace {
namespace {

using Time = std::chrono::steady_clock::time_point;

/// Each call has a thread while it waits for the disk. More wait in line.
constexpr int kThreadsMax = 128;
constexpr std::chrono::seconds kGrace{5};

/// So often a client is told how far a long call is.
constexpr std::chrono::milliseconds kProgressInterval{200};

/// gRPC's threads call these, several at once: so does EventStore allow it.
class Service final : public v1::StoreService::Service {
 public:
  Service(EventStore& store, const Path& directory, std::function<void()> on_yield)
      : store_(store), captured_(directory, FileSystem::real()), on_yield_(std::move(on_yield)) {}

  /// Long calls end soon.
  void stop() { stopping_ = true; }

  grpc::Status Append(grpc::ServerContext*, const v1::AppendRequest* message,
                      v1::AppendResponse* response) override {
    return answer(message->store(), response, [&]() -> Result<AppendResult> {
      const service::AppendRequestView view(*message);
      MILLRACE_RETURN_IF_ERROR(captured_.refuse(view.request()));
      return store_.append_durably(view.request());
    });
  }

  grpc::Status Compact(grpc::ServerContext* context, const v1::CompactRequest* message,
                       grpc::ServerWriter<v1::CompactUpdate>* writer) override {
    v1::CompactUpdate last;
    const grpc::Status status = answer(message->store(), &last, [&] {
      service::Updates<v1::CompactUpdate> updates(kProgressInterval, [&](const auto& update) {
        writer->Write(update);  // false: the client has gone, which the call notices
      });
      CompactionOptions options = service::from_message(*message);
      options.so_far = [&](const CompactionReport& report) {
        updates.tell(updates.kReport, service::to_message(report));
      };
      watch(*context, options, [&](const MaintenanceProgress& progress) {
        updates.tell(updates.kProgress, service::to_message(progress));
      });
      return store_.maintenance().compact(options);
    });
    if (status.ok()) writer->Write(last);
    return status;
  }

  grpc::Status Erase(grpc::ServerContext* context, const v1::EraseRequest* message,
                     grpc::ServerWriter<v1::EraseReport>* writer) override {
    v1::EraseReport last;
    const grpc::Status status = answer(message->store(), &last, [&] {
      service::Updates<v1::EraseReport> updates(kProgressInterval,
                                                [&](const auto& update) { writer->Write(update); });
      EraseOptions options;
      options.so_far = [&](const EraseReport& report) {
        updates.tell(updates.kReport, service::to_message(report));
      };
      watch(*context, options);
      const auto entities = service::entities_of(*message);
      return store_.maintenance().erase({.category = message->category(), .entities = entities},
                                        options);
    });
    if (status.ok()) writer->Write(last);
    return status;
  }

  grpc::Status Snapshot(grpc::ServerContext* context, const v1::SnapshotRequest* message,
                        v1::SnapshotResponse* response) override {
    return answer(message->store(), response, [&] {
      CopyOptions options;
      watch(*context, options);
      return store_.maintenance().snapshot(message->to(), options);
    });
  }

  grpc::Status RegisterConsumer(grpc::ServerContext*, const v1::RegisterConsumerRequest* message,
                                v1::Done* response) override {
    return answer(message->store(), response, [&] {
      return store_.maintenance().register_consumer(
          message->name(), {message->offset()},
          message->when_late() == v1::RegisterConsumerRequest::LOSE ? ConsumerPolicy::kLose
                                                                    : ConsumerPolicy::kHold);
    });
  }

  grpc::Status AdvanceConsumer(grpc::ServerContext*, const v1::AdvanceConsumerRequest* message,
                               v1::Done* response) override {
    return answer(message->store(), response, [&] {
      return store_.maintenance().advance_consumer(message->name(), {message->offset()});
    });
  }

  grpc::Status RemoveConsumer(grpc::ServerContext*, const v1::RemoveConsumerRequest* message,
                              v1::Done* response) override {
    return answer(message->store(), response,
                  [&] { return store_.maintenance().remove_consumer(message->name()); });
  }

  grpc::Status Yield(grpc::ServerContext*, const v1::YieldRequest*, v1::Done*) override {
    if (!on_yield_)
      return service::to_status(Error(ErrorCode::kFailedPrecondition, "the store is in use"));
    stop();
    on_yield_();
    return grpc::Status::OK;
  }

  std::optional<Time> idle_since() const {
    MutexLock lock(mutex_);
    if (calls_ != 0) return std::nullopt;
    return idle_since_;
  }

 private:
  /// Lets a long call end when its client has gone, or has given up, and when the service ends.
  template <typename Options>
  void watch(grpc::ServerContext& context, Options& options, ProgressFunction tell = {}) {
    auto stop = std::make_shared<std::stop_source>();
    options.stop = stop->get_token();
    options.progress = [this, &context, stop,
                        tell = std::move(tell)](const MaintenanceProgress& progress) {
      if (context.IsCancelled() || stopping_) stop->request_stop();
      if (tell) tell(progress);
    };
  }

  template <typename Message, typename Call>
  grpc::Status answer(const v1::StoreIdentity& identity, Message* response, Call call) {
    if (const auto here = check_store(identity); !here) return service::to_status(here.error());
    const Busy busy(*this);
    const auto result = call();
    if (!result) return service::to_status(result.error());
    if constexpr (!std::is_same_v<Message, v1::Done>) *response = service::to_message(*result);
    return grpc::Status::OK;
  }

  Result<void> check_store(const v1::StoreIdentity& identity) const {
    const StoreId& id = store_.id();
    if (identity.id() == std::string_view(id.bytes.data(), id.bytes.size())) return {};
    return Error(ErrorCode::kFailedPrecondition,
                 "the store in this folder is another one now, " + to_string(id))
        .hint("Open it anew.");
  }

  /// A call that is being served.
  class Busy {
   public:
    explicit Busy(Service& service) : service_(service) {
      MutexLock lock(service_.mutex_);
      ++service_.calls_;
    }
    ~Busy() {
      MutexLock lock(service_.mutex_);
      --service_.calls_;
      service_.idle_since_ = std::chrono::steady_clock::now();
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Service& service_;
  };

  EventStore& store_;
  service::CapturedTables captured_;
  const std::function<void()> on_yield_;
  std::atomic<bool> stopping_ = false;
  mutable Mutex mutex_;
  int calls_ MILLRACE_GUARDED_BY(mutex_) = 0;
  Time idle_since_ MILLRACE_GUARDED_BY(mutex_) = std::chrono::steady_clock::now();
};

class Server final : public StoreServer {
 public:
  Server(EventStore& store, const Path& directory, service::SocketAddress address,
         std::function<void()> on_yield)
      : address_(std::move(address)), service_(store, directory, std::move(on_yield)) {}

  ~Server() override {
    service_.stop();
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + kGrace);
  }

  std::optional<Time> idle_since() const override { return service_.idle_since(); }

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

Result<std::unique_ptr<StoreServer>> StoreServer::start(EventStore& store, const Path& directory,
                                                        std::function<void()> on_yield) {
  MILLRACE_ASSIGN_OR_RETURN(auto address, service::SocketAddress::open(directory));
  auto server = std::make_unique<Server>(store, directory, std::move(address), std::move(on_yield));
  if (auto started = server->start(); !started)
    return std::move(started).error().context("serve store " + directory.string());
  return server;
}

}  // namespace millrace
