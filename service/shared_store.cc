#include "service/shared_store.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <thread>

#include "base/mutex.h"
#include "eventstore/inspect.h"
#include "millrace/v1/store_service.grpc.pb.h"
#include "service/store_server.h"
#include "service/wire.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kConnectTimeout{200}, kPauseMin{2}, kPauseMax{100};

/// The way to the process that holds the store.
class Remote {
 public:
  explicit Remote(service::SocketAddress address)
      : address_(std::move(address)), channel_(connect(address_.uri())), stub_(channel_) {}

  bool wait_connected() {
    return channel_->WaitForConnected(std::chrono::system_clock::now() + kConnectTimeout);
  }
  bool is_connected() { return channel_->GetState(false) == GRPC_CHANNEL_READY; }

  Result<AppendResult> append(const v1::AppendRequest& message) {
    grpc::ClientContext context;
    v1::AppendResponse response;
    const grpc::Status status = stub_.Append(&context, message, &response);
    if (!status.ok()) return service::from_status(status);
    return service::from_message(response);
  }

 private:
  static std::shared_ptr<grpc::Channel> connect(const std::string& uri) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(service::kMessageBytesMax);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // the descriptor in `uri` is ours
    return grpc::CreateCustomChannel(uri, grpc::InsecureChannelCredentials(), arguments);
  }

  service::SocketAddress address_;
  std::shared_ptr<grpc::Channel> channel_;
  v1::StoreService::Stub stub_;
};

/// How the store is reached: one of the two.
struct Way {
  std::unique_ptr<EventStore> store;
  std::unique_ptr<StoreServer> server;  // of `store`
  std::unique_ptr<Remote> remote;
  StoreId id;
};

/// Nothing if somebody holds the store who can't be reached now.
Result<std::shared_ptr<Way>> try_to_reach(const Path& directory, const StoreOptions& options) {
  auto way = std::make_shared<Way>();
  auto store = EventStore::open(directory, options);
  if (store) {
    way->store = *std::move(store);
    way->id = way->store->id();
    MILLRACE_ASSIGN_OR_RETURN(way->server, StoreServer::start(*way->store, directory));
    return way;
  }
  if (store.error().code() != ErrorCode::kLocked) return std::move(store).error();
  MILLRACE_ASSIGN_OR_RETURN(auto address, service::SocketAddress::open(directory));
  way->remote = std::make_unique<Remote>(std::move(address));
  if (!way->remote->wait_connected()) return std::move(store).error();
  MILLRACE_ASSIGN_OR_RETURN(way->id, read_store_id(directory, *options.files));
  return way;
}

class Shared final : public SharedStore {
 public:
  Shared(Path directory, SharedStoreOptions options)
      : directory_(std::move(directory)),
        options_(std::move(options)),
        giver_([this](const std::stop_token& stop) { give_back_when_idle(stop); }) {}

  ~Shared() override {
    giver_.request_stop();
    MutexLock lock(mutex_);
    changed_.notify_all();
  }

  Result<void> start() {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    id_ = way->id;
    return {};
  }

  Result<AppendResult> append_durably(const AppendRequest& request) override {
    for (const auto deadline = Clock::now() + options_.patience;;) {
      MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
      if (way->store) return way->store->append_durably(request);
      auto result = way->remote->append(service::to_message(request, id_));
      const bool unknown = !result && result.error().code() == ErrorCode::kUnavailable;
      if (!unknown || request.idempotency_key.empty() || Clock::now() >= deadline) return result;
    }
  }

  const StoreId& id() const override { return id_; }

 private:
  void give_back_when_idle(const std::stop_token& stop) {
    MutexLock lock(mutex_);
    while (!stop.stop_requested()) {
      const bool held = way_ && way_->store;
      if (!held) {
        changed_.wait(mutex_);
      } else if (const auto until = used_at_ + options_.hold; Clock::now() < until) {
        changed_.wait_until(mutex_, until);
      } else if (way_.use_count() > 1) {
        used_at_ = Clock::now();  // a call is under way
      } else {
        way_.reset();
      }
    }
  }

  /// The way that works now; looks for another one where it does no longer.
  Result<std::shared_ptr<Way>> reach() {
    MutexLock lock(mutex_);
    used_at_ = Clock::now();
    if (way_ && (way_->store || way_->remote->is_connected())) return way_;
    way_.reset();
    auto pause = kPauseMin;
    for (const auto deadline = Clock::now() + options_.patience;;) {
      auto way = try_to_reach(directory_, options_.store);
      if (way && id_ != StoreId{} && (*way)->id != id_)
        return Error(ErrorCode::kFailedPrecondition,
                     directory_.string() + " holds another store now, " + to_string((*way)->id))
            .hint("Open it anew.");
      if (way) {
        used_at_ = Clock::now();
        changed_.notify_all();
        return way_ = *std::move(way);
      }
      if (way.error().code() != ErrorCode::kLocked || Clock::now() >= deadline)
        return std::move(way).error();
      std::this_thread::sleep_for(pause);  // its holder is just starting, or just ending
      pause = std::min(pause * 2, kPauseMax);
    }
  }

  const Path directory_;
  const SharedStoreOptions options_;
  StoreId id_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::shared_ptr<Way> way_ MILLRACE_GUARDED_BY(mutex_);
  Clock::time_point used_at_ MILLRACE_GUARDED_BY(mutex_);
  std::jthread giver_;  // last: it uses all the others
};

}  // namespace

Result<std::unique_ptr<SharedStore>> SharedStore::open(const Path& directory,
                                                       SharedStoreOptions options) {
  auto store = std::make_unique<Shared>(directory, std::move(options));
  MILLRACE_RETURN_IF_ERROR(store->start());
  return store;
}

}  // namespace millrace
