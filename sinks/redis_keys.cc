#include "sinks/redis_keys.h"

#include <spdlog/spdlog.h>

#include <charconv>
#include <deque>
#include <utility>

#include "base/bytes.h"
#include "sinks/open_socket.h"
#include "sinks/redis/connection.h"
#include "sinks/redis/layout.h"

namespace millrace::projections {
namespace {

using redis::Connection;
using redis::Layout;
using redis::Reply;
using redis::ServerAddress;
using redis::Words;

/// Answers are read when so many are under way, since what is not read piles up on both sides; and
/// only until so few are left that the server still has something to do meanwhile: a transaction of
/// a worker's, whose rows are read and sent while the one before it is carried out.
constexpr std::uint64_t kUnansweredMax = 60'000;
constexpr std::uint64_t kUnansweredLeft = 50'000;
/// A first load is committed in portions of so many commands, so that the server need not hold all
/// of it back.
constexpr std::uint64_t kCommandsPerPortion = 20'000;

/// Views that are opened at once are in each other's way but for a moment.
constexpr int kAttemptsMax = 100;

/// A view's checkpoint is a hash of this and its name.
const std::string kCheckpointOf = "millrace.view.";
/// A hash of all views of the database by name, with their Keys. No view has such a name.
const std::string kAllKeys = kCheckpointOf + ".keys";

class RedisSink final : public Sink {
 public:
  RedisSink(const std::string& view, std::shared_ptr<const Layout> layout, std::string server)
      : view_(view),
        meta_(kCheckpointOf + view),
        layout_(std::move(layout)),
        server_(std::move(server)) {}

  Result<std::optional<SinkCheckpoint>> open(const SinkWriter& writer) override {
    writer_ = writer.name;
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(check_server());
    MILLRACE_ASSIGN_OR_RETURN(const Reply known, connection_->call({"HGET", meta_, "keys"}));
    MILLRACE_RETURN_IF_ERROR(check_keys());
    const std::string keys = layout_->describe();
    if (known.text() != keys) {
      MILLRACE_ASSIGN_OR_RETURN(const std::string found, layout_->find_any(*connection_));
      if (!found.empty())
        return Error(ErrorCode::kFailedPrecondition,
                     where_ + ": there is the key '" + printable(found) +
                         "' already, and no view of millrace has written it")
            .hint("Remove such keys, or give the view other ones.");
    }
    MILLRACE_ASSIGN_OR_RETURN(const Reply store, connection_->call({"HGET", meta_, "store_id"}));
    if (!store.is_nil() && store.text() != writer.store_id)
      return of_another_store(where_, std::string(store.text()), writer.store_id);
    MILLRACE_ASSIGN_OR_RETURN(const Reply last, connection_->call({"HGET", meta_, "writer"}));
    if (writer.again && !last.is_nil() && last.text() != writer_) return fenced_off(where_);
    MILLRACE_RETURN_IF_ERROR(take_keys(keys));
    MILLRACE_ASSIGN_OR_RETURN(auto shown, read_checkpoint());
    is_new_ = !shown;
    return shown;
  }

  Result<void> begin() override {
    begin_portion();
    if (!is_new_) return {};
    // Until all is written there is no checkpoint, and so no view.
    send({"HDEL", meta_, "lineage"});
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    MILLRACE_RETURN_IF_ERROR(finish());
    for (bool more = true; more;) {
      MILLRACE_ASSIGN_OR_RETURN(more, clear_portion());
    }
    begin_portion();
    return {};
  }

  Result<void> write(const SinkRow& row) override {
    MILLRACE_RETURN_IF_ERROR(layout_->write(row, [&](const Words& words) { send(words); }));
    MILLRACE_RETURN_IF_ERROR(make_room());
    if (!is_new_ || sent_ - begun_ < kCommandsPerPortion) return {};
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    begin_portion();
    return {};
  }

  Result<void> checkpoint(const SinkCheckpoint& checkpoint) override {
    const std::string commit = std::to_string(checkpoint.commit),
                      offset = std::to_string(checkpoint.offset.value), shape = layout_->shape();
    send({"HSET", meta_, "store_id", checkpoint.store_id, "lineage", checkpoint.lineage, "commit",
          commit, "offset", offset, "shape", shape});
    return {};
  }

