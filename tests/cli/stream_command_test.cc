#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

std::vector<json> objects(const std::string& lines) {
  std::vector<json> result;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) result.push_back(json::parse(line));
  return result;
}

class Fixture {
 public:
  CommandResult append(const std::string& stream, const std::string& data,
                       std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"stream", "append", "--store", store(),  "--stream",
                                       stream,   "--type", "Added",   "--data", data};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return millrace(arguments);
  }
  CommandResult read(const std::string& stream, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"stream", "read", "--store", store(), "--stream", stream};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return millrace(arguments);
  }
  std::string store() const { return (directory / "store").string(); }

  TemporaryDirectory directory;
};

TEST_CASE_METHOD(Fixture,
                 "stream append makes a store, versions its events and tells where they are",
                 "[cli][stream]") {
  CHECK(append("cart/9f3a", "{\"sku\":\"A-1\"}", {"--expected-version", "none"}).out ==
        "cart/9f3a  version 0  offset 0\n");
  const auto second = append("cart/9f3a", "2", {"--expected-version", "0", "--json"});
  CHECK(objects(second.out).at(0) ==
        json{{"stream", "cart/9f3a"}, {"version", 1}, {"offset", 1}, {"repeated", false}});
  const auto conflict = append("cart/9f3a", "3", {"--expected-version", "0"});
  CHECK(conflict.exit_code == 1);
  CHECK(conflict.out.empty());
  CHECK_THAT(conflict.err, Contains("stream cart/9f3a is at version 1, not at version 0"));
  CHECK(append("cart/9f3a", "4", {"--id", "k"}).out == "cart/9f3a  version 2  offset 2\n");
  CHECK(append("cart/9f3a", "4", {"--id", "k"}).out ==
        "cart/9f3a  version 2  offset 2  (appended before)\n");
  CHECK(millrace({"log", "verify", "--store", store()}).exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "stream read prints one stream, from either end", "[cli][stream]") {
  for (int i = 0; i < 3; ++i) append("cart/1", std::to_string(i));
  append("cart/2", "\"other\"",
         {"--event-id", "e", "--correlation-id", "c", "--causation-id", "b"});
  const auto data = [&](std::vector<std::string> more) {
    more.push_back("--json");
    std::vector<json> values;
    for (const json& event : objects(read("cart/1", more).out)) values.push_back(event.at("data"));
    return values;
  };
  CHECK(data({}) == std::vector<json>{0, 1, 2});
  CHECK(data({"--backward"}) == std::vector<json>{2, 1, 0});
  CHECK(data({"--from", "1"}) == std::vector<json>{1, 2});
  CHECK(data({"--from", "1", "--backward"}) == std::vector<json>{1, 0});
  CHECK(data({"--backward", "--limit", "1"}) == std::vector<json>{2});
  CHECK(read("cart/1", {"--limit", "1"}).out == "0  a  cart/1  Added  0\n");
  const json other = objects(read("cart/2", {"--json"}).out).at(0);
  CHECK(other.at("metadata") == json{{"id", "e"}, {"correlation_id", "c"}, {"causation_id", "b"}});
  CHECK(read("cart/3").out.empty());
  CHECK(read("cart/3").exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "stream list names the streams of a category", "[cli][stream]") {
  append("cart/b", "1");
  append("cart/a/1", "1");
  append("cart/b", "2");
  append("order/1", "1");
  const auto list = millrace({"stream", "list", "--store", store(), "--category", "cart"});
  CHECK(list.out ==
        "cart/b  2 events  version 1  offset 2\ncart/a/1  1 event  version 0  offset 1\n");
  CHECK(objects(millrace({"stream", "list", "--store", store(), "--category", "cart", "--limit",
                          "1", "--json"})
                    .out) ==
        std::vector<json>{
            json{{"stream", "cart/b"}, {"events", 2}, {"version", 1}, {"last_offset", 2}}});
}

TEST_CASE_METHOD(Fixture, "stream append to a captured table is refused", "[cli][stream]") {
  SampleStore captured(directory / "store");
  captured.change(v1::Change::CREATE, 1, "one");
  captured.close();
  const auto refused = append("public.orders/1", "{}");
  CHECK(refused.exit_code == 1);
  CHECK(refused.out.empty());
  CHECK_THAT(refused.err, Contains("category public.orders is a captured table's") &&
                              Contains("another category"));
  CHECK(append("orders/1", "{}").exit_code == 0);
  CHECK(objects(read("public.orders/1", {"--json"}).out).size() == 1);
}

TEST_CASE_METHOD(Fixture, "stream commands refuse what can't work before anything is opened",
                 "[cli][stream]") {
  const auto refused = [&](const CommandResult& result, const std::string& why) {
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.err, Contains(why));
  };
  refused(append("cart", "1"), "is no stream");
  refused(append("/1", "1"), "is no stream");
  refused(append("$policy/1", "1"), "millrace's own");
  refused(append("cart/1", "{"), "--data is not JSON");
  refused(append("cart/1", "1", {"--data-file", "x"}), "one of --data and --data-file");
  refused(append("cart/1", "1", {"--expected-version", "-1"}), "expected-version");
  refused(read("cart/1", {"--limit", "0"}), "--limit must be at least 1");
  refused(read("cart/1", {"--backward", "--follow"}), "exclude each other");
  CHECK_FALSE(std::filesystem::exists(store()));
  CHECK(read("cart/1").exit_code == 1);  // there is no store
  CHECK(append("cart/1", "1", {"--id", std::string(257, 'i')}).exit_code == 2);
}

TEST_CASE_METHOD(Fixture, "stream append takes any bytes from a file", "[cli][stream]") {
  const std::string file = (directory / "bytes").string();
  value_of(write_file_atomically(FileSystem::real(), file, std::string("\0\xff", 2)));
  const auto result = millrace({"stream", "append", "--store", store(), "--stream", "c/1", "--type",
                                "Raw", "--data-file", file});
  CHECK(result.exit_code == 0);
  CHECK(objects(read("c/1", {"--json"}).out).at(0).at("data_base64") == "AP8=");
}

}  // namespace
}  // namespace millrace::test
