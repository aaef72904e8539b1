#include "sinks/redis/connection.h"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>

#include "base/bytes.h"

namespace millrace::projections::redis {
namespace {

constexpr timeval kConnectTimeout{.tv_sec = 10, .tv_usec = 0};
/// Longer than any EXEC should take; finds a connection whose other end has gone without a word.
constexpr int kAnswerTimeoutMs = 60'000;
/// What is sent goes out when so much of it waits, as far as the server takes it; beyond the second
/// bound it is waited for.
constexpr std::size_t kWriteBytes = 64 << 10, kUnwrittenMax = 8 << 20;

/// Errors by their first word, of which
/// https://redis.io/docs/latest/develop/reference/protocol-spec says that it is the kind: what a
/// new attempt may mend.
bool passes(std::string_view error) {
  for (const std::string_view kind :
       {"LOADING", "READONLY", "MISCONF", "OOM", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN",
        "NOREPLICAS", "UNBLOCKED", "EXECABORT", "ERR max number of clients"})
    if (error.starts_with(kind)) return true;
  return false;
}

template <typename Number>
bool read_number(std::string_view text, Number& number) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failure == std::errc() && end == text.data() + text.size();
}

Result<std::string> without_escapes(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    MILLRACE_ASSIGN_OR_RETURN(const std::string byte, from_hex(text.substr(i + 1, 2)));
    if (byte.size() != 1) return Error(ErrorCode::kInvalidArgument, "'%' without two digits");
    out += byte;
    i += 2;
  }
  return out;
}

Error bad_address(const std::string& why) {
  return Error(ErrorCode::kInvalidArgument, "the Redis server is no valid address: " + why)
      .hint(
          "It is redis://[user[:password]@]host[:port][/database] or "
          "unix:///path/of/socket[?db=N]; write special characters as %XX.");
}

}  // namespace

