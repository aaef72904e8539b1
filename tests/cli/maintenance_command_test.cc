#include <nlohmann/json.hpp>

#include "eventstore/policy.h"
#include "service/store_server.h"
#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;
using v1::Change;

/// A captured table whose rows 1 to 3 change again and again, in segments of 8 KiB.
class Fixture {
 public:
  Fixture() : sample(directory / "store", options()) {
    for (int round = 0; round < 12; ++round)
      for (int id = 1; id <= 3; ++id)
        sample.change(round == 0 ? Change::CREATE : Change::UPDATE, id, note(round, id));
    sample.sync();
  }

  static StoreOptions options() {
    StoreOptions options;
    options.segment_bytes = 8 << 10;
    options.compression = Compression::kNone;
    return options;
  }
  static std::string note(int round, int id) {
    return "round " + std::to_string(round) + " of " + std::to_string(id) + " " +
           std::string(900, 'x');
  }

  CommandResult log(const std::string& command, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"log", command, "--store", store()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return millrace(arguments);
  }
  /// The latest notes as a view has them.
  std::map<int, std::string> view(const std::string& of) {
    std::map<int, std::string> notes;
    const auto tail = millrace({"log", "tail", "--json", "--store", of});
    REQUIRE(tail.exit_code == 0);
    std::istringstream in(tail.out);
    for (std::string line; std::getline(in, line);) {
      const json event = json::parse(line);
      if (event.at("category") != "public.orders") continue;
      const int id = event.at("key").at("id");
      if (event.at("op") == "d")
        notes.erase(id);
      else
        notes[id] = event.at("after").at("note");
    }
    return notes;
  }
  std::string store() const { return (directory / "store").string(); }
  std::string path(const char* name) const { return (directory / name).string(); }

  TemporaryDirectory directory;
  SampleStore sample;
};

TEST_CASE_METHOD(Fixture, "log policy sets what log compact then does", "[cli][compaction]") {
  sample.close();
  CHECK(log("policy").out.empty());
  CHECK(log("compact").out == "0 of 11 sealed segments rewritten\n");
  const auto before = view(store());
  REQUIRE(log("policy", {"--category", "public.orders", "--set", "compact,grace=1h"}).err == "");
  CHECK(log("policy").out ==
        "public.orders  {\"retention\":\"compact\",\"tombstone_grace_seconds\":3600}\n");
  const json dry = json::parse(log("compact", {"--dry-run", "--json"}).out);
  CHECK(dry.at("dry_run") == true);
  REQUIRE(dry.at("rewritten").size() == 11);
  const json done = json::parse(log("compact", {"--json"}).out);
  REQUIRE(done.at("rewritten").size() == 11);
  for (const json& segment : done.at("rewritten"))
    CHECK(segment.at("bytes_after") < segment.at("bytes_before"));
  CHECK(done.at("removed").empty());  // what is superseded nobody misses
  CHECK(view(store()) == before);
  CHECK(before.at(2) == note(11, 2));
  CHECK(log("verify").exit_code == 0);
  CHECK(log("compact").out == "0 of 11 sealed segments rewritten\n");
}

TEST_CASE_METHOD(Fixture, "the process that holds the store compacts it for others",
                 "[cli][compaction]") {
  const auto server = value_of(StoreServer::start(sample.event_store(), store()));
  REQUIRE(log("policy", {"--category", "public.orders", "--set", "compact"}).exit_code == 0);
  CHECK_THAT(log("compact").out, Contains("11 of 11 sealed segments rewritten"));
  CHECK(log("consumers", {"--register", "search", "--offset", "3"}).exit_code == 0);
  CHECK_THAT(log("consumers").out, Contains("search"));
  CHECK(log("snapshot", {"--to", path("copy")}).exit_code == 0);
  CHECK_THAT(log("erase", {"--category", "public.orders", "--key", "2", "--yes"}).out,
             Contains("with the key 2 erased"));
  CHECK(view(store()) == std::map<int, std::string>{{1, note(11, 1)}, {3, note(11, 3)}});
}

TEST_CASE_METHOD(Fixture, "log policy refuses what it does not understand, before anything is set",
                 "[cli][compaction]") {
  sample.close();
  const auto refused = [&](const std::string& policy) {
    const auto result = log("policy", {"--category", "public.orders", "--set", policy});
    CHECK(result.exit_code == 2);
    return result.err;
  };
  CHECK_THAT(refused("compactt"), Contains("--set does not know 'compactt'"));
  CHECK_THAT(refused("expire"), Contains("needs a maximum of age or of bytes"));
  CHECK_THAT(refused("expire,max-age=soon"),
             Contains("max-age is 'soon', not a quantity like 30d"));
  CHECK_THAT(refused("keep,max-age=3d"), Contains("is for the retention `expire`"));
  CHECK(log("policy", {"--set", "keep"}).exit_code == 2);
  CHECK(log("policy", {"--stream", "cart", "--set", "max-count=3"}).exit_code == 2);
  CHECK(log("policy").out.empty());
  CHECK(log("compact", {"--min-dead", "101"}).exit_code == 2);
  CHECK(log("compact", {"--memory", "0"}).exit_code == 2);
}

