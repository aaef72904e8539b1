#include "sinks/redis_keys.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/bytes.h"
#include "projections/decimal.h"
#include "sinks/open_socket.h"
#include "sinks/redis/connection.h"

namespace millrace::projections {
namespace {

using redis::Connection;
using redis::Reply;
using redis::ServerAddress;
using redis::Words;

/// Answers are read when so many are under way, since what is not read piles up on both sides; and
/// only until so few are left that the server still has something to do meanwhile.
constexpr std::size_t kUnansweredMax = 4'000;
constexpr std::size_t kUnansweredLeft = 2'000;
/// A first load is committed in portions of so many commands, so that the server need not hold all
/// of it back.
constexpr std::size_t kCommandsPerPortion = 20'000;
constexpr std::string_view kKeysPerScan = "5000";

/// `text` as a pattern that matches nothing else.
std::string as_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("*?[]\\^-").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/// How the rows of a view stand in Redis. Threads: may be used by several at once.
class Layout {
 public:
  using Send = std::function<void(const Words&)>;
  using Visit = Sink::Visit;

  virtual ~Layout() = default;
  /// Changes when the same rows are to be written otherwise.
  virtual std::string shape() const = 0;
  virtual std::string describe() const = 0;
  virtual Result<void> write(const SinkRow& row, const Send& send) const = 0;
  /// Some key that is there already; empty if none is.
  virtual Result<std::string> find_any(Connection& connection) const = 0;
  /// Sends what removes everything, or a part of it: false when nothing was left.
  virtual Result<bool> clear_some(Connection& connection, const Send& send) const = 0;
  virtual Result<void> read(Connection& connection, const Visit& visit) const = 0;
  /// Keys whose type must be right before a transaction, since Redis goes on after an error in it.
  virtual Result<void> check_types(Connection&) const { return {}; }
};

/// Calls `visit` with the pages of a SCAN or one of its kin.
Result<void> scan(Connection& connection, Words command, std::size_t cursor_place,
                  const std::function<Result<bool>(const Reply& page)>& visit) {
  std::string cursor = "0";
  do {
    command[cursor_place] = cursor;
    MILLRACE_ASSIGN_OR_RETURN(const Reply reply, connection.call(command));
    cursor = reply.at(0).text();
    MILLRACE_ASSIGN_OR_RETURN(const bool goes_on, visit(reply.at(1)));
    if (!goes_on) break;
  } while (cursor != "0");
  return {};
}

class Hashes final : public Layout {
 public:
  Hashes(SinkShape shape, std::string prefix)
      : shape_(std::move(shape)), prefix_(prefix.empty() ? shape_.view + ":" : std::move(prefix)) {}

  std::string shape() const override {
    std::string shape = "hashes " + prefix_ + " " + shape_.key.name;
    for (const Column& column : shape_.columns) shape += " " + column.name;
    return shape;
  }
  std::string describe() const override { return "the hashes " + printable(prefix_) + "*"; }

  /// What was there goes first: fields that are null now, or a key of another type.
  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string id = *sink_text(row.key), key = prefix_ + id;
    send({"DEL", key});
    if (!row.columns) return {};
    std::vector<std::string> texts;
    texts.reserve(shape_.columns.size());  // the words below are views of them
    Words words{"HSET", key, shape_.key.name, id};
    for (std::size_t i = 0; i < shape_.columns.size(); ++i) {
      const Value& value = (*row.columns)[i];
      if (value.is_null()) continue;
      words.push_back(shape_.columns[i].name);
      const bool is_text = value.kind() == Value::Kind::kText || value.kind() == Value::Kind::kBlob;
      words.push_back(is_text ? value.text() : texts.emplace_back(*sink_text(value)));
    }
    send(words);
    return {};
  }

