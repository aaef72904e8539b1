#include "service/shared_store.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stop_token>
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
/// For so long one that was asked to yield leaves the store alone.
constexpr std::chrono::seconds kYieldTime{1};

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
    v1::AppendResponse response;
    MILLRACE_RETURN_IF_ERROR(call(&v1::StoreService::Stub::Append, message, &response));
    return service::from_message(response);
  }

  /// Any call of one message and one answer.
  template <typename Request, typename Response>
  Result<void> call(grpc::Status (v1::StoreService::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                    const Request& request, Response* response,
                    std::optional<std::chrono::milliseconds> patience = {}) {
    grpc::ClientContext context;
    if (patience) context.set_deadline(std::chrono::system_clock::now() + *patience);
    const grpc::Status status = (stub_.*method)(&context, request, response);
    if (!status.ok()) return service::from_status(status);
    return {};
  }

  Result<CompactionReport> compact(const CompactionOptions& options, const StoreId& store) {
    grpc::ClientContext context;
    const std::stop_callback cancel(options.stop, [&] { context.TryCancel(); });
    const auto updates = stub_.Compact(&context, service::to_message(options, store));
    std::optional<CompactionReport> report;
    for (v1::CompactUpdate update; updates->Read(&update);) {
      if (update.has_report())
        report = service::from_message(update.report());
      else if (options.progress)
        options.progress({.done_bytes = update.progress().done_bytes(),
                          .total_bytes = update.progress().total_bytes()});
    }
    const grpc::Status status = updates->Finish();
    if (options.stop.stop_requested() && status.error_code() == grpc::StatusCode::CANCELLED)
      return Error(ErrorCode::kCancelled, "asked to stop");
    if (!status.ok()) return service::from_status(status);
    if (!report) return Error(ErrorCode::kInternal, "the holder of the store sent no report");
    return *std::move(report);
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

/// Errors: kLocked if somebody holds the store who can't be reached.
Result<std::shared_ptr<Way>> hold(const Path& directory, const StoreOptions& options,
                                  std::function<void()> on_yield) {
  auto way = std::make_shared<Way>();
  MILLRACE_ASSIGN_OR_RETURN(way->store, EventStore::open(directory, options));
  way->id = way->store->id();
  MILLRACE_ASSIGN_OR_RETURN(way->server,
                            StoreServer::start(*way->store, directory, std::move(on_yield)));
  return way;
}

/// Nothing if nobody answers.
Result<std::shared_ptr<Way>> ask(const Path& directory, FileSystem& files) {
  auto way = std::make_shared<Way>();
  MILLRACE_ASSIGN_OR_RETURN(auto address, service::SocketAddress::open(directory));
  way->remote = std::make_unique<Remote>(std::move(address));
  if (!way->remote->wait_connected()) return std::shared_ptr<Way>();
  MILLRACE_ASSIGN_OR_RETURN(way->id, read_store_id(directory, files));
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

  Result<CompactionReport> compact(const CompactionOptions& options) override {
    MILLRACE_ASSIGN_OR_RETURN(auto way, reach());
    while (way->remote) {
      auto report = way->remote->compact(options, id_);
      const bool left = !report && (report.error().code() == ErrorCode::kCancelled ||
                                    report.error().code() == ErrorCode::kUnavailable);
      if (!left || options.stop.stop_requested()) return report;
      // Its holder went; what it had not done yet is still to do.
      way.reset();
      MILLRACE_ASSIGN_OR_RETURN(way, reach());
    }
    CompactionOptions here = options;
    here.merge = {}, here.is_moved = {};  // the same wherever it is done
    return way->store->maintenance().compact(here);
  }

  Result<EraseReport> erase(const EraseRequest& request) override {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    if (way->store) return way->store->maintenance().erase(request);
    v1::EraseResponse response;
    MILLRACE_RETURN_IF_ERROR(
        way->remote->call(&Stub::Erase, service::to_message(request, id_), &response));
    return service::from_message(response);
  }

  Result<StoreCopyReport> snapshot(const Path& to) override {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    if (way->store) return way->store->maintenance().snapshot(to);
    std::error_code failed;  // the holder works in another folder
    const Path absolute = std::filesystem::absolute(to, failed);
    if (failed) return Error::from_errno(failed.value(), "find the current folder");
    auto request = with_store<v1::SnapshotRequest>();
    request.set_to(absolute.string());
    v1::SnapshotResponse response;
    MILLRACE_RETURN_IF_ERROR(way->remote->call(&Stub::Snapshot, request, &response));
    return service::from_message(response);
  }

  Result<void> register_consumer(std::string_view name, Offset offset,
                                 ConsumerPolicy policy) override {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    if (way->store) return way->store->maintenance().register_consumer(name, offset, policy);
    auto request = with_store<v1::RegisterConsumerRequest>();
    request.set_name(std::string(name));
    request.set_offset(offset.value);
    request.set_when_late(policy == ConsumerPolicy::kLose ? v1::RegisterConsumerRequest::LOSE
                                                          : v1::RegisterConsumerRequest::HOLD);
    v1::Done done;
    return way->remote->call(&Stub::RegisterConsumer, request, &done);
  }

  Result<void> advance_consumer(std::string_view name, Offset offset) override {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    if (way->store) return way->store->maintenance().advance_consumer(name, offset);
    auto request = with_store<v1::AdvanceConsumerRequest>();
    request.set_name(std::string(name));
    request.set_offset(offset.value);
    v1::Done done;
    return way->remote->call(&Stub::AdvanceConsumer, request, &done);
  }

  Result<void> remove_consumer(std::string_view name) override {
    MILLRACE_ASSIGN_OR_RETURN(const auto way, reach());
    if (way->store) return way->store->maintenance().remove_consumer(name);
    auto request = with_store<v1::RemoveConsumerRequest>();
    request.set_name(std::string(name));
    v1::Done done;
    return way->remote->call(&Stub::RemoveConsumer, request, &done);
  }

  const StoreId& id() const override { return id_; }

 private:
  using Stub = v1::StoreService::Stub;

  template <typename Request>
  Request with_store() const {
    Request request;
    *request.mutable_store() = service::to_message(id_);
    return request;
  }

  void give_back_when_idle(const std::stop_token& stop) {
    MutexLock lock(mutex_);
    while (!stop.stop_requested()) {
      const bool held = way_ && way_->store;
      if (!held) {
        changed_.wait(mutex_);
      } else if (const auto until = used_at_ + options_.hold;
                 !is_yielding() && Clock::now() < until) {
        changed_.wait_until(mutex_, until);
      } else if (way_.use_count() > 1 && !is_yielding()) {
        used_at_ = Clock::now();  // a call is under way
      } else {
        // Whoever still uses it ends what he does. The lock is not kept: the server waits for
        // calls.
        auto given = std::move(way_);
        mutex_.unlock();
        given.reset();
        mutex_.lock();
      }
    }
  }

  bool is_yielding() const MILLRACE_REQUIRES(mutex_) { return Clock::now() < yield_until_; }

  void yield() {
    MutexLock lock(mutex_);
    yield_until_ = Clock::now() + kYieldTime;
    changed_.notify_all();
  }

  /// The way that works now; looks for another one where it does no longer.
  Result<std::shared_ptr<Way>> reach() {
    MutexLock lock(mutex_);
    auto pause = kPauseMin;
    for (const auto deadline = Clock::now() + options_.patience;;) {
      used_at_ = Clock::now();
      if (way_ && way_->remote && !way_->remote->is_connected()) way_.reset();
      if (!way_) {
        MILLRACE_ASSIGN_OR_RETURN(way_, look());
        if (way_) changed_.notify_all();
      }
      if (way_ && (way_->remote || !is_yielding())) return way_;
      if (Clock::now() >= deadline) return locked_;
      changed_.wait_until(mutex_, Clock::now() + pause);  // its holder is just starting, or ending
      pause = std::min(pause * 2, kPauseMax);
    }
  }

  /// Nothing if the store can't be had now.
  Result<std::shared_ptr<Way>> look() MILLRACE_REQUIRES(mutex_) {
    std::shared_ptr<Way> way;
    if (!is_yielding()) {
      auto held = hold(directory_, options_.store, [this] { yield(); });
      if (!held && held.error().code() != ErrorCode::kLocked) return held;
      if (held)
        way = *std::move(held);
      else
        locked_ = std::move(held).error();
    }
    if (!way) {
      MILLRACE_ASSIGN_OR_RETURN(way, ask(directory_, *options_.store.files));
    }
    if (way && id_ != StoreId{} && way->id != id_)
      return Error(ErrorCode::kFailedPrecondition,
                   directory_.string() + " holds another store now, " + to_string(way->id))
          .hint("Open it anew.");
    return way;
  }

  const Path directory_;
  const SharedStoreOptions options_;
  StoreId id_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::shared_ptr<Way> way_ MILLRACE_GUARDED_BY(mutex_);
  Clock::time_point used_at_ MILLRACE_GUARDED_BY(mutex_);
  Clock::time_point yield_until_ MILLRACE_GUARDED_BY(mutex_){};
  Error locked_ MILLRACE_GUARDED_BY(mutex_){ErrorCode::kLocked,
                                            "somebody else is about to open the store"};
  std::jthread giver_;  // last: it uses all the others
};

}  // namespace

void ask_to_yield(const Path& directory) {
  auto address = service::SocketAddress::open(directory);
  if (!address) return;
  Remote holder(*std::move(address));
  v1::Done done;
  // Refused, or nobody there: then whoever opens the store is told who has it.
  if (holder.wait_connected())
    static_cast<void>(
        holder.call(&v1::StoreService::Stub::Yield, v1::YieldRequest(), &done, kConnectTimeout));
}

Result<std::unique_ptr<SharedStore>> SharedStore::open(const Path& directory,
                                                       SharedStoreOptions options) {
  auto store = std::make_unique<Shared>(directory, std::move(options));
  MILLRACE_RETURN_IF_ERROR(store->start());
  return store;
}

}  // namespace millrace