TEST_CASE_METHOD(Fixture, "log consumers lists, registers and removes", "[cli][compaction]") {
  sample.close();
  CHECK(log("consumers").out.empty());
  CHECK(log("consumers", {"--register", "search", "--offset", "7"}).exit_code == 0);
  CHECK(log("consumers", {"--register", "cache", "--when-late", "lose"}).exit_code == 0);
  const auto again = log("consumers", {"--register", "search"});
  CHECK(again.exit_code == 1);
  CHECK_THAT(again.err, Contains("consumer search is registered already, at offset 7"));
  CHECK_THAT(log("consumers", {"--register", "late", "--offset", "99999"}).err,
             Contains("is beyond the durable end"));
  const auto json_lines = log("consumers", {"--json"}).out;
  const json first = json::parse(json_lines.substr(0, json_lines.find('\n')));
  CHECK(first.at("consumer") == "cache");
  CHECK(first.at("when_late") == "lose");
  CHECK(log("consumers", {"--remove", "cache"}).exit_code == 0);
  CHECK(log("consumers", {"--remove", "cache"}).exit_code == 1);
  CHECK(log("consumers", {"--register", "../x"}).exit_code == 2);
}

TEST_CASE_METHOD(Fixture, "log erase tells, then removes a row's events and leaves a deletion",
                 "[cli][compaction]") {
  sample.close();
  const std::vector<std::string> row{"--category", "public.orders", "--key", "2"};
  const auto told = log("erase", row);
  CHECK_THAT(told.out, Contains("12 events of public.orders with the key 2") &&
                           Contains("Nothing was erased: --yes does it"));
  CHECK(view(store()).size() == 3);
  auto yes = row;
  yes.insert(yes.end(), {"--yes", "--json"});
  const auto nobody =
      log("erase", {"--category", "public.orders", "--key", "2", "--key", "77", "--yes"});
  CHECK(nobody.exit_code == 1);
  CHECK_THAT(nobody.err, Contains("holds no event of public.orders with the key 77; nothing was "
                                  "erased"));
  const json done = json::parse(log("erase", yes).out);
  CHECK(done.at("events") == 12);
  CHECK(done.at("keys").at(0).at("first") == 1);
  CHECK(done.at("keys").at(0).at("tombstone") == 36);
  CHECK(view(store()) == std::map<int, std::string>{{1, note(11, 1)}, {3, note(11, 3)}});
  for (const auto& file : std::filesystem::directory_iterator(directory / "store" / "log")) {
    std::ifstream in(file.path(), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    CHECK(bytes.find("of 2 xxx") == bytes.npos);
  }
  CHECK(log("verify").exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "log erase takes several keys at once, and tells of each and of all",
                 "[cli][compaction]") {
  sample.close();
  std::vector<std::string> rows{"--category", "public.orders", "--key", "3", "--key", "1"};
  const auto told = log("erase", rows);
  CHECK_THAT(told.out, Contains("12 events of public.orders with the key 3") &&
                           Contains("12 events of public.orders with the key 1") &&
                           Contains("24 events in total"));
  CHECK(json::parse(
            log("erase", {"--category", "public.orders", "--key", "3", "--key", "1", "--json"}).out)
            .at("events") == 24);
  CHECK(log("erase", {"--category", "public.orders", "--key", "3", "--key", "3"}).exit_code == 2);
  rows.emplace_back("--yes");
  const auto done = log("erase", rows);
  CHECK_THAT(done.out, Contains("with the key 3 erased") && Contains("with the key 1 erased") &&
                           Contains("tombstone at offset 36") &&
                           Contains("tombstone at offset 37") && Contains("24 events in total") &&
                           Contains("of 12 segments rewritten"));
  CHECK(view(store()) == std::map<int, std::string>{{2, note(11, 2)}});
}

TEST_CASE_METHOD(Fixture, "log snapshot and log restore give the store as it was",
                 "[cli][compaction]") {
  sample.close();
  const auto before = view(store());
  CHECK_THAT(log("snapshot", {"--to", path("copy")}).out, Contains("36 offsets in 12 segments"));
  REQUIRE(log("policy", {"--category", "public.orders", "--set", "compact"}).exit_code == 0);
  REQUIRE(log("compact").exit_code == 0);
  const auto restore = [&](const char* to) {
    return millrace({"log", "restore", "--from", path("copy"), "--store", path(to)});
  };
  CHECK(restore("restored").exit_code == 0);
  CHECK(view(path("restored")) == before);
  CHECK(millrace({"log", "verify", "--store", path("restored")}).exit_code == 0);
  CHECK_THAT(restore("restored").err, Contains("is there and not empty"));
  // Its first segment is a file of its own since the compaction, so the store keeps what it has.
  damage(directory / "copy" / "log" / "00000000000000000000.log", "round 0 of 2");
  const auto refused = restore("another");
  CHECK(refused.exit_code == 3);
  CHECK_THAT(refused.err, Contains("is not whole") && Contains("nothing was restored"));
  CHECK_FALSE(std::filesystem::exists(directory / "another"));
  CHECK_THAT(millrace({"log", "restore", "--from", store(), "--store", path("x")}).err,
             Contains("there is no snapshot in"));
}

}  // namespace
}  // namespace millrace::test
