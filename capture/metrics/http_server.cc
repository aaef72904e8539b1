#include "capture/metrics/http_server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <thread>

#include "base/bytes.h"

namespace millrace {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

constexpr std::size_t kRequestBytesMax = 8 << 10;
constexpr std::size_t kUnreadBytesMax = 64 << 10;
constexpr int kConnectionsMax = 32;
constexpr std::chrono::seconds kTime{5};

std::string text_of(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
         std::to_string(endpoint.port());
}

/// The name of "localhost:9187", "[::1]:9187", "127.0.0.1".
std::string_view name_in(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

/// Not the name of somebody's web site that was made to point here.
bool is_local_name(std::string_view host) {
  const std::string name(name_in(host));
  boost::system::error_code no_address;
  asio::ip::make_address(name, no_address);
  return name.empty() || name == "localhost" || !no_address;
}

/// One connection: a request, an answer, the end.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const HttpServer::Answer& answer, int& count, bool loopback)
      : stream_(std::move(socket)), answer_(answer), count_(count), loopback_(loopback) {
    ++count_;
    parser_.header_limit(kRequestBytesMax);
  }
  ~Connection() { --count_; }

  void start() {
    stream_.expires_after(kTime);  // for all of it: a slow client can't win time byte by byte
    http::async_read_header(stream_, buffer_, parser_,
                            [self = shared_from_this()](beast::error_code error, std::size_t) {
                              self->on_request(error);
                            });
  }

 private:
  void on_request(beast::error_code error) {
    if (!error) return send(answer_to(parser_.get()));
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
      return send({.status = 431, .body = "the request is too large\n"});
    if (error.category() == http::make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message)
      return send({.status = 400, .body = "that is no HTTP request\n"});
  }

  HttpAnswer answer_to(const http::request<http::empty_body>& request) {
    if (loopback_ && !is_local_name(std::string_view(request[http::field::host].data(),
                                                     request[http::field::host].size())))
      return {.status = 403, .body = "ask by address\n"};
    head_ = request.method() == http::verb::head;
    if (!head_ && request.method() != http::verb::get) return {.status = 405, .body = "GET only\n"};
    const std::string_view target(request.target().data(), request.target().size());
    if (auto answer = answer_(target.substr(0, target.find('?')))) return *std::move(answer);
    return {.status = 404, .body = "there is no such page\n"};
  }

  void send(HttpAnswer answer) {
    response_.result(static_cast<unsigned>(answer.status));
    response_.set(http::field::content_type, answer.content_type);
    response_.set(http::field::cache_control, "no-store");
    response_.set("X-Content-Type-Options", "nosniff");
    if (answer.status == 405) response_.set(http::field::allow, "GET, HEAD");
    response_.keep_alive(false);
    response_.body() = std::move(answer.body);
    response_.prepare_payload();
    if (head_) response_.body().clear();  // its length stays
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, std::size_t) {
                        if (error) return;
                        self->stream_.socket().shutdown(tcp::socket::shutdown_send, error);
                        if (!error) self->drain();
                      });
  }

  /// Closing with something unread would take the answer back from the client.
  void drain() {
    stream_.async_read_some(asio::buffer(unread_),
                            [self = shared_from_this()](beast::error_code error, std::size_t size) {
                              self->drained_ += size;
                              if (!error && self->drained_ < kUnreadBytesMax) self->drain();
                            });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kRequestBytesMax};
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
  bool head_ = false;
  std::array<char, 4096> unread_{};
  std::size_t drained_ = 0;
  const HttpServer::Answer& answer_;
  int& count_;
  bool loopback_;
};

class BeastServer final : public HttpServer {
 public:
  explicit BeastServer(Answer answer) : answer_(std::move(answer)) {}
  ~BeastServer() override {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  Result<void> listen(const ListenAddress& where) {
    const auto failed = [&](const boost::system::error_code& error) {
      return Error(ErrorCode::kUnavailable, "listen at " + where.address + ":" +
                                                std::to_string(where.port) + ": " + error.message())
          .hint("Is another capture running there? Name another address or port with --listen.");
    };
    boost::system::error_code error;
    const tcp::endpoint endpoint(asio::ip::make_address(where.address, error), where.port);
    if (!error) acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(kConnectionsMax, error);
    if (!error) bound_ = acceptor_.local_endpoint(error);
    if (error) return failed(error);
    accept();
    thread_ = std::thread([this] { serve(); });
    return {};
  }

  std::string address() const override { return text_of(bound_); }

 private:
  void serve() {
    for (;;) {
      try {
        context_.run();
        return;
      } catch (const std::exception& e) {  // memory, perhaps; that connection is gone
        spdlog::warn("metrics port: {}", printable(e.what(), 200));
      }
    }
  }

  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error && connections_ < kConnectionsMax)
        std::make_shared<Connection>(std::move(socket), answer_, connections_,
                                     bound_.address().is_loopback())
            ->start();
      else if (error)  // no descriptor is free, perhaps: asking again at once would be a loop
        return accept_later();
      accept();
    });
  }

  void accept_later() {
    later_.expires_after(std::chrono::milliseconds(100));
    later_.async_wait([this](const boost::system::error_code& error) {
      if (!error) accept();
    });
  }

  Answer answer_;
  int connections_ = 0;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer later_{context_};
  tcp::endpoint bound_;
  std::thread thread_;
};

}  // namespace

Result<ListenAddress> ListenAddress::parse(const std::string& text) {
  const auto wrong = [&] {
    return Error(ErrorCode::kInvalidArgument,
                 "'" + printable(text, 100) + "' is no address to listen at")
        .hint("Write 127.0.0.1:9187, [::1]:9187 or 9187; 0.0.0.0:9187 for every interface.");
  };
  ListenAddress where;
  const std::size_t colon = text.rfind(':');
  std::string host = colon == text.npos ? "" : text.substr(0, colon);
  const std::string port = colon == text.npos ? text : text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != host.npos)
    return wrong();
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), where.port);
  if (error != std::errc() || end != port.data() + port.size()) return wrong();
  if (colon == text.npos) return where;
  boost::system::error_code no_address;
  asio::ip::make_address(host, no_address);
  if (no_address) return wrong();
  where.address = host;
  return where;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const ListenAddress& where, Answer answer) {
  auto server = std::make_unique<BeastServer>(std::move(answer));
  MILLRACE_RETURN_IF_ERROR(server->listen(where));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace millrace
