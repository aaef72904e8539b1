#include "service/shared_store.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <thread>
#include <type_traits>
#include <utility>

#include "base/mutex.h"
#include "eventstore/inspect.h"
#include "millrace/v1/store_service.grpc.pb.h"
#include "service/captured_tables.h"
#include "service/store_server.h"
#include "service/wire.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kConnectTimeout{200}, kPauseMin{2}, kPauseMax{100};
/// A call that so many holders in a row did not survive is not sent to another one.
constexpr int kDeathsMax = 3;
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

  /// Any call of one message and one answer. When `stop` is asked it ends with kCancelled.
  template <typename Request, typename Response>
  Result<void> call(grpc::Status (v1::StoreService::Stub::*method)(grpc::ClientContext*,
                                                                   const Request&, Response*),
                    const Request& request, Response* response,
                    std::optional<std::chrono::milliseconds> patience = {},
                    const std::stop_token& stop = {}) {
    grpc::ClientContext context;
    if (patience) context.set_deadline(std::chrono::system_clock::now() + *patience);
    const std::stop_callback cancel(stop, [&] { context.TryCancel(); });
    return result_of((stub_.*method)(&context, request, response), stop);
  }

  Result<CompactionReport> compact(const CompactionOptions& options, const StoreId& store) {
    grpc::ClientContext context;
    const std::stop_callback cancel(options.stop, [&] { context.TryCancel(); });
    const auto updates = stub_.Compact(&context, service::to_message(options, store));
    std::optional<CompactionReport> report;
    for (v1::CompactUpdate update; updates->Read(&update);) {
      if (update.has_report()) {
        report = service::from_message(update.report());
        if (options.so_far) options.so_far(*report);
      } else if (options.progress) {
        options.progress({.done_bytes = update.progress().done_bytes(),
                          .total_bytes = update.progress().total_bytes()});
      }
    }
    MILLRACE_RETURN_IF_ERROR(result_of(updates->Finish(), options.stop));
    if (!report) return no_report();
    return *std::move(report);
  }

  Result<EraseReport> erase(const EraseRequest& request, const EraseOptions& options,
                            const StoreId& store) {
    grpc::ClientContext context;
    const std::stop_callback cancel(options.stop, [&] { context.TryCancel(); });
    const auto reports = stub_.Erase(&context, service::to_message(request, store));
    std::optional<EraseReport> report;
    for (v1::EraseReport message; reports->Read(&message);) {
      report = service::from_message(message);
      if (options.so_far) options.so_far(*report);
    }
    MILLRACE_RETURN_IF_ERROR(result_of(reports->Finish(), options.stop));
    if (!report) return no_report();
    if (report->entities.size() != request.entities.size())
      return Error(ErrorCode::kUnsupported,
                   "the process that holds the store is of another version of millrace, and "
                   "nothing is known of what it has erased")
          .hint("Start it anew with this version, and erase again.");
    return *report;
  }

 private:
  static Result<void> result_of(const grpc::Status& status, const std::stop_token& stop) {
    if (status.ok()) return {};
    if (stop.stop_requested() && status.error_code() == grpc::StatusCode::CANCELLED)
      return Error(ErrorCode::kCancelled, "asked to stop");
    return service::from_status(status);
  }

  static Error no_report() {
    return Error(ErrorCode::kInternal, "the holder of the store sent no report");
  }

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
  /// `store` is to be given back: what takes long in it ends.
  std::stop_source leaving;
};

