// F83, F71, F1: random long transactions of several sessions write domain events, by message and by
// outbox, in parts that stay and parts that are undone, beside rows and changes of shape, while
// others append to the same streams and capture is killed. At the end each stream has the events of
// what was committed, in commit order, and every append.
//
// The server has so little memory for decoding that larger transactions are streamed.
// MILLRACE_STEPS sets how long it goes on, MILLRACE_SEED repeats one.
#include <csignal>
#include <random>

#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/domain_events.h"
#include "tests/support/postgres_session.h"
#include "tests/support/process.h"

namespace millrace::test {
namespace {

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

PostgresServer& server() {
  static PostgresServer server(
      {.settings = {{"logical_decoding_work_mem", "64kB"}, {"max_prepared_transactions", "10"}}});
  return server;
}

/// The last is for all, the others are of a session each, which changes their shape.
constexpr const char* kOutboxes = "public.box1,public.box3,public.box5,public.outbox";

/// Sessions that each have a table and keep a transaction open for long.
class LongTransactions {
 public:
  static constexpr int kSessions = 6;

  LongTransactions(TestDatabase& database, unsigned seed)
      : database_(database), random_(seed), events_(seed) {
    database_.exec(create_outbox("outbox") + "; CREATE TABLE items (id int PRIMARY KEY)");
    for (int i = 0; i < kSessions; ++i) {
      const std::string box = "box" + std::to_string(i);
      states_.push_back({.session = std::make_unique<Session>(database_),
                         .table = table(i),
                         .outbox = i % 2 == 1 ? box : "outbox"});
      database_.exec(create(table(i)));
      if (i % 2 == 1) database_.exec(create_outbox(box));
    }
  }

  void step() {
    State& state = states_[static_cast<std::size_t>(pick(0, kSessions - 1))];
    if (!state.open) {
      state.session->exec("BEGIN");
      state.open = true;
    }
    switch (pick(1, 20)) {
      case 1: return end(state);
      case 2:
        state.marks.push_back(state.written.mark());
        return state.session->exec("SAVEPOINT " + savepoint(state.marks.size()));
      case 3: return undo(state);
      case 4:
        if (state.marks.empty()) return;
        state.session->exec("RELEASE " + savepoint(state.marks.size()));
        return state.marks.pop_back();
      case 5:
      case 6: return attempt(state, shape(state.table));
      case 7: return attempt(state, outbox_shape(state.outbox));
      case 8:
      case 9:
      case 10: return state.session->exec(events_.write(state.written, state.outbox));
      case 11: {  // some go to the store's disk before their commit
        const int count = pick(1, 16) == 1 ? 16'000 : pick(1, 400);
        return state.session->exec(events_.write_many(state.written, count, state.outbox));
      }
      case 12: return beside();
      default: return state.session->exec(rows(state.table));
    }
  }
  void end_all() {
    for (State& state : states_)
      if (state.open) end(state);
  }
  static std::string table(int i) { return "t" + std::to_string(i); }
  /// Of what was committed, in commit order.
  const std::vector<std::string>& events() const { return committed_; }

 private:
  struct State {
    std::unique_ptr<Session> session;
    std::string table, outbox;
    bool open = false;
    WrittenEvents written = {};
    std::vector<WrittenEvents::Mark> marks = {};  // one for each savepoint
  };

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  static std::string create(const std::string& table) {
    return "CREATE TABLE " + table + " (id int PRIMARY KEY, v text)";
  }
  static std::string savepoint(std::size_t depth) { return "s" + std::to_string(depth); }

  void undo(State& state) {
    if (state.marks.empty()) return;
    state.marks.resize(static_cast<std::size_t>(pick(1, static_cast<int>(state.marks.size()))));
    state.session->exec("ROLLBACK TO " + savepoint(state.marks.size()));
    state.written.undo(state.marks.back());
  }

