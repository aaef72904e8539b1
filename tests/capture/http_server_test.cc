#include "capture/metrics/http_server.h"

#include <atomic>
#include <memory>

#include "tests/support/catch.h"
#include "tests/support/tcp_client.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

struct Server {
  std::atomic<int> asked = 0;
  std::unique_ptr<HttpServer> server =
      HttpServer::start({}, [this](std::string_view path) -> std::optional<HttpAnswer> {
        ++asked;
        if (path == "/down") return HttpAnswer{.status = 503, .body = "down\n"};
        if (path != "/page") return std::nullopt;
        return HttpAnswer{.body = "the page\n"};
      }).value();
  int port = std::stoi(server->address().substr(server->address().rfind(':') + 1));

  std::string ask(std::string_view bytes) const {
    TcpClient client(port);
    client.send(bytes);
    client.end_of_input();
    return client.read_all();
  }
};

TEST_CASE_METHOD(Server, "a page is served, another path is none", "[capture][http]") {
  CHECK_THAT(http_get(port, "/page"), StartsWith("HTTP/1.1 200 OK\r\n") &&
                                          Contains("Content-Length: 9\r\n") &&
                                          Contains("no-store") && Contains("\r\n\r\nthe page\n"));
  CHECK_THAT(http_get(port, "/page?x=1"), StartsWith("HTTP/1.1 200 "));
  CHECK_THAT(http_get(port, "/down"), StartsWith("HTTP/1.1 503 "));
  CHECK_THAT(ask("HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n"),
             StartsWith("HTTP/1.1 200 ") && Contains("Content-Length: 9\r\n") && !Contains("page"));
  CHECK_THAT(ask("GET /page HTTP/1.0\r\n\r\n"), Contains(" 200 "));
}

TEST_CASE_METHOD(Server, "paths that look for files find none (B51, B53)", "[capture][http][B51]") {
  for (const char* path : {"/", "//page", "/page/", "/../etc/passwd", "/%2e%2e%2fetc/passwd",
                           "/page%00", "/PAGE", "/page%0d%0aX-Evil:%201", "http://x/page", "*"}) {
    INFO(path);
    const std::string answer = http_get(port, path);
    CHECK_THAT(answer, StartsWith("HTTP/1.1 404 ") && !Contains("passwd") && !Contains("Evil"));
  }
}

TEST_CASE_METHOD(Server, "other methods than GET and HEAD are refused (B47)",
                 "[capture][http][B47]") {
  for (const char* method :
       {"POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "BREW", "get"}) {
    INFO(method);
    const std::string answer =
        ask(std::string(method) + " /page HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\n\r\n");
    CHECK_THAT(answer, StartsWith("HTTP/1.1 405 ") && Contains("Allow: GET, HEAD\r\n"));
  }
  CHECK(asked == 0);
}

TEST_CASE_METHOD(Server, "requests that are none, or too large, are refused and closed (B48, B49)",
                 "[capture][http][B48][B49]") {
  const std::string get = "GET /page HTTP/1.1\r\n";
  std::string many = get;
  for (int i = 0; i < 10'000; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  for (const std::string& request :
       {std::string("\r\n\r\n\r\n"), std::string("hello\r\n\r\n"), get + "no colon\r\n\r\n",
        std::string("GET /page\r\n\r\n"), std::string("GET /page HTTP/9.9\r\n\r\n"),
        std::string("GET /pa\0ge HTTP/1.1\r\n\r\n", 24), get + " folded first: x\r\n\r\n",
        get + "A\x01: b\r\n\r\n", get + "Content-Length: -1\r\n\r\n",
        get + "Content-Length: +5\r\n\r\n", get + "Content-Length: 0x5\r\n\r\n",
        get + "Content-Length: 18446744073709551616\r\n\r\n",
        get + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", std::string("\x16\x03\x01\x02")}) {
    INFO(request);
    const std::string answer = ask(request);
    CHECK((answer.empty() || answer.starts_with("HTTP/1.1 400 ")));
  }
  for (const std::string& request : {"GET /" + std::string(64 << 10, 'a') + " HTTP/1.1\r\n\r\n",
                                     get + "X: " + std::string(1 << 20, 'a') + "\r\n\r\n", many}) {
    const std::string answer = ask(request);
    // Who goes on sending for long after the answer may be cut off before he reads it.
    CHECK((answer.empty() || answer.starts_with("HTTP/1.1 431 ")));
  }
  CHECK(asked == 0);
  // A body is not read at all.
  CHECK_THAT(ask(get + "Transfer-Encoding: chunked\r\n\r\n-2\r\nxx"), Contains(" 200 "));
  CHECK_THAT(http_get(port, "/page"), Contains(" 200 "));
}

TEST_CASE_METHOD(Server, "a page of somebody's browser can't ask by a name of its own (B52)",
                 "[capture][http][B52]") {
  for (const char* host : {"evil.example", "evil.example:9187", "localhost.evil.example"})
    CHECK_THAT(ask("GET /page HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"),
               StartsWith("HTTP/1.1 403 "));
  for (const char* host : {"localhost", "localhost:80", "127.0.0.1:1", "[::1]:9187", ""})
    CHECK_THAT(ask("GET /page HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"),
               StartsWith("HTTP/1.1 200 "));
}

TEST_CASE_METHOD(Server, "slow, silent and very many clients are got rid of (B50)",
                 "[capture][http][B50]") {
  std::vector<std::unique_ptr<TcpClient>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<TcpClient>(port));
    clients.back()->send("GET /pa");
  }
  for (auto& client : clients) {
    client->send("g");  // a byte now and then wins no time
    CHECK(client->read_all().empty());
  }
  CHECK_THAT(http_get(port, "/page"), Contains(" 200 "));
  // The first answer of many that were asked for at once; then the connection is closed.
  std::string pipelined;
  for (int i = 0; i < 1000; ++i) pipelined += "GET /page HTTP/1.1\r\n\r\n";
  const std::string answer = ask(pipelined);
  CHECK(answer.find("HTTP/1.1", 1) == answer.npos);
}

TEST_CASE("an address is of this machine and with a port; a port alone is the loopback's (B45)",
          "[capture][http][B45]") {
  CHECK(ListenAddress::parse("9187").value().address == "127.0.0.1");
  CHECK(ListenAddress::parse("0.0.0.0:9187").value().address == "0.0.0.0");
  CHECK(ListenAddress::parse("[::1]:9187").value().address == "::1");
  CHECK(ListenAddress::parse("[::1]:9187").value().port == 9187);
  for (const char* wrong : {"", ":", ":9187", "localhost:9187", "127.0.0.1",
                            "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:80x",
                            "::1:9187", "1.2.3:9", "[::1]", "9187 ", "http://127.0.0.1:9187"}) {
    INFO(wrong);
    CHECK(ListenAddress::parse(wrong).error().code() == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE_METHOD(Server, "an address that is taken, or another machine's, is said so",
                 "[capture][http]") {
  const auto answer = [](std::string_view) { return std::optional<HttpAnswer>(); };
  const auto taken =
      HttpServer::start({.address = "127.0.0.1", .port = static_cast<std::uint16_t>(port)}, answer);
  REQUIRE_FALSE(taken);
  CHECK(taken.error().code() == ErrorCode::kUnavailable);
  CHECK_THAT(taken.error().message(), Contains(std::to_string(port)) && Contains("in use"));
  CHECK_FALSE(HttpServer::start({.address = "192.0.2.1", .port = 0}, answer));
}

}  // namespace
}  // namespace millrace::test
