#include <nlohmann/json.hpp>

#include "eventstore/scrub_report.h"
#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;
using v1::Change;

/// Offsets 0 to 3, each a transaction of its own.
class Fixture {
 public:
  Fixture() : store(directory / "store") {
    store.change(Change::READ, 1, "one");
    store.change(Change::CREATE, 2, "two");
    store.change(Change::CREATE, 3, "three");
    store.change(Change::UPDATE, 2, "zwei");
    store.close();
  }
  CommandResult repair(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"log", "repair", "--store", store.path()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return millrace(arguments);
  }

  TemporaryDirectory directory;
  SampleStore store;
};

/// What a repair of the store says, with STORE for its folder and TIME for that of the repair.
std::string golden(std::string text, const std::string& store) {
  for (std::size_t at = 0; (at = text.find(store)) != text.npos;)
    text.replace(at, store.size(), "STORE");
  const std::size_t time = text.find("STORE/repair/");
  if (time != text.npos) text.replace(time + 13, text.find('\n', time) - time - 13, "TIME");
  return text;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "log repair leaves a sound store alone", "[cli][repair]") {
  for (const auto& options : {std::vector<std::string>{}, {"--yes"}}) {
    const CommandResult result = repair(options);
    CHECK(result.exit_code == 0);
    CHECK(result.out == "ok: nothing to repair\n");
    CHECK(result.err.empty());
  }
  CHECK_FALSE(std::filesystem::exists(store.path() + "/repair"));
}

