#include "capture/setup.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using State = TeardownStep::State;

struct Admin : Scene {
  CheckOptions names() { return {.source = database.uri(), .tables = {}, .slot = database.name()}; }
  std::vector<State> tear_down(bool yes, const Path& from = {}) {
    const auto steps = tear_down_source(
        {.source = database.uri(), .slot = database.name(), .store = from, .yes = yes});
    if (!steps) {
      error = steps.error().message();
      return {};
    }
    std::vector<State> states;
    for (const TeardownStep& step : *steps) states.push_back(step.state);
    return states;
  }
  std::string slots() {
    return database.value(
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()");
  }
  std::string publications() { return database.value("SELECT count(*) FROM pg_publication"); }

  std::string error;
};

TEST_CASE_METHOD(Admin, "setup makes the publication once, run takes it, teardown removes both",
                 "[capture][setup]") {
  const auto first = set_up_source(names());
  REQUIRE(first);
  CHECK(first->made_publication);
  const auto again = set_up_source(names());
  REQUIRE(again);
  CHECK_FALSE(again->made_publication);
  CHECK(slots() == "0");
  REQUIRE(catch_up(options()));
  CHECK(slots() == "1");
  CHECK(publications() == "1");

  CHECK(tear_down(false, store()) == std::vector{State::kWouldRemove, State::kWouldRemove});
  CHECK(slots() == "1");
  CHECK(publications() == "1");
  CHECK(tear_down(true, store()) == std::vector{State::kRemoved, State::kRemoved});
  CHECK(slots() == "0");
  CHECK(publications() == "0");
  CHECK(tear_down(true, store()) == std::vector{State::kAbsent, State::kAbsent});
  CHECK(state_of(catch_up(options())) == "SLOT_MISSING");  // it says so, and makes none anew
}

TEST_CASE_METHOD(Admin, "teardown knows the publication that a first run has made",
                 "[capture][setup]") {
  REQUIRE(catch_up(options()));
  CHECK(tear_down(true) == std::vector{State::kRemoved, State::kRemoved});
}

TEST_CASE_METHOD(Admin, "teardown takes the names from the store", "[capture][setup]") {
  CaptureOptions chosen = options();
  chosen.publication = "shop";
  REQUIRE(catch_up(chosen));
  const auto steps = tear_down_source({.source = database.uri(), .store = store(), .yes = true});
  REQUIRE(steps);
  CHECK(steps->front().subject == "slot " + database.name());
  CHECK(steps->front().state == State::kRemoved);
  CHECK(steps->back().subject == "publication shop");
  CHECK(steps->back().state == State::kRemoved);
  const auto other = tear_down_source(
      {.source = database.uri(), .publication = "another", .store = store(), .yes = true});
  REQUIRE_FALSE(other);
  CHECK_THAT(other.error().message(), Contains("fed from another publication: shop"));
}

TEST_CASE_METHOD(Admin, "setup makes nothing where a table could not be updated any more",
                 "[capture][setup]") {
  database.exec("CREATE TABLE notes (note text)");
  const auto report = set_up_source(names());
  REQUIRE(report);
  CHECK_FALSE(report->made_publication);
  CHECK(publications() == "0");
  CHECK(std::any_of(report->findings.begin(), report->findings.end(), [](const Finding& finding) {
    return finding.severity == Finding::Severity::kProblem && finding.subject.ends_with("notes") &&
           finding.fix.find("ALTER TABLE") != std::string::npos;
  }));
}

TEST_CASE_METHOD(Admin, "teardown leaves what is not capture's", "[capture][setup][B70]") {
  database.exec("CREATE PUBLICATION millrace FOR TABLE orders");
  database.value("SELECT pg_create_logical_replication_slot('" + database.name() +
                 "', 'test_decoding')");
  CHECK(tear_down(true) == std::vector{State::kKept, State::kKept});
  CHECK(slots() == "1");
  CHECK(publications() == "1");
  database.value("SELECT pg_drop_replication_slot('" + database.name() + "')");

  TestDatabase other;  // a slot of ours, but of another database
  other.value("SELECT pg_create_logical_replication_slot('" + database.name() + "', 'pgoutput')");
  CHECK(tear_down(true).front() == State::kKept);
  CHECK(other.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '" +
                    database.name() + "'") == "1");
}

TEST_CASE_METHOD(Admin, "nobody is advised to drop a slot that is in use", "[capture][setup]") {
  const auto start = [&] {
    CaptureOptions other = options();
    other.store = directory / "other";
    auto outcome = catch_up(other);
    REQUIRE(state_of(outcome) == "SLOT_EXISTS");
    return outcome.error().to_string();
  };
  {
    BackgroundCapture capture(options());
    REQUIRE(eventually([&] { return is_streaming(); }));
    CHECK_THAT(start(), Contains("is in use by pid") && Contains("the capture of store") &&
                            Contains("use another --slot") &&
                            !Contains("pg_drop_replication_slot"));
    REQUIRE(capture.stop());
  }
  REQUIRE(eventually([&] { return slot_column("active") == "f"; }));
  CHECK_THAT(start(), Contains("exists, but") && Contains("pg_drop_replication_slot"));
}

TEST_CASE_METHOD(Admin, "teardown refuses while the slot is in use, and for another store's",
                 "[capture][setup][B70]") {
  CaptureOptions chosen = options();
  BackgroundCapture capture(chosen);
  REQUIRE(eventually([&] { return is_streaming(); }));
  CHECK(tear_down(true).empty());
  CHECK_THAT(error, Contains("in use by pid") && Contains("the capture of store"));
  REQUIRE(capture.stop());
  CHECK(slots() == "1");
  CHECK(publications() == "1");

  Admin another;
  REQUIRE(catch_up(another.options()));
  CHECK(tear_down(true, another.store()).empty());
  CHECK_THAT(error, Contains("fed from another slot"));
  CHECK(tear_down(true, directory.path() / "nowhere").empty());
  CHECK_THAT(error, Contains("no store"));
  CHECK(slots() == "1");
}

}  // namespace
}  // namespace millrace::test