  Result<std::string> find_any(Connection& connection) const override {
    std::string found;
    MILLRACE_RETURN_IF_ERROR(scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      if (page.size() > 0) found = page.at(0).text();
      return found.empty();
    }));
    return found;
  }

  Result<bool> clear_some(Connection& connection, const Send& send) const override {
    std::vector<std::string> keys;
    MILLRACE_RETURN_IF_ERROR(scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i) keys.emplace_back(page.at(i).text());
      return keys.size() < kCommandsPerPortion;
    }));
    for (const std::string& key : keys) send({"UNLINK", key});
    return !keys.empty();
  }

  Result<void> read(Connection& connection, const Visit& visit) const override {
    return scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i) connection.send({"HGETALL", page.at(i).text()});
      for (std::size_t i = 0; i < page.size(); ++i) {
        const auto hash = connection.receive();
        const std::string_view key = page.at(i).text().substr(prefix_.size());
        // A key of another type is a row that differs from any.
        const Sink::Texts texts = hash ? columns_of(*hash) : Sink::Texts();
        if (!hash && hash.error().code() != ErrorCode::kFailedPrecondition) return hash.error();
        MILLRACE_RETURN_IF_ERROR(visit(std::string(key), texts));
      }
      return true;
    });
  }

 private:
  Result<void> scan_keys(Connection& connection,
                         const std::function<Result<bool>(const Reply&)>& visit) const {
    const std::string pattern = as_pattern(prefix_) + "*";
    return scan(connection, {"SCAN", "", "MATCH", pattern, "COUNT", kKeysPerScan}, 1, visit);
  }

  /// Of another size where there is a field too many.
  Sink::Texts columns_of(const Reply& hash) const {
    Sink::Texts texts(shape_.columns.size());
    for (std::size_t i = 0; i + 1 < hash.size(); i += 2) {
      const std::string_view name = hash.at(i).text();
      const auto column = std::find_if(shape_.columns.begin(), shape_.columns.end(),
                                       [&](const Column& each) { return each.name == name; });
      if (column != shape_.columns.end())
        texts[static_cast<std::size_t>(column - shape_.columns.begin())] = hash.at(i + 1).text();
      else if (name != shape_.key.name)
        texts.emplace_back();
    }
    return texts;
  }

  const SinkShape shape_;
  const std::string prefix_;
};

/// All rows in one key.
class OneKey : public Layout {
 public:
  OneKey(std::string key, std::string type) : key_(std::move(key)), type_(std::move(type)) {}

  std::string describe() const override { return "the " + type_ + " " + printable(key_); }
  Result<std::string> find_any(Connection& connection) const override {
    MILLRACE_ASSIGN_OR_RETURN(const Reply there, connection.call({"EXISTS", key_}));
    return there.integer() == 0 ? std::string() : key_;
  }
  Result<bool> clear_some(Connection& connection, const Send& send) const override {
    MILLRACE_ASSIGN_OR_RETURN(const Reply there, connection.call({"EXISTS", key_}));
    if (there.integer() != 0) send({"UNLINK", key_});
    return there.integer() != 0;
  }
  Result<void> check_types(Connection& connection) const override {
    MILLRACE_ASSIGN_OR_RETURN(const Reply type, connection.call({"TYPE", key_}));
    if (type.text() == "none" || type.text() == redis_type()) return {};
    return Error(ErrorCode::kFailedPrecondition,
                 describe() + " has become a " + printable(type.text()))
        .hint("Somebody else writes to that key. Remove it, or give the view another one.");
  }

 protected:
  virtual std::string_view redis_type() const = 0;
  const std::string key_;

 private:
  const std::string type_;
};

class Set final : public OneKey {
 public:
  explicit Set(std::string key) : OneKey(std::move(key), "set") {}
  std::string shape() const override { return "set " + key_; }
  std::string_view redis_type() const override { return "set"; }

  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string member = *sink_text(row.key);
    send({row.columns ? "SADD" : "SREM", key_, member});
    return {};
  }
  Result<void> read(Connection& connection, const Visit& visit) const override {
    const Words command{"SSCAN", key_, "", "COUNT", kKeysPerScan};
    return scan(connection, command, 2, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i)
        MILLRACE_RETURN_IF_ERROR(visit(std::string(page.at(i).text()), {}));
      return true;
    });
  }
};

