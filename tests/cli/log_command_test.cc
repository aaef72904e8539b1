#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;
using v1::Change;

std::vector<json> objects(const std::string& lines) {
  std::vector<json> result;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) result.push_back(json::parse(line));
  return result;
}

std::vector<std::uint64_t> offsets(const std::string& lines) {
  std::vector<std::uint64_t> result;
  for (const json& event : objects(lines)) result.push_back(event.at("offset"));
  return result;
}

/// Offsets 0 to 5: three orders, of which one changed and one went, and an audit row.
class Fixture {
 public:
  Fixture() : store(directory / "store") {
    store.change(Change::READ, 1, "one");
    store.change(Change::CREATE, 2, "two");
    store.change(Change::CREATE, 3, "three");
    store.change(Change::UPDATE, 2, "zwei");
    store.change(Change::CREATE, 2, "seen", true);
    store.change(Change::DELETE, 3);
    store.sync();
  }
  CommandResult tail(std::vector<std::string> arguments) {
    const std::vector<std::string> begin{"log", "tail", "--json", "--store", store.path()};
    arguments.insert(arguments.begin(), begin.begin(), begin.end());
    return millrace(arguments);
  }
  using Offsets = std::vector<std::uint64_t>;

  TemporaryDirectory directory;
  SampleStore store;
};

TEST_CASE_METHOD(Fixture, "log tail --json prints every event in the documented form",
                 "[cli][log]") {
  const CommandResult result = tail({});
  CHECK(result.exit_code == 0);
  CHECK(result.err.empty());
  const auto events = objects(result.out);
  REQUIRE(events.size() == 6);
  CHECK(events[3] == json::parse(R"({"offset":3,"op":"u","category":"public.orders","key":{"id":2},
          "before":null,"after":{"id":2,"note":"zwei"},"unchanged":[],
          "source":{"lsn":"0/1000","commit_lsn":"0/400","xid":704,
                    "commit_time":"2026-01-01T00:00:00.000004Z"},"schema":1})"));
  CHECK(events[5].at("op") == "d");
  CHECK(events[5].at("before") == json{{"id", 3}});
  CHECK(events[5].at("after") == nullptr);
}

TEST_CASE_METHOD(Fixture, "log tail filters by place, category and key, and counts", "[cli][log]") {
  CHECK(offsets(tail({}).out) == Offsets{0, 1, 2, 3, 4, 5});
  CHECK(offsets(tail({"--from", "4"}).out) == Offsets{4, 5});
  CHECK(offsets(tail({"--from", "beginning", "--limit", "2"}).out) == Offsets{0, 1});
  CHECK(tail({"--from", "end"}).out.empty());
  CHECK(tail({"--from", "1000"}).out.empty());
  CHECK(offsets(tail({"--from", "2026-01-01T00:00:00.000004Z"}).out) == Offsets{3, 4, 5});
  CHECK(offsets(tail({"--from", "2026-01-01 01:00:00.000005+01:00"}).out) == Offsets{4, 5});
  CHECK(offsets(tail({"--from", "2025-01-01T00:00:00Z", "--limit", "1"}).out) == Offsets{0});
  CHECK(tail({"--from", "2026-01-01T00:00:01Z"}).out.empty());
  CHECK(offsets(tail({"--category", "audit.log"}).out) == Offsets{4});
  CHECK(offsets(tail({"--key", "2"}).out) == Offsets{1, 3, 4});
  CHECK(offsets(tail({"--key", "2", "--category", "public.orders", "--from", "2"}).out) ==
        Offsets{3});
  CHECK(tail({"--category", "public.nothing"}).out.empty());
}

TEST_CASE_METHOD(Fixture, "log tail without --json prints one line an event", "[cli][log]") {
  const CommandResult result = millrace({"log", "tail", "--store", store.path()});
  CHECK(result.exit_code == 0);
  CHECK(std::count(result.out.begin(), result.out.end(), '\n') == 6);
  CHECK_THAT(result.out, Contains("public.orders") && Contains("zwei"));
}

TEST_CASE_METHOD(Fixture, "log tail --follow shows what comes and ends with 0 on a signal",
                 "[cli][log]") {
  const int signal = GENERATE(SIGINT, SIGTERM);
  ChildProcess follower({MILLRACE_PROGRAM, "log", "tail", "--json", "--follow", "--from", "5",
                         "--store", store.path()});
  CHECK(json::parse(follower.read_line().value()).at("offset") == 5);
  store.change(Change::CREATE, 7, "seven");
  store.sync();
  CHECK(json::parse(follower.read_line().value()).at("offset") == 6);
  follower.kill(signal);
  CHECK(follower.wait() == 0);
  CHECK(follower.error_output().empty());
}

