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
  enum class Way { kSocket, kTcp };
  enum class Protocol { kStream, kCatchUp };

  Backlog(const Settings& settings, test::PostgresServer& server, std::string database)
      : settings_(settings),
        server_(server),
        database_(std::move(database)),
        seed_store_(settings.directory / (database_ + ".seed")),
        store_(settings.directory / (database_ + ".store")) {
    fs::remove_all(seed_store_);  // of another server, if two workloads have run
    server_.create_database(database_);
  }

  /// The tables are there, empty or filled: what comes now is the backlog.
  void begin() {
    drain(seed_store_, Way::kSocket, Protocol::kStream);
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

  ProcessCost ours(Way way, Protocol protocol) {
    copy_slot("millrace");
    fs::remove_all(store_);
    fs::copy(seed_store_, store_, fs::copy_options::recursive);
    ProcessCost cost = drain(store_, way, protocol);
    server_.exec(database_, "SELECT pg_drop_replication_slot('millrace')");
    return cost;
  }

  ProcessCost limit(Way way) {
    copy_slot("recv_" + database_);
    ProcessCost cost =
        run_measured({server_.program("pg_recvlogical"), "-d", uri(way), "-S", "recv_" + database_,
                      "--start", "-o", "proto_version=2", "-o", "publication_names=millrace", "-f",
                      "/dev/null", "--endpos", end_lsn_, "--no-loop"});
    server_.exec(database_, "SELECT pg_drop_replication_slot('recv_" + database_ + "')");
    return cost;
  }

 private:
  static double log_bytes(const fs::path& store) {
    std::uintmax_t bytes = 0;
    for (const auto& file : fs::directory_iterator(store / "log")) bytes += file.file_size();
    return static_cast<double>(bytes);
  }
  std::string uri(Way way) const {
    return way == Way::kTcp ? server_.tcp_uri(database_) : server_.uri(database_);
  }
  ProcessCost drain(const fs::path& store, Way way, Protocol protocol) {
    return run_measured({settings_.program, "capture", "run", "--source", uri(way), "--store",
                         store.string(), "--snapshot", "never", "--until-caught-up", "--log-level",
                         "warn", "--catch-up-from", protocol == Protocol::kStream ? "0" : "64KiB"});
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

/// Seconds of one way through a backlog, against pg_recvlogical's over the same connection.
struct Measured {
  Figure speed, memory, cpu;
};

Measured measure(const Settings& settings, Backlog& backlog, double changes, std::string name,
                 Backlog::Way way, Backlog::Protocol protocol, double goal) {
  name += way == Backlog::Way::kTcp ? " TCP" : " socket";
  Measured all{
      .speed = {.name = name, .unit = "changes/s", .limit = "pg_recvlogical", .goal = goal},
      .memory =
          {.name = name + ", memory", .unit = "MiB", .limit = "bound", .goal = 1, .at_most = true},
      .cpu = {.name = name + ", cpu",
              .unit = "s",
              .limit = "pg_recvlogical",
              .goal = protocol == Backlog::Protocol::kStream ? 1.5 : 0,
              .at_most = true}};
  for (int round = 0; round < settings.rounds; ++round) {
    // Whoever goes second finds the WAL in the cache as the first one left it: take turns.
    ProcessCost ours, limit;
    if (round % 2 == 0)
      ours = backlog.ours(way, protocol), limit = backlog.limit(way);
    else
      limit = backlog.limit(way), ours = backlog.ours(way, protocol);
    all.speed.ours.push_back(changes / ours.seconds);
    all.speed.limits.push_back(changes / limit.seconds);
    all.memory.ours.push_back(ours.peak_mebibytes);
    all.memory.limits.push_back(96);
    all.cpu.ours.push_back(ours.cpu_seconds);
    all.cpu.limits.push_back(limit.cpu_seconds);
  }
  return all;
}

test::PostgresOptions server_options() {
  return {.settings = {{"fsync", "on"},
                       {"shared_buffers", "512MB"},
                       {"max_wal_size", "8GB"},
                       {"checkpoint_timeout", "30min"},
                       {"autovacuum", "off"}},
          .tcp = true};
}

/// W1: a thousand inserts in each of a thousand transactions. Gives how many.
double write_inserts(const Settings& settings, test::PostgresServer& server, Backlog& backlog) {
  const int transactions = settings.tiny ? 3 : 1000;
  server.exec("w1",
              "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text, total "
              "numeric(12,2),"
              " note text, created_at timestamptz, paid boolean)");
  backlog.begin();
  for (int i = 0; i < transactions; ++i) {
    stop_if_asked();
    server.exec("w1", "INSERT INTO orders SELECT " + std::to_string(i) +
                          " * 1000 + g, g % 997, 'shipped', g * 1.25,"
                          " 'note number ' || g, now(), g % 2 = 0 FROM generate_series(1, 1000) g");
  }
  backlog.end();
  return transactions * 1000.0;
}

/// W2: pgbench's transactions of three updates and an insert. Gives how many changes.
double write_bank(const Settings& settings, test::PostgresServer& server, Backlog& backlog) {
  const std::string each = settings.tiny ? "10" : "50000";
  test::run_command({server.program("pgbench"), "-i", "-q", "-s", "10", server.uri("w2")}, {}, {},
                    std::chrono::minutes(5));
  server.exec("w2", "ALTER TABLE pgbench_history REPLICA IDENTITY FULL");  // it has no key
  backlog.begin();
  const auto loaded = test::run_command(
      {server.program("pgbench"), "-n", "-c", "2", "-j", "2", "-t", each, server.uri("w2")},
      {.env = {{"PGOPTIONS", "-c synchronous_commit=off"}}}, {}, std::chrono::minutes(10));
  if (loaded.exit_code != 0) give_up("pgbench: " + loaded.err);
  backlog.end();
  return 2 * std::stod(each) * 4;
}

}  // namespace

std::vector<Figure> run_stream(const Settings& settings) {
  test::PostgresServer server(server_options());
  std::vector<Figure> figures;
  const auto add = [&](const std::string& name, Backlog& backlog, double changes) {
    for (const Backlog::Way way : {Backlog::Way::kSocket, Backlog::Way::kTcp}) {
      Measured measured =
          measure(settings, backlog, changes, name, way, Backlog::Protocol::kStream, 0.95);
      for (Figure* figure : {&measured.speed, &measured.memory, &measured.cpu})
        figures.push_back(std::move(*figure));
    }
    figures.push_back({.name = name + ", disk",
                       .unit = "bytes",
                       .limit = "pgoutput",
                       .at_most = true,
                       .ours = {backlog.stored_bytes()},
                       .limits = {backlog.sent_bytes()}});
  };
  Backlog inserts(settings, server, "w1");
  add("stream W1", inserts, write_inserts(settings, server, inserts));
  figures.back().goal = 0.25;
  Backlog bank(settings, server, "w2");
  add("stream W2", bank, write_bank(settings, server, bank));
  return figures;
}

std::vector<Figure> run_catchup(const Settings& settings) {
  test::PostgresServer server(server_options());
  std::vector<Figure> figures;
  const auto add = [&](Measured measured) {
    for (Figure* figure : {&measured.speed, &measured.memory, &measured.cpu})
      figures.push_back(std::move(*figure));
  };
  Backlog inserts(settings, server, "w1");
  const double changes = write_inserts(settings, server, inserts);
  add(measure(settings, inserts, changes, "catchup W1", Backlog::Way::kSocket,
              Backlog::Protocol::kCatchUp, 2.0));
  add(measure(settings, inserts, changes, "catchup W1", Backlog::Way::kTcp,
              Backlog::Protocol::kCatchUp, 4.0));
  Backlog bank(settings, server, "w2");
  add(measure(settings, bank, write_bank(settings, server, bank), "catchup W2",
              Backlog::Way::kSocket, Backlog::Protocol::kCatchUp, 0));
  return figures;
}

}  // namespace millrace::bench