class SortedSet final : public OneKey {
 public:
  SortedSet(SinkShape shape, std::string key)
      : OneKey(std::move(key), "sorted set"), shape_(std::move(shape)) {}
  std::string shape() const override { return "sorted set " + key_ + " " + score().name; }
  std::string_view redis_type() const override { return "zset"; }

  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string member = *sink_text(row.key);
    if (!row.columns) return send({"ZREM", key_, member}), Result<void>{};
    const Value& value = row.columns->front();
    const auto text = sink_text(value);
    if (!text || !is_exact(value, *text)) [[unlikely]]
      return Error(ErrorCode::kFailedPrecondition,
                   describe() + ": the score of '" + printable(member) + "', " +
                       (text ? "'" + printable(*text) + "'" : "null") +
                       ", is no number that a double holds exactly")
          .hint("Leave such rows out with where(), or give the view a column that is one.");
    send({"ZADD", key_, *text, member});
    return {};
  }

  Result<void> read(Connection& connection, const Visit& visit) const override {
    const Words command{"ZSCAN", key_, "", "COUNT", kKeysPerScan};
    return scan(connection, command, 2, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i + 1 < page.size(); i += 2)
        MILLRACE_RETURN_IF_ERROR(
            visit(std::string(page.at(i).text()), {score_text(page.at(i + 1).text())}));
      return true;
    });
  }

 private:
  const Column& score() const { return shape_.columns.front(); }

  static bool is_exact(const Value& value, const std::string& text) {
    if (value.kind() == Value::Kind::kReal) return std::isfinite(value.real());
    const auto number = Decimal::parse(text);
    if (!number || !number->is_finite()) return false;
    const auto back = Decimal::parse(*sink_text(Value(number->real())));
    return std::abs(number->real()) < 9.007199254740992e15 && back && *back == *number;
  }

  /// As sink_text() has it, from what Redis prints.
  std::string score_text(std::string_view text) const {
    double number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    if (score().type == ColumnType::kInteger)
      return std::to_string(static_cast<std::int64_t>(number));
    return *sink_text(Value(number));
  }

  const SinkShape shape_;
};

class RedisSink final : public Sink {
 public:
  RedisSink(const std::string& view, std::shared_ptr<const Layout> layout, std::string server)
      : meta_("millrace.view." + view), layout_(std::move(layout)), server_(std::move(server)) {}

  Result<std::optional<SinkCheckpoint>> open(const SinkWriter& writer) override {
    writer_ = writer.name;
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(check_server());
    MILLRACE_ASSIGN_OR_RETURN(const Reply known, connection_->call({"HGET", meta_, "keys"}));
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
    MILLRACE_RETURN_IF_ERROR(connection_->call({"HSET", meta_, "writer", writer_, "keys", keys}));
    MILLRACE_ASSIGN_OR_RETURN(auto shown, read_checkpoint());
    is_new_ = !shown;
    return shown;
  }

  Result<void> begin() override {
    MILLRACE_RETURN_IF_ERROR(begin_portion());
    if (!is_new_) return {};
    MILLRACE_RETURN_IF_ERROR(connection_->receive_all());
    // Until all is written there is no checkpoint, and so no view.
    connection_->send({"HDEL", meta_, "lineage"});
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    for (bool more = true; more;) {
      MILLRACE_ASSIGN_OR_RETURN(more, clear_portion());
    }
    return begin_portion();
  }

  Result<void> write(const SinkRow& row) override {
    MILLRACE_RETURN_IF_ERROR(
        layout_->write(row, [&](const Words& words) { connection_->send(words); }));
    ++commands_;
    if (connection_->unanswered() >= kUnansweredMax)
      MILLRACE_RETURN_IF_ERROR(connection_->receive_until(kUnansweredLeft));
    if (!is_new_ || commands_ < kCommandsPerPortion) return {};
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    return begin_portion();
  }

  Result<void> checkpoint(const SinkCheckpoint& checkpoint) override {
    const std::string commit = std::to_string(checkpoint.commit),
                      offset = std::to_string(checkpoint.offset.value), shape = layout_->shape();
    connection_->send({"HSET", meta_, "store_id", checkpoint.store_id, "lineage",
                       checkpoint.lineage, "commit", commit, "offset", offset, "shape", shape});
    return {};
  }

  Result<void> commit() override {
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    is_new_ = false;
    return {};
  }

