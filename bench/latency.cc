#include <unistd.h>

#include "base/bytes.h"
#include "bench/bench.h"
#include "bench/paced_load.h"
#include "bench/process.h"
#include "capture/pgoutput/framing.h"
#include "eventstore/log_reader.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {
namespace {

constexpr int kTransactionsPerSecond = 2000;
constexpr int kClients = 8;

PacedLoad::Options load_of(int transactions) {
  return {.database = "latency",
          .script =
              "\\set total random(1, 1000)\n"
              "INSERT INTO orders (total, note) VALUES (:total, 'a note');\n",
          .clients = kClients,
          .transactions = transactions,
          .per_second = kTransactionsPerSecond};
}

/// Size of the pgoutput message at the front of `bytes`, of the four kinds that this load makes; 0:
/// not whole yet.
std::size_t message_size(std::string_view bytes) {
  ByteReader in(bytes);
  switch (in.u8()) {
    case 'B': in.bytes(20); break;
    case 'C': in.bytes(25); break;
    case 'R':
      in.bytes(4), in.cstring(), in.cstring(), in.u8();
      for (int columns = in.u16_be(); columns > 0; --columns) in.u8(), in.cstring(), in.bytes(8);
      break;
    case 'I':
      in.bytes(5);
      for (int columns = in.u16_be(); columns > 0; --columns)
        if (in.u8() == 't') in.bytes(in.u32_be());
      break;
    default: give_up("pg_recvlogical wrote a message of an unknown kind");
  }
  return in.failed() ? 0 : static_cast<std::size_t>(in.position() - bytes.data());
}

/// Commit to the moment at which pg_recvlogical's output could be read.
std::vector<double> receive_latencies(const Settings& settings, test::PostgresServer& server,
                                      int transactions) {
  PipedProcess process({server.program("pg_recvlogical"), "-d", server.uri("latency"), "-S", "recv",
                        "--start", "-o", "proto_version=2", "-o", "publication_names=millrace",
                        "-f", "-", "--no-loop"});
  wait_until_read(server, "latency", "recv");
  const PacedLoad load(settings, server, load_of(transactions));
  std::vector<double> latencies;
  std::string pending;
  while (latencies.size() < static_cast<std::size_t>(transactions)) {
    char buffer[65536];
    const ssize_t count = ::read(process.descriptor(), buffer, sizeof buffer);
    if (count <= 0) give_up("pg_recvlogical ended early");
    pending.append(buffer, static_cast<std::size_t>(count));
    std::string_view rest = pending;
    while (!rest.empty()) {
      const std::size_t size = message_size(rest);
      if (size == 0 || size + 1 > rest.size()) break;
      if (rest[0] == 'C')
        latencies.push_back(
            micros_since(static_cast<std::int64_t>(load_be<std::uint64_t>(rest.data() + 18)) +
                         pgoutput::kEpochUnixMicros));
      rest.remove_prefix(size + 1);  // and the newline that it adds
    }
    pending.erase(0, pending.size() - rest.size());
  }
  return latencies;
}

/// Commit to the moment at which another process sees the transaction as durable in the store.
std::vector<double> store_latencies(const Settings& settings, test::PostgresServer& server,
                                    const Path& store, int transactions) {
  PipedProcess process({settings.program, "capture", "run", "--source", server.uri("latency"),
                        "--store", store.string(), "--log-level", "warn"});
  wait_until_read(server, "latency", "millrace");
  auto end = must(LogReader::open(store))->durable_end();
  const auto reader = must(LogReader::open(store, {.from = end, .categories = {}}));
  const PacedLoad load(settings, server, load_of(transactions));
  std::vector<double> latencies;
  while (latencies.size() < static_cast<std::size_t>(transactions)) {
    const Batch* batch = must(reader->next());
    if (load.failed()) give_up("the server is gone");
    if (batch == nullptr)
      must(reader->wait(std::chrono::seconds(1)));
    else if (batch->count > 0)
      latencies.push_back(micros_since(batch->info.commit_time.value));
  }
  return latencies;
}

}  // namespace

std::vector<Figure> run_latency(const Settings& settings) {
  const int transactions = kClients * (settings.tiny ? 5 : 1000);
  test::PostgresServer server({.settings = {{"fsync", "on"}, {"autovacuum", "off"}}});
  server.create_database("latency");
  server.exec("latency",
              "CREATE TABLE orders (id bigserial PRIMARY KEY, total numeric(12,2), note text)");
  const Path store = settings.directory / "latency.store";
  run_measured({settings.program, "capture", "run", "--source", server.uri("latency"), "--store",
                store.string(), "--until-caught-up", "--log-level", "warn"});
  server.exec("latency", "SELECT pg_create_logical_replication_slot('recv', 'pgoutput')");

  std::vector<Figure> figures;
  for (const char* name : {"latency p50", "latency p99"})
    figures.push_back({.name = name,
                       .unit = "us",
                       .limit = "pg_recvlogical's output",
                       .goal = 3,
                       .at_most = true});
  for (int round = 0; round < settings.rounds; ++round) {
    // Each drains the other's load first, so that it starts at the end.
    server.exec("latency", "SELECT pg_replication_slot_advance('recv', pg_current_wal_lsn())");
    const auto limit = receive_latencies(settings, server, transactions);
    run_measured({settings.program, "capture", "run", "--source", server.uri("latency"), "--store",
                  store.string(), "--until-caught-up", "--log-level", "warn"});
    const auto ours = store_latencies(settings, server, store, transactions);
    for (int i = 0; i < 2; ++i) {
      figures[static_cast<std::size_t>(i)].ours.push_back(percentile(ours, i == 0 ? 0.5 : 0.99));
      figures[static_cast<std::size_t>(i)].limits.push_back(percentile(limit, i == 0 ? 0.5 : 0.99));
    }
  }
  return figures;
}

}  // namespace millrace::bench