  /// What fails is undone: a column may not be there, or a table be somebody else's for the moment.
  static void attempt(State& state, const std::string& sql) {
    state.session->exec("SAVEPOINT attempt");
    try {
      state.session->exec(sql);
    } catch (const std::runtime_error&) {
      state.session->exec("ROLLBACK TO attempt");
    }
    state.session->exec("RELEASE attempt");
  }

  std::string shape(const std::string& table) {
    const std::string alter = "ALTER TABLE " + table + " ";
    const std::string fresh = "c" + std::to_string(columns_ + 1);
    const std::string any = "c" + std::to_string(pick(std::max(columns_ - 10, 0), columns_));
    switch (pick(1, 10)) {
      case 1: return ++columns_, alter + "ADD " + fresh + " int DEFAULT 7";
      case 2: return ++columns_, alter + "ADD " + fresh + " text";
      case 3: return ++columns_, alter + "RENAME " + any + " TO " + fresh;
      case 4: return alter + "DROP " + any;
      case 5: return alter + "ALTER " + any + " TYPE text";
      case 6: return "TRUNCATE " + table;
      case 7:
        return pick(1, 3) != 1 ? alter + "REPLICA IDENTITY FULL"
                               : "DROP TABLE " + table + ";" + create(table);
      case 8: return alter + "REPLICA IDENTITY DEFAULT";
      default: return "UPDATE " + table + " SET " + any + " = '5' WHERE id % 2 = 0";
    }
  }

  std::string outbox_shape(const std::string& outbox) {
    if (outbox == "outbox") return "SELECT 1";  // the other sessions would wait
    const std::string alter = "ALTER TABLE " + outbox + " ";
    switch (pick(1, 6)) {
      case 1: return alter + "ADD c" + std::to_string(++columns_) + " int DEFAULT 7";
      case 2: return alter + "DROP c" + std::to_string(pick(std::max(columns_ - 10, 0), columns_));
      case 3: return alter + "ALTER payload TYPE text";
      case 4: return alter + "ALTER payload TYPE jsonb USING payload::jsonb";
      case 5: return alter + "ALTER aggregateid TYPE varchar(20), ALTER id TYPE numeric";
      default: return alter + "REPLICA IDENTITY FULL; DELETE FROM " + outbox;
    }
  }

  std::string rows(const std::string& table) {
    switch (pick(1, 5)) {
      case 1: return "DELETE FROM " + table + " WHERE id % 9 = " + std::to_string(pick(0, 8));
      case 2:
        return "UPDATE " + table +
               " SET v = md5(v), id = -id WHERE id % 7 = " + std::to_string(pick(0, 6));
      default: {
        const int from = next_id_;
        next_id_ += pick(1, 400);
        return "INSERT INTO " + table + " (id, v) SELECT g, md5(g::text) FROM generate_series(" +
               std::to_string(from) + ", " + std::to_string(next_id_ - 1) + ") g";
      }
    }
  }

  /// A short transaction beside those that are open.
  void beside() {
    if (pick(1, 3) == 1) return look_after_outbox();
    WrittenEvents written;
    database_.exec(events_.write(written));
    keep(written);
  }

  /// None of it is an event. Where others have it locked it is left: they wait for what this thread
  /// does next.
  void look_after_outbox() {
    const std::string what[] = {"ALTER TABLE outbox ADD x" + std::to_string(++columns_) + " int",
                                "UPDATE outbox SET type = 'Never', aggregateid = 'never'",
                                "DELETE FROM outbox", "TRUNCATE outbox, items"};
    try {
      database_.exec("SET lock_timeout = '20ms';" + what[pick(0, 3)]);
      database_.exec("RESET lock_timeout");
    } catch (const std::runtime_error&) {
    }
  }