TEST_CASE_METHOD(Fixture, "a reader that goes away ends log tail quietly", "[cli][log]") {
  for (int i = 0; i < 2000; ++i) store.change(Change::CREATE, 100 + i, std::string(100, 'x'));
  store.sync();
  const CommandResult result = run_command({"bash", "-c",
                                            "\"$0\" log tail --json --store \"$1\" | head -n 1 && "
                                            "\"$0\" log tail --follow --from 2000 --json --store "
                                            "\"$1\" | head -n 1; exit ${PIPESTATUS[0]}",
                                            MILLRACE_PROGRAM, store.path()});
  CHECK(offsets(result.out) == Offsets{0, 2000});
  CHECK(result.err.empty());
  CHECK(result.exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "log stat counts by category and operation", "[cli][log]") {
  const CommandResult text = millrace({"log", "stat", "--store", store.path()});
  CHECK(text.exit_code == 0);
  CHECK_THAT(text.out, Contains("public.orders") && Contains("total"));

  const json stat = json::parse(millrace({"log", "stat", "--json", "--store", store.path()}).out);
  CHECK(stat.at("events") == 6);
  CHECK(stat.at("durable_end") == 6);
  REQUIRE(stat.at("categories").size() == 2);
  CHECK(stat["categories"][0]["category"] == "audit.log");
  CHECK(stat["categories"][1]["operations"] == json{{"c", 2}, {"u", 1}, {"d", 1}, {"r", 1}});
  CHECK(stat["bytes"] ==
        stat["categories"][0]["bytes"].get<int>() + stat["categories"][1]["bytes"].get<int>());
}

TEST_CASE_METHOD(Fixture, "log verify finds nothing wrong with a good store, beside its writer",
                 "[cli][log]") {
  const CommandResult text = millrace({"log", "verify", "--store", store.path()});
  CHECK(text.exit_code == 0);
  CHECK_THAT(text.out, Contains("ok: 6 events"));
  const json report =
      json::parse(millrace({"log", "verify", "--json", "--store", store.path()}).out);
  CHECK(report.at("ok") == true);
  CHECK(report.at("events") == 6);
  CHECK(report.at("faults").empty());
}

TEST_CASE_METHOD(Fixture, "log tail prints what comes before a damage, then the error",
                 "[cli][log]") {
  store.close();
  damage(store.segment(), "three");
  const CommandResult result = tail({});
  CHECK(result.exit_code == 3);
  CHECK(offsets(result.out) == Offsets{0, 1});
  CHECK_THAT(result.err, Contains("log/00000000000000000000.log at byte "));
  CHECK(offsets(tail({"--limit", "2"}).out) == Offsets{0, 1});
}

TEST_CASE_METHOD(Fixture, "log tail prints what comes before an event without its schema",
                 "[cli][log]") {
  store.unreadable_event();
  store.sync();
  const CommandResult result = tail({"--from", "3"});
  CHECK(result.exit_code == 1);
  CHECK(offsets(result.out) == Offsets{3, 4, 5});
  CHECK_THAT(result.err, Contains("public.orders"));
}

TEST_CASE_METHOD(Fixture, "log verify names a damaged byte's file and ends with 3", "[cli][log]") {
  store.close();
  damage(store.segment(), "two");  // in the second of six batches
  const CommandResult text = millrace({"log", "verify", "--store", store.path()});
  CHECK(text.exit_code == 3);
  CHECK_THAT(text.out, Contains("log/00000000000000000000.log at byte "));
  CHECK_THAT(text.err, Contains("found in " + store.path()));
  const CommandResult in_json = millrace({"log", "verify", "--json", "--store", store.path()});
  CHECK(in_json.exit_code == 3);
  CHECK(json::parse(in_json.out).at("ok") == false);
  CHECK(tail({}).exit_code == 3);
}

TEST_CASE_METHOD(Fixture, "log verify finds an event without its schema", "[cli][log]") {
  store.unreadable_event();
  store.sync();
  const CommandResult result = millrace({"log", "verify", "--json", "--store", store.path()});
  CHECK(result.exit_code == 3);
  const json faults = json::parse(result.out).at("faults");
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].at("kind") == "event");
  CHECK_THAT(faults[0].at("detail").get<std::string>(), Contains("offset 6"));
}

TEST_CASE("what is no store, or a newer one, is said so and left alone", "[cli][log]") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "empty");
  std::filesystem::create_directory(directory / "other");
  std::ofstream(directory / "other/file") << "mine";
  SampleStore(directory / "newer").make_newer();
  const std::string out = (directory / "proto").string();

  for (const std::string name : {"missing", "empty", "other", "newer"}) {
    for (const std::vector<std::string>& command : {std::vector<std::string>{"log", "tail"},
                                                    {"log", "stat"},
                                                    {"log", "verify"},
                                                    {"schema", "list"},
                                                    {"schema", "export", "--out", out},
                                                    {"status"}}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--store", (directory / name).string()});
      const CommandResult result = millrace(arguments);
      INFO(name << ": " << command.front() << ' ' << command.back() << ": " << result.err);
      CHECK(result.exit_code == 1);
      CHECK(result.out.empty());
      CHECK_THAT(result.err, Contains((directory / name).string()));
    }
  }
  CHECK_FALSE(std::filesystem::exists(out));
  CHECK_FALSE(std::filesystem::exists(directory / "missing"));
  CHECK(std::filesystem::is_empty(directory / "empty"));
}

}  // namespace
}  // namespace millrace::test