/// Errors: kLocked if somebody holds the store who can't be reached.
Result<std::shared_ptr<Way>> hold(const Path& directory, const StoreOptions& options,
                                  std::function<void()> on_yield) {
  auto way = std::make_shared<Way>();
  MILLRACE_ASSIGN_OR_RETURN(way->store, EventStore::open(directory, options));
  way->id = way->store->id();
  MILLRACE_ASSIGN_OR_RETURN(
      way->server,
      StoreServer::start(*way->store, directory,
                         [leaving = way->leaving, on_yield = std::move(on_yield)]() mutable {
                           leaving.request_stop();
                           on_yield();
                         }));
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
        captured_(directory_, *options_.store.files),
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
      if (way->store) {
        MILLRACE_RETURN_IF_ERROR(captured_.refuse(request));
        return way->store->append_durably(request);
      }
      auto result = way->remote->append(service::to_message(request, id_));
      const bool unknown = !result && result.error().code() == ErrorCode::kUnavailable;
      if (!unknown || request.idempotency_key.empty() || Clock::now() >= deadline) return result;
    }
  }

  Result<CompactionReport> compact(const CompactionOptions& options) override {
    CompactionReport before, now;  // by holders that left; by the present one
    CompactionOptions here = options;
    here.merge = {}, here.is_moved = {};  // the same wherever it is done
    here.so_far = [&](const CompactionReport& report) {
      now = report;
      if (options.so_far && !options.dry_run) options.so_far(together(before, now));
    };
    const auto call = [&](Way& way, std::stop_token stop) {
      here.stop = std::move(stop);
      return way.store ? way.store->maintenance().compact(here) : way.remote->compact(here, id_);
    };
    const auto left = [&] { before = together(std::move(before), std::exchange(now, {})); };
    MILLRACE_ASSIGN_OR_RETURN(const auto report,
                              by_holders("compacting", options.stop, true, call, left));
    return together(std::move(before), report);
  }

  Result<EraseReport> erase(const EraseRequest& request, const EraseOptions& options) override {
    EraseReport before, now;
    EraseOptions here = options;
    here.so_far = [&](const EraseReport& report) {
      now = report;
      if (options.so_far) options.so_far(together(before, now));
    };
    const auto call = [&](Way& way, std::stop_token stop) {
      here.stop = std::move(stop);
      return way.store ? way.store->maintenance().erase(request, here)
                       : way.remote->erase(request, here, id_);
    };
    const auto left = [&] { before = together(before, std::exchange(now, {})); };
    MILLRACE_ASSIGN_OR_RETURN(const auto report,
                              by_holders("erasing", options.stop, false, call, left));
    return together(before, report);
  }

  Result<StoreCopyReport> snapshot(const Path& to, const CopyOptions& options) override {
    std::error_code failed;  // the holder works in another folder
    const Path absolute = std::filesystem::absolute(to, failed);
    if (failed) return Error::from_errno(failed.value(), "find the current folder");
    const auto call = [&](Way& way, std::stop_token stop) {
      return copy(way, absolute, {.progress = options.progress, .stop = std::move(stop)});
    };
    return by_holders("the snapshot", options.stop, false, call, [] {});
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

  Result<StoreCopyReport> copy(Way& way, const Path& to, const CopyOptions& options) {
    if (way.store) return way.store->maintenance().snapshot(to, options);
    auto request = with_store<v1::SnapshotRequest>();
    request.set_to(to.string());
    v1::SnapshotResponse response;
    MILLRACE_RETURN_IF_ERROR(
        way.remote->call(&Stub::Snapshot, request, &response, {}, options.stop));
    return service::from_message(response);
  }

  /// Gives `call(way, stop)`, which takes long. Where the holder of the store ends it to make room
  /// for another one, `left()` is called and that one goes on with it; if `again_if_unknown`, also
  /// where the holder died.
  template <typename Call, typename Left>
  auto by_holders(std::string_view what, const std::stop_token& stop, bool again_if_unknown,
                  const Call& call, const Left& left)
      -> std::invoke_result_t<Call, Way&, std::stop_token> {
    int deaths = 0;
    auto pause = kPauseMin;
    for (bool has_left = false;; has_left = true) {
      auto reached = reach();
      if (!reached && !has_left) return std::move(reached).error();
      if (!reached)
        return std::move(reached)
            .error()
            .context(std::string(what) +
                     " was ended to make room for another process (what was done stays done)")
            .hint("Do it again once that process runs: it is then done through it.");
      std::shared_ptr<Way> way = *std::move(reached);
      std::stop_source either;
      const std::stop_callback by_caller(stop, [&] { either.request_stop(); });
      const std::stop_callback by_holder(way->leaving.get_token(), [&] { either.request_stop(); });
      auto result = call(*way, either.get_token());
      if (result || stop.stop_requested()) return result;
      const ErrorCode code = result.error().code();
      const bool died = way->remote && code == ErrorCode::kUnavailable;
      if (code != ErrorCode::kCancelled && !(died && again_if_unknown && ++deaths < kDeathsMax))
        return result;
      spdlog::info("store {}: {} goes on with the next process that holds the store",
                   directory_.string(), what);
      left();
      leave(std::move(way), pause);
      pause = std::min(pause * 2, kPauseMax);
    }
  }

  /// Lets go of a way that leads no further, so that the next call looks for another one.
  void leave(std::shared_ptr<Way> way, std::chrono::milliseconds pause) {
    {
      MutexLock lock(mutex_);
      if (way_ == way && way->remote) way_.reset();
    }
    way.reset();  // closes the store if it is the last to use it
    MutexLock lock(mutex_);
    changed_.wait_until(mutex_, Clock::now() + pause);
  }

  void give_back_when_idle(const std::stop_token& stop) {
    MutexLock lock(mutex_);
    while (!stop.stop_requested()) {
      const bool held = way_ && way_->store;
      if (!held) {
        changed_.wait(mutex_);
      } else if (const auto until = idle_since() + std::max(options_.hold, kPauseMin);
                 !is_leaving() && Clock::now() < until) {
        changed_.wait_until(mutex_, until);
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

  /// Since when the store that is held had nothing to do, for this process or for others.
  Clock::time_point idle_since() const MILLRACE_REQUIRES(mutex_) {
    const auto served = way_->server->idle_since();
    if (way_.use_count() > 1 || !served) return Clock::now();
    return std::max(used_at_, *served);
  }

  /// The store that is held has to be given back.
  bool is_leaving() const MILLRACE_REQUIRES(mutex_) {
    return is_yielding() || way_->leaving.stop_requested();
  }

  bool is_yielding() const MILLRACE_REQUIRES(mutex_) { return Clock::now() < yield_until_; }

  void yield() {
    MutexLock lock(mutex_);
    yield_until_ = Clock::now() + kYieldTime;
    changed_.notify_all();
  }

  /// The way that works now; looks for another one where it does no longer.
  Result<std::shared_ptr<Way>> reach() {
    // What is not wanted goes without the lock: its server waits for calls, and they for the lock.
    std::shared_ptr<Way> found;
    MutexLock lock(mutex_);
    auto pause = kPauseMin;
    for (const auto deadline = Clock::now() + options_.patience;;) {
      used_at_ = Clock::now();
      if (way_ && way_->remote && !way_->remote->is_connected()) way_.reset();
      if (!way_) {
        MILLRACE_ASSIGN_OR_RETURN(found, look());
        if (found && id_ != StoreId{} && found->id != id_)
          return Error(ErrorCode::kFailedPrecondition,
                       directory_.string() + " holds another store now, " + to_string(found->id))
              .hint("Open it anew.");
        way_ = std::move(found);
        if (way_) changed_.notify_all();
      }
      if (way_ && (way_->remote || !is_leaving())) return way_;
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
    return way;
  }

  const Path directory_;
  const SharedStoreOptions options_;
  service::CapturedTables captured_;
  StoreId id_;
  Mutex mutex_;
  ConditionVariable changed_;
  Clock::time_point used_at_ MILLRACE_GUARDED_BY(mutex_);
  Clock::time_point yield_until_ MILLRACE_GUARDED_BY(mutex_){};
  Error locked_ MILLRACE_GUARDED_BY(mutex_){ErrorCode::kLocked,
                                            "somebody else is about to open the store"};
  std::shared_ptr<Way> way_ MILLRACE_GUARDED_BY(mutex_);  // its server uses the others to the end
  std::jthread giver_;                                    // last: it uses all of them
};

}  // namespace

bool ask_to_yield(const Path& directory) {
  auto address = service::SocketAddress::open(directory);
  if (!address) return false;
  Remote holder(*std::move(address));
  v1::Done done;
  // Refused, or nobody there: then whoever opens the store is told who has it.
  return holder.wait_connected() &&
         holder.call(&v1::StoreService::Stub::Yield, v1::YieldRequest(), &done, kConnectTimeout)
             .has_value();
}

Result<std::unique_ptr<SharedStore>> SharedStore::open(const Path& directory,
                                                       SharedStoreOptions options) {
  auto store = std::make_unique<Shared>(directory, std::move(options));
  MILLRACE_RETURN_IF_ERROR(store->start());
  return store;
}

}  // namespace millrace