  void end(State& state) {
    const bool kept = pick(1, 3) != 1;
    if (pick(1, 4) == 1) {
      const std::string gid = "'" + database_.name() + "_" + std::to_string(++prepared_) + "'";
      state.session->exec("PREPARE TRANSACTION " + gid);
      database_.exec(std::string(kept ? "COMMIT" : "ROLLBACK") + " PREPARED " + gid);
    } else {
      state.session->exec(kept ? "COMMIT" : "ROLLBACK");
    }
    if (kept) keep(state.written);
    state.open = false;
    state.written = {};
    state.marks.clear();
  }
  void keep(const WrittenEvents& written) {
    committed_.insert(committed_.end(), written.lines.begin(), written.lines.end());
  }

  TestDatabase& database_;
  std::minstd_rand random_;
  DomainEventWriter events_;
  std::vector<State> states_;
  int next_id_ = 1, columns_ = 0, prepared_ = 0;
  std::vector<std::string> committed_;
};

struct Events {
  TestDatabase database{server()};
  TemporaryDirectory directory;

  Path store() const { return directory.path() / "store"; }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = database.uri();
    options.store = store();
    options.slot = database.name();
    options.outbox = {"public.box1", "public.box3", "public.box5", "public.outbox"};
    return options;
  }
  /// `drains`: what it is behind at its start it reads in stretches.
  ChildProcess child(bool drains) const {
    return ChildProcess({MILLRACE_PROGRAM, "capture", "run", "--source", database.uri(), "--store",
                         store(), "--slot", database.name(), "--outbox", kOutboxes, "--log-level",
                         "warn", "--catch-up-from", drains ? "20000" : "0"});
  }
  std::string slot(const std::string& column, const std::string& view) {
    return database.value("SELECT " + column + " FROM " + view + " WHERE slot_name = '" +
                          database.name() + "'");
  }
};

TEST_CASE("F83, F71, F1: random transactions' domain events come once, in order, beside others'",
          "[capture][application][domain_events_random]") {
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  const int steps = setting("MILLRACE_STEPS", 200);
  CAPTURE(seed, steps);
  Events scene;
  LongTransactions workload(scene.database, seed);
  REQUIRE(catch_up(scene.options()));
  std::minstd_rand random(seed + 1);
  std::optional<ChildProcess> capture(scene.child(false));
  OtherAppends others(scene.store(), seed);
  for (int i = 1; i <= steps; ++i) {
    workload.step();
    if (i % 60 != 0) continue;
    if (random() % 3 != 0) {
      const std::uint64_t before = count_changes(scene.store());
      REQUIRE(eventually([&] { return count_changes(scene.store()) > before; },
                         std::chrono::minutes(2)));
    }
    capture->kill(SIGKILL);
    const int code = capture->wait().value_or(-1);
    INFO(capture->error_output());
    REQUIRE(code == 128 + SIGKILL);
    capture.emplace(scene.child(random() % 2 == 0));
  }
  workload.end_all();
  others.stop();
  REQUIRE(eventually([&] { return scene.slot("active", "pg_replication_slots") == "t"; },
                     std::chrono::minutes(2)));
  capture->kill(SIGTERM);
  const auto code = capture->wait();
  INFO(capture->error_output());
  REQUIRE(code == 0);
  REQUIRE(catch_up(scene.options()));
  // Where a part with messages is rolled back, all that is in progress is asked for anew, as whole.
  if (scene.slot("stream_txns", "pg_stat_replication_slots") == "0") WARN("nothing was streamed");

  const LoggedEvents events = read_domain_events(scene.store());
  CHECK(events.faults == std::vector<std::string>());
  CHECK(first_difference(workload.events(), events.captured) == "");
  CHECK(others.failure() == "");
  CHECK(first_difference(others.lines(), events.appended) == "");
  CHECK(events.captured.size() > 20);  // or nothing was tested
  CHECK(!events.appended.empty());
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  for (int i = 0; i < LongTransactions::kSessions; ++i) {
    CAPTURE(i);
    CHECK(shaped_difference(scene.database, LongTransactions::table(i), log) == "");
  }
}

}  // namespace
}  // namespace millrace::test
