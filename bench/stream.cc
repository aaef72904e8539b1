#include "bench/bench.h"
#include "bench/process.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {
namespace {

namespace fs = std::filesystem;

/// A backlog that can be drained again and again: the slot as it was before the backlog was
/// written, to copy, and the store that belongs to it.
class Backlog {
 public:
  Backlog(const Settings& settings, test::PostgresServer& server, std::string database)
      : settings_(settings),
        server_(server),
        database_(std::move(database)),
        seed_store_(settings.directory / (database_ + ".seed")),
        store_(settings.directory / (database_ + ".store")) {
    server_.create_database(database_);
  }

  /// The tables are there, empty or filled: what comes now is the backlog.
  void begin() {
    drain(seed_store_);
    server_.exec(database_,
                 "SELECT pg_copy_logical_replication_slot('millrace', 'seed_" + database_ + "')");
    server_.exec(database_, "SELECT pg_drop_replication_slot('millrace')");
  }
  void end() {
    server_.exec(database_, "SELECT pg_logical_emit_message(true, 'bench', ''); CHECKPOINT");
    end_lsn_ = server_.value(database_, "SELECT pg_current_wal_flush_lsn()");
    const std::string bytes = server_.value(
        database_, "SELECT sum(length(data)) FROM pg_logical_slot_peek_binary_changes('seed_" +
                       database_ +
                       "', NULL, NULL, 'proto_version', '2', 'publication_names', 'millrace')");
    sent_bytes_ = std::stod(bytes);
  }

  /// Of the backlog as pgoutput messages.
  double sent_bytes() const { return sent_bytes_; }
  /// What our last run made of it.
  double stored_bytes() const { return log_bytes(store_) - log_bytes(seed_store_); }

  ProcessCost ours() {
    copy_slot("millrace");
    fs::remove_all(store_);
    fs::copy(seed_store_, store_, fs::copy_options::recursive);
    ProcessCost cost = drain(store_);
    server_.exec(database_, "SELECT pg_drop_replication_slot('millrace')");
    return cost;
  }

  ProcessCost limit() {
    copy_slot("recv_" + database_);
    ProcessCost cost = run_measured({server_.program("pg_recvlogical"), "-d",
                                     server_.uri(database_), "-S", "recv_" + database_, "--start",
                                     "-o", "proto_version=2", "-o", "publication_names=millrace",
                                     "-f", "/dev/null", "--endpos", end_lsn_, "--no-loop"});
    server_.exec(database_, "SELECT pg_drop_replication_slot('recv_" + database_ + "')");
    return cost;
  }

 private:
  static double log_bytes(const fs::path& store) {
    std::uintmax_t bytes = 0;
    for (const auto& file : fs::directory_iterator(store / "log")) bytes += file.file_size();
    return static_cast<double>(bytes);
  }
  ProcessCost drain(const fs::path& store) {
    return run_measured({settings_.program, "capture", "run", "--source", server_.uri(database_),
                         "--store", store.string(), "--snapshot", "never", "--until-caught-up",
                         "--log-level", "warn"});
  }
  void copy_slot(const std::string& name) {
    server_.exec(database_, "SELECT pg_copy_logical_replication_slot('seed_" + database_ + "', '" +
                                name + "')");
  }

  const Settings& settings_;
  test::PostgresServer& server_;
  std::string database_;
  fs::path seed_store_, store_;
  std::string end_lsn_;
  double sent_bytes_ = 0;
};

void measure(const Settings& settings, Backlog& backlog, double changes, Figure& speed,
             Figure& memory, Figure& cpu, Figure& disk) {
  for (int round = 0; round < settings.rounds; ++round) {
    // Whoever goes second finds the WAL in the cache as the first one left it: take turns.
    ProcessCost ours, limit;
    if (round % 2 == 0)
      ours = backlog.ours(), limit = backlog.limit();
    else
      limit = backlog.limit(), ours = backlog.ours();
    speed.ours.push_back(changes / ours.seconds);
    speed.limits.push_back(changes / limit.seconds);
    memory.ours.push_back(ours.peak_mebibytes);
    memory.limits.push_back(96);
    cpu.ours.push_back(ours.cpu_seconds);
    cpu.limits.push_back(limit.cpu_seconds);
    disk.ours.push_back(backlog.stored_bytes());
    disk.limits.push_back(backlog.sent_bytes());
  }
}

}  // namespace

std::vector<Figure> run_stream(const Settings& settings) {
  test::PostgresServer server({.settings = {{"fsync", "on"},
                                            {"shared_buffers", "512MB"},
                                            {"max_wal_size", "8GB"},
                                            {"checkpoint_timeout", "30min"},
                                            {"autovacuum", "off"}}});
  std::vector<Figure> figures;
  const auto add = [&](const std::string& name) {
    figures.push_back(
        {.name = "stream " + name, .unit = "changes/s", .limit = "pg_recvlogical", .goal = 0.95});
    figures.push_back(
        {.name = "memory " + name, .unit = "MiB", .limit = "bound", .goal = 1, .at_most = true});
    figures.push_back({.name = "cpu " + name, .unit = "s", .limit = "pg_recvlogical"});
    figures.push_back(
        {.name = "disk " + name, .unit = "bytes", .limit = "pgoutput", .at_most = true});
  };

  const int transactions = settings.tiny ? 3 : 1000;
  add("W1");
  Backlog inserts(settings, server, "w1");
  server.exec("w1",
              "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text, total "
              "numeric(12,2),"
              " note text, created_at timestamptz, paid boolean)");
  inserts.begin();
  for (int i = 0; i < transactions; ++i) {
    stop_if_asked();
    server.exec("w1", "INSERT INTO orders SELECT " + std::to_string(i) +
                          " * 1000 + g, g % 997, 'shipped', g * 1.25,"
                          " 'note number ' || g, now(), g % 2 = 0 FROM generate_series(1, 1000) g");
  }
  inserts.end();
  measure(settings, inserts, transactions * 1000.0, figures[0], figures[1], figures[2], figures[3]);
  figures[3].goal = 0.25;

  add("W2");
  Backlog bank(settings, server, "w2");
  const std::string each = settings.tiny ? "10" : "50000";
  test::run_command({server.program("pgbench"), "-i", "-q", "-s", "10", server.uri("w2")}, {}, {},
                    std::chrono::minutes(5));
  server.exec("w2", "ALTER TABLE pgbench_history REPLICA IDENTITY FULL");  // it has no key
  bank.begin();
  const auto loaded = test::run_command(
      {server.program("pgbench"), "-n", "-c", "2", "-j", "2", "-t", each, server.uri("w2")},
      {.env = {{"PGOPTIONS", "-c synchronous_commit=off"}}}, {}, std::chrono::minutes(10));
  if (loaded.exit_code != 0) give_up("pgbench: " + loaded.err);
  bank.end();
  measure(settings, bank, 2 * std::stod(each) * 4, figures[4], figures[5], figures[6], figures[7]);
  return figures;
}

}  // namespace millrace::bench
