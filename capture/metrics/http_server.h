#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millrace {

/// Where to listen, as people write it: "127.0.0.1:9187", "[::1]:9187", "0.0.0.0:9187", or a port
/// alone, which means the loopback address.
struct ListenAddress {
  std::string address = "127.0.0.1";  ///< Of the machine; no name.
  std::uint16_t port = 0;             ///< 0: any that is free.

  /// Errors: kInvalidArgument.
  static Result<ListenAddress> parse(const std::string& text);
};

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

/// Answers GET and HEAD of a few fixed paths, and nothing else: 404 for another path, 405 for
/// another method, 400 or 431 for what is no request or too large. One answer a connection.
///
/// It serves no files, reflects nothing, and reads at most 8 KiB of a request. A client has five
/// seconds; beyond 32 connections at once the next ones are closed. On a loopback address a Host
/// that is neither an address nor "localhost" is refused (403): a page in somebody's browser may
/// have sent it. Threads: one of its own, on which `answer` is called.
class HttpServer {
 public:
  /// Gives nothing for a path that is none.
  using Answer = std::function<std::optional<HttpAnswer>(std::string_view path)>;

  /// Listens when it returns. Errors: kUnavailable (the address is taken, or is not this
  /// machine's).
  static Result<std::unique_ptr<HttpServer>> start(const ListenAddress& where, Answer answer);
  virtual ~HttpServer() = default;

  /// "127.0.0.1:9187", with the port that it got.
  virtual std::string address() const = 0;
};

}  // namespace millrace