  Result<std::optional<SinkCheckpoint>> position() override {
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(check_server());
    return read_checkpoint();
  }

  Result<void> read(const Visit& visit) override {
    MILLRACE_RETURN_IF_ERROR(connect());
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
    return {};
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
  Result<void> check_writer() {
    MILLRACE_ASSIGN_OR_RETURN(const Reply writer, connection_->call({"HGET", meta_, "writer"}));
    if (writer.is_nil())
      return Error(ErrorCode::kUnavailable, where_ +
                                                ": its checkpoint is gone: Redis was emptied, "
                                                "or has lost what it had");
    return writer.text() == writer_ ? Result<void>{} : Result<void>(fenced_off(where_));
  }

  Result<void> begin_portion() {
    connection_->send({"WATCH", meta_});
    MILLRACE_RETURN_IF_ERROR(connection_->receive_all());
    MILLRACE_RETURN_IF_ERROR(check_writer());
    MILLRACE_RETURN_IF_ERROR(layout_->check_types(*connection_));
    connection_->send({"MULTI"});
    commands_ = 0;
    return {};
  }

  Result<void> commit_portion() {
    connection_->send({"EXEC"});
    MILLRACE_ASSIGN_OR_RETURN(const Reply done, connection_->receive_all());
    if (done.is_nil()) {
      MILLRACE_RETURN_IF_ERROR(check_writer());
      return Error(ErrorCode::kUnavailable, where_ + ": its checkpoint was touched meanwhile");
    }
    for (std::size_t i = 0; i < done.size(); ++i)
      MILLRACE_RETURN_IF_ERROR(connection_->checked(done.at(i)));
    return {};
  }

  /// False if nothing was left to clear.
  Result<bool> clear_portion() {
    std::vector<std::vector<std::string>> commands;
    MILLRACE_ASSIGN_OR_RETURN(const bool some,
                              layout_->clear_some(*connection_, [&](const Words& words) {
                                commands.emplace_back(words.begin(), words.end());
                              }));
    if (!some) return false;
    MILLRACE_RETURN_IF_ERROR(begin_portion());
    for (const auto& command : commands) {
      connection_->send(Words(command.begin(), command.end()));
      if (connection_->unanswered() >= kUnansweredMax)
        MILLRACE_RETURN_IF_ERROR(connection_->receive_until(kUnansweredLeft));
    }
    MILLRACE_RETURN_IF_ERROR(commit_portion());
    return true;
  }

  const std::string meta_;
  const std::shared_ptr<const Layout> layout_;
  const std::string server_;
  std::string where_;
  std::string writer_;
  bool warned_ = false;  ///< Of a server that does not tell its policy.
  std::unique_ptr<Connection> connection_;
  OpenSocket socket_;  // goes before the connection
  bool is_new_ = false;
  std::size_t commands_ = 0;  ///< Of the portion.
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
  if (!key.starts_with("millrace.view.")) return {};
  return Error(ErrorCode::kInvalidArgument,
               "its sink's keys begin with millrace.view., where the "
               "checkpoints are");
}

}  // namespace

std::shared_ptr<const SinkKind> redis_hashes(RedisHashesOptions options) {
  return std::make_shared<RedisKind>(
      options.server, [](SinkShape shape) { return shape; },
      [options](const SinkShape&) -> Result<void> {
        if (std::string("millrace.view.").starts_with(options.prefix) && !options.prefix.empty())
          return check_key("millrace.view.");
        return check_key(options.prefix);
      },
      [options](const SinkShape& shape) -> std::shared_ptr<const Layout> {
        return std::make_shared<Hashes>(shape, options.prefix);
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
        return std::make_shared<Set>(or_view(options.key, shape));
      });
}

std::shared_ptr<const SinkKind> redis_sorted_set(RedisSortedSetOptions options) {
  return std::make_shared<RedisKind>(
      options.server,
      [options](SinkShape shape) {
        std::erase_if(shape.columns,
                      [&](const Column& column) { return column.name != options.score; });
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
        return std::make_shared<SortedSet>(shape, or_view(options.key, shape));
      });
}

}  // namespace millrace::projections
