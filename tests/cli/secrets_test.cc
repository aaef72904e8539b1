#include "cli/secrets.h"

#include <fstream>
#include <vector>

#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("passwords of every form of connection string are hidden", "[cli][secrets]") {
  CHECK(without_passwords("postgresql://me:pw@host/db") == "postgresql://me:***@host/db");
  CHECK(without_passwords("--source=postgres://me:p@w:/x@h:5432/db") ==
        "--source=postgres://me:***@h:5432/db");
  CHECK(without_passwords("postgresql://host/db?user=me&password=pw&sslmode=require") ==
        "postgresql://host/db?user=me&password=***&sslmode=require");
  CHECK(without_passwords("host=h password=pw user=me") == "host=h password=*** user=me");
  CHECK(without_passwords("password = 'p w\\' x' user=me") == "password = *** user=me");
  CHECK(without_passwords("password='never closed") == "password=***");
  CHECK(without_passwords("host=h password=ab&cd user=me") == "host=h password=*** user=me");
  CHECK(without_passwords("--source=password=ab&cd") == "--source=password=***");
  CHECK(without_passwords("host=h password='ab&c d' user=me") == "host=h password=*** user=me");
  CHECK(without_passwords("can't connect to host=h password=ab&cd\n  Try again.\n") ==
        "can't connect to host=h password=***\n  Try again.\n");
  CHECK(without_passwords("postgresql://h/d?sslpassword=a&password=b&user=me") ==
        "postgresql://h/d?sslpassword=***&password=***&user=me");
  CHECK(without_passwords("sslpassword=pw") == "sslpassword=***");
  CHECK(without_passwords("password=") == "password=");
}

TEST_CASE("text without a password stays as it is", "[cli][secrets]") {
  for (const std::string text :
       {"postgresql://host:5432/db", "postgresql://me@host/db", "service=shop", "", "password",
        "the password was wrong", "public.orders", "://", "a:b@c"})
    CHECK(without_passwords(text) == text);
}

TEST_CASE("the arguments of the process lose their passwords in place", "[cli][secrets]") {
  std::string program = "millrace", source = "postgresql://me:secret@host/db", store = "x";
  std::vector<char*> argv{program.data(), source.data(), store.data(), nullptr};
  hide_passwords(3, argv.data());
  CHECK(source == "postgresql://me:******@host/db");
  CHECK(store == "x");

  source = "host=h password=ab&cd";
  hide_passwords(2, argv.data());
  CHECK(source == "host=h password=*****");
}

TEST_CASE("a password appears neither in the process list nor in an error", "[cli][secrets]") {
  const TemporaryDirectory directory;
  SampleStore store(directory / "store");
  store.close();
  // A command that takes any argument and goes on running: it follows an empty log.
  ChildProcess follower({MILLRACE_PROGRAM, "log", "tail", "--follow", "--store", store.path(),
                         "--key", "postgresql://me:geheim@host/db?password=geheim",
                         "--category=password=geheim"});
  std::string command_line;
  // exec() replaces the arguments before main() runs: wait until the program has begun to read.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  do {
    std::ifstream file("/proc/" + std::to_string(follower.pid()) + "/cmdline");
    command_line.assign(std::istreambuf_iterator<char>(file), {});
  } while (command_line.find("me:******@host") == std::string::npos && follower.running() &&
           std::chrono::steady_clock::now() < deadline);
  CHECK_THAT(command_line, Contains("postgresql://me:******@host"));
  CHECK_THAT(command_line, !Contains("geheim"));

  const CommandResult wrong = millrace({"status", "--store", "x", "postgresql://me:geheim@h/d"});
  CHECK(wrong.exit_code == 2);
  CHECK_THAT(wrong.err, Contains("postgresql://me:***@h/d") && !Contains("geheim"));
}

}  // namespace
}  // namespace millrace::test