  Result<void> commit() override {
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    is_new_ = false;
    return {};
  }

  Result<void> finish() override { return receive_until(0); }

  Result<std::optional<SinkCheckpoint>> position() override {
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(finish());
    MILLRACE_RETURN_IF_ERROR(check_server());
    return read_checkpoint();
  }

  Result<void> read(const Visit& visit) override {
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(finish());
    return layout_->read(*connection_, visit);
  }

  void interrupt() override { socket_.shut_down(); }

 private:
  Result<void> connect() {
    if (connection_) return {};
    MILLRACE_ASSIGN_OR_RETURN(const auto address, ServerAddress::parse(server_));
    where_ = layout_->describe() + " of " + address.describe();
    MILLRACE_ASSIGN_OR_RETURN(connection_, Connection::open(address));
    socket_.is(connection_->socket());
    return connection_->log_in(address);
  }

  /// A server that forgets keys at its own choice would show a view with holes in it.
  Result<void> check_server() {
    const auto config = connection_->call({"CONFIG", "GET", "maxmemory-policy"});
    if (!config) {
      if (config.error().code() == ErrorCode::kUnavailable) return config.error();
      if (!std::exchange(warned_, true))
        spdlog::warn("{}: can't ask for its maxmemory-policy ({}); it must be noeviction", where_,
                     config.error().message());
      return {};
    }
    const std::string policy(config->size() == 2 ? config->at(1).text() : std::string_view());
    if (policy.empty() || policy == "noeviction") return {};
    return Error(ErrorCode::kFailedPrecondition, where_ + ": its maxmemory-policy is " +
                                                     printable(policy) +
                                                     ", so it may drop keys of the view")
        .hint("CONFIG SET maxmemory-policy noeviction, or use a Redis of its own.");
  }

  /// Two views whose keys may be the same would take each other's rows for their own.
  Result<void> check_keys() {
    const redis::Keys keys = layout_->keys();
    auto all = connection_->call({"HGETALL", kAllKeys});
    if (!all) {
      if (all.error().code() == ErrorCode::kUnavailable) return all.error();
      return std::move(all).error().hint(
          "The user needs the keys millrace.view.* as well as those of the view.");
    }
    for (std::size_t i = 0; i + 1 < all->size(); i += 2) {
      const std::string other(all->at(i).text());
      const std::string_view others = all->at(i + 1).text();
      if (other == view_ || !keys.may_be_of(redis::Keys::decoded(others))) continue;
      MILLRACE_ASSIGN_OR_RETURN(const Reply is_kept,
                                connection_->call({"EXISTS", kCheckpointOf + other}));
      if (is_kept.integer() == 0) continue;
      return Error(ErrorCode::kFailedPrecondition,
                   where_ + ": its keys may be those of view " + printable(other) + ", " +
                       printable(others.substr(1)) + (others.starts_with('*') ? "*" : ""))
          .hint(
              "Give one of them another .prefix or .key. If that view is kept here no more: DEL " +
              kCheckpointOf + printable(other));
    }
    return {};
  }

  /// Of two that come at once, one sees the other: what was looked at is as it was, or is looked at
  /// again.
  Result<void> take_keys(const std::string& described) {
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      MILLRACE_RETURN_IF_ERROR(connection_->call({"WATCH", kAllKeys}));
      if (auto checked = check_keys(); !checked) {
        static_cast<void>(connection_->call({"UNWATCH"}));
        return checked;
      }
      MILLRACE_RETURN_IF_ERROR(connection_->call({"MULTI"}));
      MILLRACE_RETURN_IF_ERROR(
          connection_->call({"HSET", kAllKeys, view_, layout_->keys().encoded()}));
      MILLRACE_RETURN_IF_ERROR(
          connection_->call({"HSET", meta_, "writer", writer_, "keys", described}));
      MILLRACE_ASSIGN_OR_RETURN(const Reply done, connection_->call({"EXEC"}));
      if (!done.is_nil()) return check_done(done);
    }
    return Error(ErrorCode::kUnavailable, where_ + ": other views take their keys all the while");
  }

