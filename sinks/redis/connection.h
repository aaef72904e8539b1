#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct redisContext;
struct redisReply;

namespace millrace::projections::redis {

/// Where a Redis server is. Holds the password: print only describe().
struct ServerAddress {
  std::string host;  ///< Or
  std::string path;  ///< of its socket.
  int port = 6379;
  std::string user, password;
  int database = 0;

  /// kInvalidArgument, without a word of `text` that might be a secret.
  static Result<ServerAddress> parse(const std::string& text);
  /// "redis://cache:6379/0"
  std::string describe() const;
};

/// An answer of the server; lives as long as its object.
class Reply {
 public:
  Reply() = default;
  explicit Reply(redisReply* reply);

  bool is_nil() const;
  bool is_error() const;
  std::string_view text() const;  ///< Of strings, states and errors.
  std::int64_t integer() const;
  std::size_t size() const;  ///< Of an array.
  Reply at(std::size_t place) const;

 private:
  std::shared_ptr<redisReply> reply_;
  const redisReply* here_ = nullptr;
};

using Words = std::vector<std::string_view>;

/// A connection to one server. Commands are sent together and answered later, in their order; what
/// the server does not take yet waits in memory, up to a few MiB.
/// Errors: kUnavailable for what may pass (the network, LOADING, READONLY, MISCONF, OOM and their
/// like), else kFailedPrecondition with the server's words. Of no use after an error. Threads: one,
/// in which SIGPIPE is blocked from then on.
class Connection {
 public:
  /// Waits for no answer of the server: log_in() is the first thing to do.
  static Result<std::unique_ptr<Connection>> open(const ServerAddress& address);
  /// As the user of `address`, in its database.
  Result<void> log_in(const ServerAddress& address);

  /// Puts a command in line.
  void send(const Words& words);
  /// Has the server see what was sent, as far as it takes it.
  void push();
  std::size_t unanswered() const { return unanswered_; }
  /// The next answer; an error that the server answers is an error.
  Result<Reply> receive();
  /// Of all that were sent, the last one.
  Result<Reply> receive_all();
  Result<Reply> call(const Words& words);

  int socket() const;

  /// `reply`, or the error that it is.
  Result<Reply> checked(Reply reply) const;

 private:
  struct Free {
    void operator()(redisContext* context) const;
  };
  explicit Connection(std::string where) : where_(std::move(where)) {}
  Error broken() const;
  Result<void> write_some();
  Result<void> wait_for(short events) const;

  std::string where_;
  std::unique_ptr<redisContext, Free> context_;
  std::size_t unanswered_ = 0;
  std::size_t unwritten_ = 0;          ///< Bytes, about, since it was last tried.
  std::optional<Error> failure_;       ///< Of send(); receive() tells.
  std::vector<const char*> pointers_;  // reused
  std::vector<std::size_t> sizes_;     // reused
};

}  // namespace millrace::projections::redis
