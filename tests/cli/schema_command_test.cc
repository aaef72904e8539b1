#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "capture/source_state.h"
#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;
using v1::Change;

class Fixture {
 public:
  Fixture() : store(directory / "store") {
    store.change(Change::CREATE, 1, "one");
    store.sync();
  }
  TemporaryDirectory directory;
  SampleStore store;
};

TEST_CASE_METHOD(Fixture, "schema list tells tables, versions and columns", "[cli][schema]") {
  const CommandResult text = millrace({"schema", "list", "--store", store.path()});
  CHECK(text.exit_code == 0);
  CHECK_THAT(text.out, Contains("public.orders") && Contains("id integer, note text"));

  std::istringstream lines(millrace({"schema", "list", "--json", "--store", store.path()}).out);
  std::string line;
  REQUIRE(std::getline(lines, line));
  CHECK(json::parse(line).at("category") == "audit.log");
  REQUIRE(std::getline(lines, line));
  const json orders = json::parse(line);
  CHECK(orders.at("category") == "public.orders");
  CHECK(orders.at("version") == 1);
  CHECK(orders.at("columns")[0] ==
        json{{"name", "id"}, {"type", "integer"}, {"field", 1}, {"key", true}});
}

TEST_CASE_METHOD(Fixture, "schema export writes files that protoc takes", "[cli][schema]") {
  const std::string out = (directory / "proto").string();
  const CommandResult exported =
      millrace({"schema", "export", "--store", store.path(), "--out", out, "--package", "shop"});
  CHECK(exported.err.empty());
  CHECK(exported.exit_code == 0);
  CHECK(exported.out == out + "/audit.log.proto\n" + out + "/public.orders.proto\n" + out +
                            "/millrace/v1/values.proto\n");

  const auto protoc =
      run_command({"protoc", "-I", out, "--cpp_out", directory.path().string(),
                   "public.orders.proto", "audit.log.proto", "millrace/v1/values.proto"});
  CHECK(protoc.err.empty());
  CHECK(protoc.exit_code == 0);
  const auto decoded =
      run_command({"protoc", "-I", out, "--decode", "shop.Orders", "public.orders.proto"}, {},
                  "\x08\x0e\x12\x03one");
  CHECK(decoded.out == "id: 7\nnote: \"one\"\n");
  const auto other = run_command(
      {"protoc", "-I", out, "--decode", "shop.audit.Log", "audit.log.proto"}, {}, "\x08\x02");
  CHECK(other.out == "id: 1\n");
}

TEST_CASE_METHOD(Fixture, "schema export leaves a file that says the same untouched",
                 "[cli][schema]") {
  const std::vector<std::string> command{"schema",     "export", "--store",
                                         store.path(), "--out",  (directory / "proto").string()};
  REQUIRE(millrace(command).exit_code == 0);
  const auto file = directory / "proto" / "public.orders.proto";
  const auto long_ago = std::filesystem::last_write_time(file) - std::chrono::hours(1);
  std::filesystem::last_write_time(file, long_ago);
  REQUIRE(millrace(command).exit_code == 0);
  CHECK(std::filesystem::last_write_time(file) == long_ago);
}

TEST_CASE_METHOD(Fixture, "the package is by default the database's name", "[cli][schema]") {
  SourceState source;
  source.epoch = 1;
  source.database = "My-Shop";
  value_of(save_source_state(store.path(), source));
  const std::string out = (directory / "proto").string();
  REQUIRE(millrace({"schema", "export", "--store", store.path(), "--out", out}).exit_code == 0);
  std::ifstream file(out + "/public.orders.proto");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  CHECK_THAT(text, Contains("package my_shop;"));

  const auto wrong =
      millrace({"schema", "export", "--store", store.path(), "--out", out, "--package", "My Shop"});
  CHECK(wrong.exit_code == 2);
  CHECK_THAT(wrong.err, Contains("'my_shop' would be one"));
}

TEST_CASE("schema export of a store without tables says so", "[cli][schema]") {
  const TemporaryDirectory directory;
  value_of(EventStore::open(directory / "store"));
  const auto result = millrace({"schema", "export", "--store", (directory / "store").string(),
                                "--out", (directory / "proto").string()});
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.err, Contains("no table was captured"));
  CHECK_FALSE(std::filesystem::exists(directory / "proto"));
}

TEST_CASE_METHOD(Fixture, "status tells the store, its writer, its source and its tables",
                 "[cli][status]") {
  const std::vector<std::string> command{"status", "--json", "--store", store.path()};
  json status = json::parse(millrace(command).out);
  CHECK(status.at("durable_end") == 1);
  CHECK(status.at("source") == nullptr);
  CHECK_THAT(status.at("writer").get<std::string>(), Contains(std::to_string(::getpid())));
  CHECK(status.at("tables") == json::parse(R"([{"category":"audit.log","schema":1,"captured":null},
                                     {"category":"public.orders","schema":1,"captured":null}])"));

  SourceState source;
  source.epoch = 1;
  source.database = "shop";
  source.host = "db.example";
  source.slot = "millrace";
  value_of(save_source_state(store.path(), source));
  store.close();
  status = json::parse(millrace(command).out);
  CHECK(status.at("writer") == nullptr);
  CHECK(status.at("source").at("database") == "shop");
  CHECK(status.at("source").at("commit_lsn") == "0/100");
  CHECK(status.at("source").at("commit_time") == "2026-01-01T00:00:00.000001Z");

  const CommandResult text = millrace({"status", "--store", store.path()});
  CHECK(text.exit_code == 0);
  CHECK_THAT(text.out, Contains("database shop on db.example") && Contains("writer    none") &&
                           Contains("public.orders"));
}

}  // namespace
}  // namespace millrace::test