  Result<std::optional<SinkCheckpoint>> read_checkpoint() {
    MILLRACE_ASSIGN_OR_RETURN(
        const Reply meta,
        connection_->call({"HMGET", meta_, "store_id", "lineage", "commit", "offset", "shape"}));
    for (std::size_t i = 0; i < meta.size(); ++i)
      if (meta.at(i).is_nil()) return std::optional<SinkCheckpoint>();
    if (meta.at(4).text() != layout_->shape()) return std::optional<SinkCheckpoint>();
    const auto number = [&](std::size_t place) {
      std::uint64_t value = 0;
      const std::string_view text = meta.at(place).text();
      std::from_chars(text.data(), text.data() + text.size(), value);
      return value;
    };
    return std::optional(SinkCheckpoint{std::string(meta.at(0).text()),
                                        std::string(meta.at(1).text()), number(2),
                                        Offset{number(3)}});
  }

  /// Somebody else's key is left alone, and one that is gone is not made anew here.
  Result<void> check_writer(const Reply& writer) const {
    if (writer.is_nil())
      return Error(ErrorCode::kUnavailable, where_ +
                                                ": its checkpoint is gone: Redis was emptied, "
                                                "or has lost what it had");
    return writer.text() == writer_ ? Result<void>{} : Result<void>(fenced_off(where_));
  }

  void send(const Words& words, Layout::Answer look = {}) {
    connection_->send(words);
    ++sent_;
    if (look) looks_.emplace_back(sent_, std::move(look));
  }

  /// Until so many are left.
  Result<void> receive_until(std::uint64_t left) {
    while (connection_->unanswered() > left) {
      MILLRACE_ASSIGN_OR_RETURN(const Reply reply, connection_->receive());
      if (looks_.empty() || looks_.front().first + connection_->unanswered() != sent_) continue;
      const Layout::Answer look = std::move(looks_.front().second);
      looks_.pop_front();
      MILLRACE_RETURN_IF_ERROR(look(reply));
    }
    return {};
  }

  Result<void> make_room() {
    return connection_->unanswered() < kUnansweredMax ? Result<void>{}
                                                      : receive_until(kUnansweredLeft);
  }

  /// May be sent while the portion before it is under way: the server sees one after the other.
  void begin_portion() {
    send({"WATCH", meta_});
    send({"HGET", meta_, "writer"}, [this](const Reply& writer) { return check_writer(writer); });
    layout_->check_types(
        [this](const Words& words, Layout::Answer look) { send(words, std::move(look)); });
    send({"MULTI"});
    begun_ = sent_;
  }

  /// Once it is known that the portion before it is there, and this one may be.
  Result<void> commit_portion() {
    MILLRACE_RETURN_IF_ERROR(receive_until(sent_ - begun_));
    send({"EXEC"}, [this](const Reply& done) { return check_done(done); });
    connection_->push();
    return {};
  }

  Result<void> check_done(const Reply& done) {
    if (done.is_nil()) return was_touched();
    for (std::size_t i = 0; i < done.size(); ++i)
      MILLRACE_RETURN_IF_ERROR(connection_->checked(done.at(i)));
    return {};
  }

  /// Who has written to the checkpoint since WATCH?
  Error was_touched() {
    // What was sent behind it is of no interest, and its transaction must not be.
    while (connection_->unanswered() > 0)
      if (auto reply = connection_->receive();
          !reply && reply.error().code() == ErrorCode::kUnavailable)
        return reply.error();
    looks_.clear();
    static_cast<void>(connection_->call({"DISCARD"}));  // an error where none had begun
    const auto writer = connection_->call({"HGET", meta_, "writer"});
    if (!writer) return writer.error();
    if (auto mine = check_writer(*writer); !mine) return std::move(mine).error();
    return {ErrorCode::kUnavailable, where_ + ": its checkpoint was touched meanwhile"};
  }

  /// False if nothing was left to clear.
  Result<bool> clear_portion() {
    std::vector<std::vector<std::string>> commands;
    MILLRACE_ASSIGN_OR_RETURN(const bool some,
                              layout_->clear_some(*connection_, [&](const Words& words) {
                                commands.emplace_back(words.begin(), words.end());
                              }));
    if (!some) return false;
    begin_portion();
    for (const auto& command : commands) {
      send(Words(command.begin(), command.end()));
      MILLRACE_RETURN_IF_ERROR(make_room());
    }
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    MILLRACE_RETURN_IF_ERROR(finish());
    return true;
  }