Result<ServerAddress> ServerAddress::parse(const std::string& text) {
  ServerAddress address;
  std::string_view rest = text;
  if (rest.starts_with("rediss://"))
    return bad_address("TLS is not spoken; put a tunnel in between");
  if (rest.starts_with("unix://")) {
    rest.remove_prefix(7);
    if (const std::size_t at = rest.find("?db="); at != rest.npos) {
      if (!read_number(rest.substr(at + 4), address.database))
        return bad_address("?db= wants a number");
      rest = rest.substr(0, at);
    }
    address.path = rest;
    return address.path.empty() ? Result<ServerAddress>(bad_address("the path is missing"))
                                : Result<ServerAddress>(address);
  }
  if (!rest.starts_with("redis://")) return bad_address("it begins with no redis:// or unix://");
  rest.remove_prefix(8);
  if (const std::size_t at = rest.rfind('@'); at != rest.npos) {
    const std::string_view user = rest.substr(0, at);
    const std::size_t colon = user.find(':');
    auto name = without_escapes(user.substr(0, colon));
    auto password = without_escapes(colon == user.npos ? "" : user.substr(colon + 1));
    if (!name || !password) return bad_address("'%' wants two hexadecimal digits after it");
    address.user = *std::move(name);
    address.password = *std::move(password);
    rest.remove_prefix(at + 1);
  }
  if (const std::size_t slash = rest.find('/'); slash != rest.npos) {
    const std::string_view database = rest.substr(slash + 1);
    if (!database.empty() && !read_number(database, address.database))
      return bad_address("its database is no number");
    rest = rest.substr(0, slash);
  }
  if (const std::size_t colon = rest.rfind(':'); colon != rest.npos && !rest.ends_with(']')) {
    if (!read_number(rest.substr(colon + 1), address.port))
      return bad_address("its port is no number");
    rest = rest.substr(0, colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  address.host = rest;
  return address.host.empty() ? Result<ServerAddress>(bad_address("the host is missing"))
                              : Result<ServerAddress>(address);
}

std::string ServerAddress::describe() const {
  if (!path.empty()) return "unix://" + printable(path) + "?db=" + std::to_string(database);
  return "redis://" + printable(host) + ":" + std::to_string(port) + "/" + std::to_string(database);
}

Reply::Reply(redisReply* reply)
    : reply_(reply, [](redisReply* owned) { freeReplyObject(owned); }), here_(reply) {}

bool Reply::is_nil() const { return here_ == nullptr || here_->type == REDIS_REPLY_NIL; }
bool Reply::is_error() const { return here_ != nullptr && here_->type == REDIS_REPLY_ERROR; }
std::string_view Reply::text() const {
  return here_ == nullptr || here_->str == nullptr
             ? std::string_view()
             : std::string_view(here_->str, static_cast<std::size_t>(here_->len));
}
std::int64_t Reply::integer() const { return here_ == nullptr ? 0 : here_->integer; }
std::size_t Reply::size() const {
  return here_ != nullptr && here_->type == REDIS_REPLY_ARRAY ? here_->elements : 0;
}
Reply Reply::at(std::size_t place) const {
  Reply inner = *this;
  inner.here_ = here_->element[place];
  return inner;
}

void Connection::Free::operator()(redisContext* context) const { redisFree(context); }

Error Connection::broken() const {
  const std::string why = context_ == nullptr              ? "out of memory"
                          : context_->err == REDIS_ERR_EOF ? "the server closed the connection"
                                                           : context_->errstr;
  return Error(ErrorCode::kUnavailable, where_ + ": " + (why.empty() ? "no answer" : why))
      .hint("Check that the server runs, and the address that is given for it.");
}

Result<std::unique_ptr<Connection>> Connection::open(const ServerAddress& address) {
  // hiredis writes to sockets as to files: one whose other end has gone would end the process.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  std::unique_ptr<Connection> connection(new Connection(address.describe()));
  connection->context_.reset(
      address.path.empty()
          ? redisConnectWithTimeout(address.host.c_str(), address.port, kConnectTimeout)
          : redisConnectUnixWithTimeout(address.path.c_str(), kConnectTimeout));
  redisContext* context = connection->context_.get();
  if (context == nullptr || context->err != 0) return connection->broken();
  // From here on nothing is waited for but by poll(), while something else may be read or written.
  const int flags = ::fcntl(context->fd, F_GETFL);
  if (flags < 0 || ::fcntl(context->fd, F_SETFL, flags | O_NONBLOCK) != 0)
    return Error(ErrorCode::kUnavailable, connection->where_ + ": can't set up its socket");
  context->flags &= ~REDIS_BLOCK;
  if (address.path.empty()) redisEnableKeepAlive(context);
  return connection;
}

Result<void> Connection::log_in(const ServerAddress& address) {
  if (!address.password.empty()) {
    Words words{"AUTH", address.user, address.password};
    if (address.user.empty()) words.erase(words.begin() + 1);
    MILLRACE_RETURN_IF_ERROR(call(words));
  }
  if (address.database != 0)
    MILLRACE_RETURN_IF_ERROR(call({"SELECT", std::to_string(address.database)}));
  return {};
}

void Connection::send(const Words& words) {
  ++unanswered_;
  if (failure_) return;
  pointers_.clear();
  sizes_.clear();
  for (const std::string_view word : words) {
    pointers_.push_back(word.data());
    sizes_.push_back(word.size());
  }
  redisAppendCommandArgv(context_.get(), static_cast<int>(words.size()), pointers_.data(),
                         sizes_.data());
  for (const std::size_t size : sizes_) unwritten_ += size;
  if (unwritten_ >= kWriteBytes) push();
}

void Connection::push() {
  if (failure_) return;
  if (auto written = write_some(); !written) failure_ = std::move(written).error();
}

/// Also waits while too much is left.
Result<void> Connection::write_some() {
  for (;;) {
    int done = 0;
    if (redisBufferWrite(context_.get(), &done) != REDIS_OK) return broken();
    unwritten_ = 0;
    if (done != 0 || sdslen(context_->obuf) < kUnwrittenMax) return {};
    MILLRACE_RETURN_IF_ERROR(wait_for(POLLOUT));
  }
}

Result<void> Connection::wait_for(short events) const {
  pollfd poll{.fd = context_->fd, .events = events, .revents = 0};
  for (;;) {
    const int ready = ::poll(&poll, 1, kAnswerTimeoutMs);
    if (ready > 0) return {};
    if (ready < 0 && errno == EINTR) continue;
    return Error(ErrorCode::kUnavailable,
                 where_ + ": no answer within " + std::to_string(kAnswerTimeoutMs / 1000) + " s")
        .hint("Check that the server runs, and the way to it.");
  }
}

Result<Reply> Connection::receive() {
  for (;;) {
    if (failure_) return *failure_;
    void* reply = nullptr;
    if (redisGetReplyFromReader(context_.get(), &reply) != REDIS_OK) return broken();
    if (reply != nullptr) {
      --unanswered_;
      return checked(Reply(static_cast<redisReply*>(reply)));
    }
    int done = 0;
    if (redisBufferWrite(context_.get(), &done) != REDIS_OK) return broken();
    MILLRACE_RETURN_IF_ERROR(wait_for(done != 0 ? POLLIN : POLLIN | POLLOUT));
    if (redisBufferRead(context_.get()) != REDIS_OK) return broken();
  }
}

Result<Reply> Connection::receive_all() {
  Reply last;
  while (unanswered_ > 0) {
    MILLRACE_ASSIGN_OR_RETURN(last, receive());
  }
  return last;
}

Result<Reply> Connection::call(const Words& words) {
  send(words);
  return receive_all();
}

int Connection::socket() const { return context_->fd; }

Result<Reply> Connection::checked(Reply reply) const {
  if (!reply.is_error()) return reply;
  const std::string_view why = reply.text();
  return Error(passes(why) ? ErrorCode::kUnavailable : ErrorCode::kFailedPrecondition,
               where_ + ": " + printable(why));
}

}  // namespace millrace::projections::redis