TEST_CASE_METHOD(Fixture, "F30: log repair says what would be lost, and does it only with --yes",
                 "[cli][repair]") {
  damage(store.segment(), "three");
  CommandResult result = repair();
  CHECK(result.exit_code == 3);
  CHECK(
      result.out ==
      "fault: log/00000000000000000000.log at byte 4448: batch payload checksum: offset 2\n"
      "would cut log/00000000000000000000.log at byte 4448 (352 bytes with 1 event and the end of "
      "1 transaction that can be read): log/00000000000000000000.log at byte 4448: batch payload "
      "checksum, below what was synced\n"
      "would begin log/00000000000000000004.log: the log goes on in it\n"
      "would move HEAD (256 bytes) away: it says that the log was durable up to offset 4 "
      "(log/00000000000000000000.log, byte 4800)\n"
      "lost: offsets 2 to 3, 352 bytes; of these 1 event and the end of 1 transaction can still "
      "be read in what is taken out\n"
      "what lies before offset 2 would stay, commit 0/200 of 2026-01-01T00:00:00.000002Z "
      "included; the log would go on at offset 4\n");
  CHECK(result.err ==
        "millrace: " + store.path() +
            " is damaged; nothing was changed\n  Put it back from a copy if there is one. Else "
            "--yes does what is said above.\n");
  CHECK(millrace({"log", "verify", "--store", store.path()}).exit_code == 3);

  result = repair({"--yes"});
  CHECK(result.exit_code == 0);
  CHECK(
      golden(result.out, store.path()) ==
      "fault: log/00000000000000000000.log at byte 4448: batch payload checksum: offset 2\n"
      "cut log/00000000000000000000.log at byte 4448 (352 bytes with 1 event and the end of 1 "
      "transaction that can be read): log/00000000000000000000.log at byte 4448: batch payload "
      "checksum, below what was synced\n"
      "began log/00000000000000000004.log: the log goes on in it\n"
      "moved HEAD (256 bytes) away: it says that the log was durable up to offset 4 "
      "(log/00000000000000000000.log, byte 4800)\n"
      "lost: offsets 2 to 3, 352 bytes; of these 1 event and the end of 1 transaction can still "
      "be read in what is taken out\n"
      "what lies before offset 2 stays, commit 0/200 of 2026-01-01T00:00:00.000002Z included; the "
      "log goes on at offset 4\n"
      "kept in STORE/repair/TIME\n");
  CHECK(millrace({"log", "verify", "--store", store.path()}).exit_code == 0);
  CHECK(repair().out == "ok: nothing to repair\n");

  // A reader that was in the middle is told; one that starts anew is not.
  const CommandResult tail =
      millrace({"log", "tail", "--json", "--from", "3", "--store", store.path()});
  CHECK(tail.exit_code == 1);
  CHECK(golden(tail.err, store.path()) ==
        "millrace: read store STORE: OFFSET_GONE: reading STORE from offset 3 on lacks what was "
        "between the offsets 2 and 3, which was damaged and went when the store was repaired\n"
        "  Start from the beginning: rebuild what was made from this store (`rebuild` of a view), "
        "or read from offset 0.\n");
  CHECK(millrace({"log", "tail", "--json", "--store", store.path()}).exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "F34: log repair makes store.json anew, and needs no HEAD",
                 "[cli][repair]") {
  // Without HEAD and indexes nothing is lost.
  std::filesystem::remove(store.path() + "/HEAD");
  CHECK(repair().out == "ok: nothing to repair\n");
  std::filesystem::remove(store.path() + "/store.json");
  const CommandResult result = repair({"--yes"});
  CHECK(result.exit_code == 0);
  CHECK(golden(result.out, store.path()) ==
        "made store.json anew: STORE is no millrace store: it holds other files and no "
        "store.json\n"
        "lost: no event\n"
        "what lies before offset 4 stays, commit 0/400 of 2026-01-01T00:00:00.000004Z included; "
        "the log goes on at offset 4\n"
        "kept in STORE/repair/TIME\n");
  CHECK(millrace({"log", "verify", "--store", store.path()}).exit_code == 0);
}

TEST_CASE_METHOD(Fixture, "F46: status tells what a scrub has found", "[cli][status]") {
  const std::vector<std::string> status{"status", "--store", store.path()};
  CHECK(millrace(status).out.find("scrub") == std::string::npos);
  ScrubReport report{.pass_began = {1'000'000}, .next = {3}, .completed = {}, .faults = {}};
  const auto check = [&](const std::string& line) {
    value_of(write_scrub_report(store.path(), report, FileSystem::real()));
    CHECK_THAT(millrace(status).out, Contains("scrub     " + line + "\n"));
  };
  check("no fault so far, read again up to offset 3");
  report.completed = {2'000'000};
  check("no fault, all read again until 1970-01-01T00:00:02.000000Z");
  report.faults.push_back({"log/00000000000000000000.log", 4448, "batch payload checksum", {0}});
  check(
      "1 damaged: log/00000000000000000000.log at byte 4448: batch payload checksum, found "
      "1970-01-01T00:00:00.000000Z; see `millrace log verify`");
  const json scrub =
      json::parse(millrace({"status", "--json", "--store", store.path()}).out).at("scrub");
  CHECK(scrub.at("faults")[0].at("position") == 4448);
  CHECK(scrub.at("completed") == "1970-01-01T00:00:02.000000Z");
}

TEST_CASE_METHOD(Fixture, "log repair --json has the plan and where what was taken out is",
                 "[cli][repair]") {
  damage(store.segment(), "three");
  json report = json::parse(repair({"--json"}).out);
  CHECK(report.at("kept") == nullptr);
  CHECK(report.at("needed") == true);
  const CommandResult result = repair({"--json", "--yes"});
  CHECK(result.exit_code == 0);
  report = json::parse(result.out);
  CHECK(report.at("end") == 2);
  CHECK(report.at("lost_end") == 4);
  CHECK(report.at("lost_events") == 1);
  CHECK(report.at("schemas") == nullptr);
  CHECK(report.at("steps").size() == 3);
  CHECK(report.at("steps")[0].at("do") == "cut");
  const std::string kept = report.at("kept");
  CHECK(kept.starts_with(store.path() + "/repair/"));
  CHECK(std::filesystem::exists(kept + "/report.json"));
  CHECK(std::filesystem::exists(kept + "/00000000000000000000.log"));
}

TEST_CASE_METHOD(Fixture, "log repair says that damaged schemas can't be repaired",
                 "[cli][repair]") {
  damage(store.path() + "/schemas", "orders");
  const auto refuses = [&](const CommandResult& result) {
    CHECK(result.exit_code == 3);
    CHECK_THAT(result.out, Contains("fault: ") && Contains("/schemas: byte "));
    CHECK_THAT(result.out, Contains("nothing else to repair"));
    CHECK_THAT(result.err, Contains("newest copy"));
  };
  refuses(repair());
  refuses(repair({"--yes"}));
  CHECK(json::parse(repair({"--json"}).out).at("schemas") != nullptr);
}

TEST_CASE_METHOD(Fixture, "log repair refuses where nothing can be kept, or a writer runs",
                 "[cli][repair]") {
  const CommandResult absent = millrace({"log", "repair", "--store", store.path() + "-not"});
  CHECK(absent.exit_code == 1);
  CHECK_THAT(absent.err, Contains("no store"));
  std::filesystem::resize_file(store.segment(), 100);
  const CommandResult result = repair({"--yes"});
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.err, Contains("nothing of the log in " + store.path() + " can be kept"));
}

}  // namespace millrace::test