  const std::string view_, meta_;
  const std::shared_ptr<const Layout> layout_;
  const std::string server_;
  std::string where_;
  std::string writer_;
  bool warned_ = false;  ///< Of a server that does not tell its policy.
  std::unique_ptr<Connection> connection_;
  OpenSocket socket_;  // goes before the connection
  bool is_new_ = false;
  std::uint64_t sent_ = 0;                                      ///< Commands of transactions.
  std::uint64_t begun_ = 0;                                     ///< sent_ as of the last MULTI.
  std::deque<std::pair<std::uint64_t, Layout::Answer>> looks_;  ///< By the number of the command.
};

/// `make_layout` gives what stands where, for the rows as `narrow` leaves them.
class RedisKind final : public SinkKind {
 public:
  using Narrow = std::function<SinkShape(SinkShape)>;
  using Check = std::function<Result<void>(const SinkShape&)>;
  using MakeLayout = std::function<std::shared_ptr<const Layout>(const SinkShape&)>;

  RedisKind(std::string server, Narrow narrow, Check check, MakeLayout make_layout)
      : server_(std::move(server)),
        narrow_(std::move(narrow)),
        check_(std::move(check)),
        make_layout_(std::move(make_layout)) {}

  SinkShape kept(SinkShape shape) const override { return narrow_(std::move(shape)); }
  Result<void> check(const SinkShape& shape) const override {
    MILLRACE_RETURN_IF_ERROR(ServerAddress::parse(server_));
    return check_(shape);
  }
  std::string describe(const SinkShape& shape) const override {
    const auto address = ServerAddress::parse(server_);
    return make_layout_(shape)->describe() + " of " + (address ? address->describe() : "no server");
  }
  std::unique_ptr<Sink> make(const SinkShape& shape) const override {
    return std::make_unique<RedisSink>(shape.view, make_layout_(shape), server_);
  }

 private:
  const std::string server_;
  const Narrow narrow_;
  const Check check_;
  const MakeLayout make_layout_;
};

std::string or_view(const std::string& key, const SinkShape& shape) {
  return key.empty() ? shape.view : key;
}

Result<void> check_key(const std::string& key) {
  if (!key.starts_with(kCheckpointOf)) return {};
  return Error(ErrorCode::kInvalidArgument,
               "its sink's keys begin with millrace.view., where the "
               "checkpoints are");
}

}  // namespace

std::shared_ptr<const SinkKind> redis_hashes(RedisHashesOptions options) {
  return std::make_shared<RedisKind>(
      options.server, [](SinkShape shape) { return shape; },
      [options](const SinkShape&) -> Result<void> {
        if (kCheckpointOf.starts_with(options.prefix) && !options.prefix.empty())
          return check_key(kCheckpointOf);
        return check_key(options.prefix);
      },
      [options](const SinkShape& shape) -> std::shared_ptr<const Layout> {
        return redis::hashes(shape, options.prefix);
      });
}

std::shared_ptr<const SinkKind> redis_set(RedisSetOptions options) {
  return std::make_shared<RedisKind>(
      options.server,
      [](SinkShape shape) {
        shape.columns.clear();
        return shape;
      },
      [options](const SinkShape&) { return check_key(options.key); },
      [options](const SinkShape& shape) -> std::shared_ptr<const Layout> {
        return redis::set(or_view(options.key, shape));
      });
}

std::shared_ptr<const SinkKind> redis_sorted_set(RedisSortedSetOptions options) {
  return std::make_shared<RedisKind>(
      options.server,
      [options](SinkShape shape) {
        std::erase_if(shape.columns,
                      [&](const Column& column) { return column.name != options.score; });
        for (Column& score : shape.columns) score.type = ColumnType::kNumeric;  // to be compared
        return shape;
      },
      [options](const SinkShape& shape) -> Result<void> {
        if (shape.columns.size() != 1)
          return Error(ErrorCode::kInvalidArgument, "its sink is to be sorted by '" +
                                                        printable(options.score) +
                                                        "', which is no column")
              .hint("Name one: redis_sorted_set({.score = \"spent\"}).");
        return check_key(options.key);
      },
      [options](const SinkShape& shape) -> std::shared_ptr<const Layout> {
        return redis::sorted_set(shape, or_view(options.key, shape));
      });
}

}  // namespace millrace::projections
