// Transactions that the server streams while they run: kept in the spill, appended at their commit.
//
// A server of its own has so little memory for decoding (64 kB) that whatever is larger is
// streamed; every test asks the server whether it was. MILLRACE_SEED repeats a random workload.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <set>

#include "base/bytes.h"
#include "capture/pgoutput/decoder.h"
#include "schemas/registry.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/pgoutput_bytes.h"
#include "tests/support/postgres_session.h"
#include "tests/support/process.h"

namespace millrace {
namespace {

using test::BackgroundCapture;
using test::CapturedLog;
using test::catch_up;
using test::read_captured_log;
using test::Session;

test::PostgresServer& server() {
  static test::PostgresServer server({.settings = {{"logical_decoding_work_mem", "64kB"},
                                                   {"max_connections", "280"},
                                                   {"max_prepared_transactions", "40"}}});
  return server;
}

/// Much goes through a server that was made slow: on a busy machine that takes long.
template <typename Condition>
bool in_time(Condition&& condition) {
  return test::eventually(std::forward<Condition>(condition), std::chrono::minutes(2));
}

/// A database on the server that streams, a store for it, and captures of one into the other.
struct Streams {
  test::TestDatabase database{server()};
  test::TemporaryDirectory directory;

  Streams() { database.exec(test::kOrders); }
  Path store() const { return directory.path() / "store"; }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = database.uri();
    options.store = store();
    options.slot = database.name();
    options.status_interval = std::chrono::milliseconds(100);
    return options;
  }
  test::ChildProcess child() const {
    return test::ChildProcess({MILLRACE_PROGRAM, "capture", "run", "--source", database.uri(),
                               "--store", store(), "--slot", database.name(), "--log-level",
                               "warn"});
  }
  bool connected() {
    return database.value(
               "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = '" +
               database.name() + "' AND NOT temporary") == "1";
  }
  /// Transactions that the server has streamed through the slot, aborted ones too.
  int streamed() {
    return std::atoi(database
                         .value("SELECT stream_txns FROM pg_stat_replication_slots WHERE "
                                "slot_name = '" +
                                database.name() + "'")
                         .c_str());
  }
  std::vector<std::string> spilled() const {
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& file : std::filesystem::directory_iterator(store() / "spill", none))
      names.push_back(file.path().filename());
    return names;
  }
  static std::uint64_t bytes_in(const Path& folder) {
    std::uint64_t bytes = 0;
    std::error_code gone;
    for (const auto& file : std::filesystem::directory_iterator(folder, gone)) {
      const auto size = file.file_size(gone);
      if (!gone) bytes += size;
    }
    return bytes;
  }
  std::uint64_t spilled_bytes() const { return bytes_in(store() / "spill"); }
  /// What a capture that runs has been sent is flushed to the WAL, so that the server decodes it.
  void flush_wal() { database.exec("SELECT pg_logical_emit_message(true, 'millrace', '')"); }
  std::uint64_t durable_changes() const { return test::count_changes(store()); }
  /// The table as SQL sees it, in the words of the log's JSON, without nulls: a column that came
  /// later is missing in the events before.
  CapturedLog::Table table_now(const std::string& table) {
    CapturedLog::Table rows;
    const std::string row_image = table == "orders"
                                      ? "to_jsonb(t) || jsonb_build_object('total', total::text)"
                                      : "to_jsonb(t)";
    for (const auto& row : database.query("SELECT id::text, jsonb_strip_nulls(" + row_image +
                                          ") FROM " + table + " t"))
      rows[*row[0]] = nlohmann::json::parse(*row[1]);
    return rows;
  }
  static CapturedLog::Table folded(const CapturedLog& log, const std::string& table) {
    const auto found = log.tables.find("public." + table);
    CapturedLog::Table rows = found == log.tables.end() ? CapturedLog::Table() : found->second;
    for (auto& [key, row] : rows)
      for (auto column = row.begin(); column != row.end();)
        column = column->is_null() ? row.erase(column) : std::next(column);
    return rows;
  }
};

std::string rows(int from, int to, const std::string& note = "md5(g::text)") {
  return "INSERT INTO orders SELECT g, 'x', g, " + note + " FROM generate_series(" +
         std::to_string(from) + ", " + std::to_string(to) + ") g";
}

TEST_CASE("a transaction in progress is spilled while it runs, and appended once it commits",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  BackgroundCapture capture(scene.options());
  REQUIRE(in_time([&] { return scene.connected(); }));
  Session session(scene.database);
  session.exec("BEGIN");
  session.exec(rows(1, 20'000));
  scene.database.exec("INSERT INTO orders VALUES (0, 'small', 0, NULL)");
  REQUIRE(in_time([&] { return scene.spilled_bytes() > 1 << 20; }));
  REQUIRE(in_time([&] { return scene.durable_changes() == 1; }));
  CHECK(scene.streamed() >= 1);
  session.exec("UPDATE orders SET status = 'y' WHERE id % 1000 = 0; SAVEPOINT s");
  session.exec(rows(30'001, 40'000));
  session.exec("ROLLBACK TO s");
  session.exec(rows(40'001, 41'000) + "; COMMIT");
  REQUIRE(in_time([&] { return scene.durable_changes() == 21'022; }));
  CHECK(scene.spilled().empty());
  // It is no harm to the position that is confirmed: the next start has nothing to do.
  REQUIRE(capture.stop());
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK((Streams::folded(log, "orders") == scene.table_now("orders")));
  CHECK(log.events.size() == 21'022);
  CHECK(log.events[1]["source"]["xid"] == log.events.back()["source"]["xid"]);
  CHECK(log.events[1]["source"]["xid"] != log.events[0]["source"]["xid"]);
}

TEST_CASE("F78: savepoints, and ten thousand subtransactions of which a third is rolled back",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  BackgroundCapture capture(scene.options());
  REQUIRE(in_time([&] { return scene.connected(); }));
  scene.database.exec(R"(DO $$ BEGIN
    FOR i IN 1..10000 LOOP
      BEGIN
        INSERT INTO orders VALUES (i, 'sub', i, repeat('n', 100));
        IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
      EXCEPTION WHEN raise_exception THEN NULL;
      END;
    END LOOP; END $$)");
  Session session(scene.database);
  session.exec("BEGIN; SAVEPOINT a");  // rolled back with all that was released into it
  for (int i = 0; i < 50; ++i)
    session.exec("SAVEPOINT b; " + rows(20'000 + i * 100, 20'099 + i * 100) +
                 "; RELEASE SAVEPOINT b");
  scene.flush_wal();
  REQUIRE(in_time([&] { return scene.spilled_bytes() > 100'000; }));
  session.exec("ROLLBACK TO a; " + rows(30'000, 30'010) + "; COMMIT");
  REQUIRE(in_time([&] { return scene.durable_changes() == 6'667 + 11; }));
  CHECK(scene.streamed() >= 2);
  REQUIRE(capture.stop());
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK((Streams::folded(log, "orders") == scene.table_now("orders")));
  CHECK(scene.spilled().empty());
}

TEST_CASE("F85: messages in a streamed transaction: its own are events, others split nothing",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  BackgroundCapture capture(scene.options());
  REQUIRE(in_time([&] { return scene.connected(); }));
  Session session(scene.database);
  session.exec("BEGIN");
  for (int i = 0; i < 10; ++i) {
    session.exec(rows(i * 1000 + 1, i * 1000 + 1000));
    session.exec(
        "SELECT pg_logical_emit_message(false, 'beside', 'x'), "
        "pg_logical_emit_message(true, 'in', '" +
        std::to_string(i) +
        "'), "
        "pg_logical_emit_message(true, 'millrace', 'own')");
    session.exec("SAVEPOINT s; SELECT pg_logical_emit_message(true, 'undone', 'x'); ROLLBACK TO s");
  }
  session.exec("COMMIT");
  REQUIRE(in_time([&] { return scene.durable_changes() == 10'010; }));
  CHECK(scene.streamed() >= 1);
  REQUIRE(capture.stop());
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.of("$messages", "m").size() == 10);
  for (const auto& message : log.of("$messages", "m")) CHECK(message["prefix"] == "in");
}

TEST_CASE("F71, F78: DDL in an open transaction, and in a part of it that is rolled back",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  BackgroundCapture capture(scene.options());
  REQUIRE(in_time([&] { return scene.connected(); }));
  Session session(scene.database);
  session.exec("BEGIN; " + rows(1, 2000));
  session.exec("ALTER TABLE orders ADD COLUMN more text DEFAULT 'm'; " +
               std::string("INSERT INTO orders SELECT g, 'x', g, 'n', 'more' FROM "
                           "generate_series(2001, 4000) g"));
  session.exec("SAVEPOINT s; ALTER TABLE orders ADD COLUMN never int; " +
               std::string("INSERT INTO orders SELECT g, 'x', g, 'n', 'more', 1 FROM "
                           "generate_series(4001, 6000) g"));
  scene.flush_wal();
  REQUIRE(in_time([&] { return scene.streamed() >= 1 && scene.spilled_bytes() > 400'000; }));
  session.exec(
      "ROLLBACK TO s; INSERT INTO orders SELECT g, 'x', g, 'n', 'after' FROM "
      "generate_series(6001, 8000) g; COMMIT");
  scene.database.exec("INSERT INTO orders VALUES (9000, 'x', 1, 'n', 'ordinary')");
  REQUIRE(in_time([&] { return scene.durable_changes() == 6'001; }));
  REQUIRE(capture.stop());
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  for (const auto& event : log.events) {
    const int id = event["after"]["id"];
    CHECK_FALSE(event["after"].contains("never"));
    CHECK(event["after"].value("more", "none") == (id <= 2000   ? "none"
                                                   : id <= 4000 ? "more"
                                                   : id <= 8000 ? "after"
                                                                : "ordinary"));
  }
  const auto schemas = SchemaRegistry::open_read_only(scene.store()).value()->all().value();
  CHECK(schemas.size() == 2);
}

std::size_t open_files(pid_t pid) {
  std::size_t count = 0;
  for (const auto& each :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
    count += each.is_symlink();
  return count;
}

/// Peak resident memory of a process, in MiB.
int peak_mebibytes(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atoi(line.c_str() + 6) / 1024;
  return 0;
}

TEST_CASE("F83: two hundred transactions whose streams take turns need few files and little memory",
          "[.streamed_large]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  test::ChildProcess capture = scene.child();
  REQUIRE(in_time([&] { return scene.connected(); }));
  constexpr int kSessions = 200;
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < kSessions; ++i) {
    sessions.push_back(std::make_unique<Session>(scene.database));
    sessions.back()->exec("BEGIN");
  }
  for (int round = 0; round < 3; ++round)
    for (int i = 0; i < kSessions; ++i) {
      const int from = i * 1000 + round * 100;
      // Every fifth one rolls its second round back.
      const bool undone = round == 1 && i % 5 == 0;
      sessions[static_cast<std::size_t>(i)]->exec(std::string(undone ? "SAVEPOINT s; " : "") +
                                                  rows(from, from + 99));
    }
  scene.flush_wal();
  REQUIRE(in_time([&] { return scene.spilled().size() >= kSessions - 5; }));
  CHECK(open_files(capture.pid()) <= 48);
  CHECK(peak_mebibytes(capture.pid()) <= 96);

  std::vector<int> order(kSessions);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::minstd_rand(83));
  std::vector<int> committed;
  for (const int i : order) {
    Session& session = *sessions[static_cast<std::size_t>(i)];
    if (i % 5 == 0) session.exec("ROLLBACK TO s");
    session.exec(i % 3 == 0 ? "ROLLBACK" : "COMMIT");
    if (i % 3 != 0) committed.push_back(i);
  }
  REQUIRE(in_time([&] { return scene.spilled().empty(); }));
  capture.kill(SIGTERM);
  REQUIRE(capture.wait() == 0);
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.streamed() >= kSessions - 5);

  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK((Streams::folded(log, "orders") == scene.table_now("orders")));
  std::vector<int> arrived;
  for (const auto& event : log.events) {
    const int i = event["after"]["id"].get<int>() / 1000;
    if (arrived.empty() || arrived.back() != i) arrived.push_back(i);
  }
  CHECK(arrived == committed);
}

TEST_CASE("F79, F1: a transaction larger than memory, killed while it spills and while it replays",
          "[.streamed_large]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  int first = 1;
  constexpr int kRows = 250'000;
  bool hit = false;  // a replay in its middle
  for (int attempt = 0; attempt < 4 && !hit; ++attempt, first += kRows) {
    const std::uint64_t before = scene.durable_changes();
    Session session(scene.database);
    {
      test::ChildProcess capture = scene.child();
      REQUIRE(in_time([&] { return scene.connected(); }));
      session.exec("BEGIN; " + rows(first, first + kRows - 1));
      REQUIRE(in_time([&] { return scene.spilled_bytes() > 4 << 20; }));
      capture.kill(SIGKILL);
      REQUIRE(capture.wait() == 128 + SIGKILL);
    }
    CHECK(scene.spilled().size() == 1);  // nobody removed it
    CHECK(scene.durable_changes() == before);
    test::ChildProcess capture = scene.child();
    scene.flush_wal();
    REQUIRE(in_time([&] { return scene.spilled_bytes() > 18u << 20; }));
    const std::uint64_t log_bytes = Streams::bytes_in(scene.store() / "log");
    session.exec("COMMIT");
    REQUIRE(in_time([&] {
      return Streams::bytes_in(scene.store() / "log") > log_bytes + (256 << 10) ||
             scene.durable_changes() > before;
    }));
    const int peak = peak_mebibytes(capture.pid());
    capture.kill(SIGKILL);
    REQUIRE(capture.wait() == 128 + SIGKILL);
    CHECK(peak > 0);
    CHECK(peak <= 96);
    const std::uint64_t end = scene.durable_changes();
    CHECK((end == before || end == before + kRows));  // nothing or all of it
    hit = end == before;

    test::ChildProcess last = scene.child();
    REQUIRE(in_time([&] { return scene.durable_changes() == before + kRows; }));
    CHECK(scene.spilled().empty());
    CHECK(peak_mebibytes(last.pid()) <= 96);
    last.kill(SIGTERM);
    REQUIRE(last.wait() == 0);
  }
  CHECK(hit);
  CHECK(scene.streamed() >= 1);
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.durable_changes() == static_cast<std::uint64_t>(first - 1));
}

TEST_CASE("F84: PREPARE, COMMIT PREPARED and ROLLBACK PREPARED across restarts come exactly once",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  const auto prepare = [&](int number, int count) {
    Session session(scene.database);
    const std::string gid = scene.database.name() + "_" + std::to_string(number);
    session.exec("BEGIN; SAVEPOINT s; " + rows(900'000, 900'100) + "; ROLLBACK TO s");
    if (count > 0) session.exec(rows(number * 10'000, number * 10'000 + count - 1));
    session.exec("PREPARE TRANSACTION '" + gid + "'");
    return gid;
  };
  const auto finish = [&](const char* how, const std::string& gid) {
    scene.database.exec(std::string(how) + " PREPARED '" + gid + "'");
  };
  const auto restart_server = [&](test::PostgresServer::Stop how) { server().restart({}, how); };
  // Small ones, large ones that are streamed, empty ones.
  const std::vector<int> sizes = {1, 5'000, 0};
  std::vector<std::string> to_commit, to_roll_back;
  int number = 0;
  std::uint64_t expected = 0;
  for (const int size : sizes)
    for (int i = 0; i < 4; ++i) {
      to_commit.push_back(prepare(number++, size));
      to_roll_back.push_back(prepare(number++, size));
      expected += static_cast<std::uint64_t>(size);
    }
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.durable_changes() == 0);  // none is committed
  CHECK(in_time([&] { return scene.streamed() >= 1; }));
  // One of each size is ended in each of these: capture is down, runs, was restarted with the
  // server.
  const auto end_one_of_each = [&](std::size_t i) {
    for (std::size_t size = 0; size < sizes.size(); ++size) {
      finish("ROLLBACK", to_roll_back[size * 4 + i]);
      finish("COMMIT", to_commit[size * 4 + i]);
    }
  };
  end_one_of_each(0);
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.durable_changes() == expected / 4);
  {
    BackgroundCapture capture(scene.options());
    REQUIRE(in_time([&] { return scene.connected(); }));
    end_one_of_each(1);
    REQUIRE(in_time([&] { return scene.durable_changes() == expected / 2; }));
    restart_server(test::PostgresServer::Stop::kImmediate);
    end_one_of_each(2);
    REQUIRE(in_time([&] { return scene.durable_changes() == expected / 4 * 3; }));
    CHECK(capture.stop());
  }
  end_one_of_each(3);
  restart_server(test::PostgresServer::Stop::kImmediate);
  REQUIRE(catch_up(scene.options()));
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.durable_changes() == expected);
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.transactions >= 8);
  CHECK((Streams::folded(log, "orders") == scene.table_now("orders")));
  CHECK(scene.spilled().empty());
}

/// Golden bytes: MILLRACE_RECORD=1 writes tests/golden/pgoutput_15_proto3.hex anew.
TEST_CASE("F84: what PostgreSQL 15 sends of two-phase commit, if it is asked, decodes",
          "[capture][pgoutput][streamed]") {
  if (server().version() < 15) return;
  test::TestDatabase database(server());
  const std::string slot = database.name();
  database.exec("CREATE TABLE things (id int PRIMARY KEY, name text)");
  database.exec("CREATE PUBLICATION recorded FOR TABLE things");
  database.exec("SELECT pg_create_logical_replication_slot('" + slot +
                "', 'pgoutput', false, true)");
  const auto prepared = [&](const std::string& gid, int from, int count, const char* end) {
    Session session(database);
    session.exec("BEGIN; INSERT INTO things SELECT g, repeat('x', 100) FROM generate_series(" +
                 std::to_string(from) + ", " + std::to_string(from + count - 1) + ") g");
    session.exec("PREPARE TRANSACTION '" + gid + "'");
    database.exec(std::string(end) + " PREPARED '" + gid + "'");
  };
  prepared("small", 1, 2, "COMMIT");
  prepared("large", 10, 400, "COMMIT");
  prepared("undone", 1000, 1, "ROLLBACK");
  std::vector<test::bytes::Recorded> messages;
  for (const auto& row : database.query(
           "SELECT lsn, encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('" + slot +
           "', NULL, NULL, 'proto_version', '3', 'streaming', 'on', 'two_phase', 'on', "
           "'publication_names', 'recorded')"))
    messages.push_back({parse_lsn(row.at(0).value()).value(), from_hex(row.at(1).value()).value()});
  const std::string golden = "pgoutput_15_proto3.hex";
  if (std::getenv("MILLRACE_RECORD") != nullptr) {
    std::ofstream file(std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/" + golden);
    file << "# Two-phase commit of three transactions as PostgreSQL sent it; see README.md.\n";
    for (const auto& message : messages)
      file << to_string(message.lsn) << ' ' << to_hex(message.bytes) << '\n';
  }
  const auto outline = [](const std::vector<test::bytes::Recorded>& recorded) {
    pgoutput::Decoder decoder;
    std::string kinds;
    for (const auto& message : recorded) {
      const auto decoded = decoder.decode(message.bytes);
      if (!decoded) FAIL(decoded.error().to_string() + ": " + to_hex(message.bytes));
      if (message.bytes[0] != 'I') kinds += message.bytes[0];
      if (const auto* end = std::get_if<const pgoutput::CommitPrepared*>(&*decoded))
        kinds += std::string((*end)->gid);
      if (const auto* end = std::get_if<const pgoutput::RollbackPrepared*>(&*decoded))
        kinds += std::string((*end)->gid);
    }
    return kinds;
  };
  CHECK(outline(messages).find("Ksmall") != std::string::npos);
  CHECK(outline(messages).find("pKlarge") != std::string::npos);
  CHECK(outline(messages).find("bPrundone") != std::string::npos);
  CHECK(outline(messages) == outline(test::bytes::read_golden(golden)));
}

/// A disk that has no room for what is spilled, while `full`.
class NoRoomToSpill final : public test::ForwardingFileSystem {
 public:
  std::atomic<bool> full = true;
  std::atomic<int> refused = 0;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
    if (path.extension() != ".spill") return file;
    return std::unique_ptr<File>(new Watched(std::move(file), *this));
  }

 private:
  class Watched final : public test::ForwardingFile {
   public:
    Watched(std::unique_ptr<File> file, NoRoomToSpill& disk)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
      if (!disk_.full) return ForwardingFile::write_at(position, bytes);
      ++disk_.refused;
      return Error(ErrorCode::kNoSpace, "write: no space left on device");
    }

   private:
    NoRoomToSpill& disk_;
  };
};

TEST_CASE("F19: with no room to spill, transactions in progress are left with the server",
          "[capture][streamed]") {
  Streams scene;
  REQUIRE(catch_up(scene.options()));
  NoRoomToSpill disk;
  CaptureOptions options = scene.options();
  options.files = &disk;
  BackgroundCapture capture(options);
  REQUIRE(in_time([&] { return scene.connected(); }));
  Session session(scene.database);
  session.exec("BEGIN; " + rows(1, 5'000));
  scene.database.exec("INSERT INTO orders VALUES (0, 'x', 0, NULL)");
  REQUIRE(in_time([&] { return disk.refused > 0; }));
  // It holds up nobody, and comes whole in the end.
  scene.database.exec("INSERT INTO orders VALUES (-1, 'x', 0, NULL)");
  REQUIRE(in_time([&] { return scene.durable_changes() == 2; }));
  session.exec("COMMIT");
  REQUIRE(in_time([&] { return scene.durable_changes() == 5'002; }));
  CHECK(disk.refused == 1);
  CHECK_FALSE(capture.ended());
  CHECK(scene.spilled().empty());
  // The next connection tries again.
  disk.full = false;
  const int before = scene.streamed();
  scene.database.exec(
      "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE "
      "slot_name = '" +
      scene.database.name() + "'");
  session.exec("BEGIN; " + rows(10'001, 15'000));
  scene.flush_wal();
  REQUIRE(in_time([&] { return !scene.spilled().empty(); }));
  session.exec("COMMIT");
  REQUIRE(in_time([&] { return scene.durable_changes() == 10'002; }));
  CHECK(in_time([&] { return scene.streamed() > before; }));
  REQUIRE(capture.stop());
  CHECK(read_captured_log(scene.store()).faults == std::vector<std::string>());
}

TEST_CASE("F38: while the disk stands still in a replay the server is answered",
          "[capture][streamed]") {
  Streams scene;
  scene.database.exec("ALTER DATABASE \"" + scene.database.name() +
                      "\" SET wal_sender_timeout = '1s'");
  REQUIRE(catch_up(scene.options()));
  test::TroubledDisk disk;
  const test::Release release{disk};
  CaptureOptions options = scene.options();
  options.files = &disk;
  BackgroundCapture capture(options);
  REQUIRE(in_time([&] { return scene.connected(); }));
  Session session(scene.database);
  session.exec("BEGIN; " + rows(1, 80'000, "repeat(md5(g::text), 3)"));
  REQUIRE(in_time([&] { return scene.spilled_bytes() > 9u << 20; }));
  const std::string connection = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" +
                                 scene.database.name() + "'";
  const std::string before = scene.database.value(connection);
  disk.stalled = true;
  session.exec("COMMIT");
  REQUIRE(in_time([&] { return disk.waiting > 0; }));
  const std::string replied =
      "SELECT extract(epoch FROM reply_time)::bigint FROM pg_stat_replication WHERE pid = " +
      before;
  const std::string began = scene.database.value(replied);
  REQUIRE_FALSE(began.empty());
  // Longer than the server would wait for a sign of life.
  CHECK(in_time([&] {
    const std::string now = scene.database.value(replied);
    return now.empty() || std::stoll(now) >= std::stoll(began) + 3;
  }));
  CHECK(scene.database.value(connection) == before);
  CHECK(scene.durable_changes() == 0);
  disk.release();
  REQUIRE(in_time([&] { return scene.durable_changes() == 80'000; }));
  CHECK(scene.database.value(connection) == before);
  CHECK(scene.streamed() >= 1);
  REQUIRE(capture.stop());
}

/// Sessions that each keep a transaction open for long and do anything in it, ended in any way.
class Workload {
 public:
  static constexpr int kSessions = 10;

  Workload(Streams& scene, unsigned seed) : scene_(scene), random_(seed) {
    scene_.database.exec("CREATE TABLE audit (id int PRIMARY KEY)");
    for (int i = 0; i < kSessions; ++i) {
      scene_.database.exec("CREATE TABLE " + table(i) + " (id int PRIMARY KEY, note text)");
      states_.push_back({.session = std::make_unique<Session>(scene_.database)});
    }
  }

  void step() {
    const int i = pick(0, kSessions - 1);
    State& state = states_[static_cast<std::size_t>(i)];
    if (!state.open) {
      state = {.session = std::move(state.session), .open = true};
      state.session->exec("BEGIN");
    }
    switch (pick(1, 16)) {
      case 1: return end(state);
      case 2: state.session->exec("SAVEPOINT s" + std::to_string(++state.depth)); return;
      case 3:
        if (state.depth > 0)
          state.session->exec("ROLLBACK TO s" + std::to_string(state.depth = pick(1, state.depth)));
        return;
      case 4:
        if (state.depth > 0) state.session->exec("RELEASE s" + std::to_string(state.depth--));
        return;
      case 5: {
        const std::string column = "c" + std::to_string(++columns_);
        state.session->exec("ALTER TABLE " + table(i) + " ADD COLUMN " + column + " text; UPDATE " +
                            table(i) + " SET " + column + " = 'new' WHERE id % 3 = 0");
        return;
      }
      case 6: state.session->exec("DELETE FROM " + table(i) + " WHERE id % 9 = 4"); return;
      case 7:
        state.session->exec(
            "UPDATE " + table(i) +
            " SET note = md5(note), id = -id WHERE id % 7 = " + std::to_string(pick(0, 6)));
        return;
      case 8:
        state.session->exec("SELECT pg_logical_emit_message(" +
                            std::string(pick(0, 1) == 0 ? "true" : "false") + ", 'm', 'x')");
        return;
      case 9:
        if (pick(1, 4) == 1) state.session->exec("TRUNCATE " + table(i));
        return;
      case 10: {  // an ordinary transaction beside all the open ones
        const std::string id = std::to_string(++audited_);
        scene_.database.exec("INSERT INTO audit VALUES (" + id + ")");
        committed_.push_back(audited_);
        return;
      }
      default: {
        const int from = next_id_;
        next_id_ += pick(1, 800);
        state.session->exec("INSERT INTO " + table(i) + " (id, note) SELECT g, md5(g::text) FROM " +
                            "generate_series(" + std::to_string(from) + ", " +
                            std::to_string(next_id_ - 1) + ") g");
      }
    }
  }
  void end_all() {
    for (State& state : states_)
      if (state.open) end(state);
  }
  static std::string table(int i) { return "t" + std::to_string(i); }
  /// What `audit` must be told of, in the order of the commits.
  const std::vector<int>& committed() const { return committed_; }

 private:
  struct State {
    std::unique_ptr<Session> session;
    bool open = false;
    int depth = 0;  // savepoints s1 to s<depth>
  };

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  void end(State& state) {
    const int id = ++audited_;
    state.session->exec("INSERT INTO audit VALUES (" + std::to_string(id) + ")");
    state.open = false;
    const bool keep = pick(1, 3) != 1;
    const std::string gid = "'" + scene_.database.name() + "_" + std::to_string(id) + "'";
    if (pick(1, 4) == 1) {
      state.session->exec("PREPARE TRANSACTION " + gid);
      scene_.database.exec(std::string(keep ? "COMMIT" : "ROLLBACK") + " PREPARED " + gid);
    } else {
      state.session->exec(keep ? "COMMIT" : "ROLLBACK");
    }
    if (keep) committed_.push_back(id);
  }

  Streams& scene_;
  std::minstd_rand random_;
  std::vector<State> states_;
  int next_id_ = 1, columns_ = 0, audited_ = 0;
  std::vector<int> committed_;
};

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

TEST_CASE("F83, F1: the fold of random long transactions is the tables, capture killed meanwhile",
          "[capture][streamed][streamed_random]") {
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  const int steps = setting("MILLRACE_STEPS", 160);
  CAPTURE(seed, steps);
  Streams scene;
  Workload workload(scene, seed);
  REQUIRE(catch_up(scene.options()));
  std::minstd_rand random(seed + 1);
  std::optional<test::ChildProcess> capture(scene.child());
  for (int i = 1; i <= steps; ++i) {
    workload.step();
    if (i % 40 != 0) continue;
    if (random() % 3 == 0) {  // and when something is spilled
      scene.flush_wal();
      REQUIRE(in_time([&] { return !scene.spilled().empty() || random() % 64 == 0; }));
    }
    capture->kill(SIGKILL);
    const int code = capture->wait().value_or(-1);
    INFO(capture->error_output());
    REQUIRE(code == 128 + SIGKILL);
    capture.emplace(scene.child());
  }
  workload.end_all();
  REQUIRE(in_time([&] { return scene.connected(); }));
  capture->kill(SIGTERM);
  REQUIRE(capture->wait() == 0);
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.streamed() >= 1);
  CHECK(scene.spilled().empty());

  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  for (int i = 0; i < Workload::kSessions; ++i) {
    const std::string table = Workload::table(i);
    CAPTURE(table);
    CHECK((Streams::folded(log, table) == scene.table_now(table)));
  }
  std::vector<int> audited;
  for (const auto& event : log.of("public.audit", "c")) audited.push_back(event["after"]["id"]);
  CHECK(audited == workload.committed());
}

}  // namespace
}  // namespace millrace
