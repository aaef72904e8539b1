#include <atomic>
#include <optional>
#include <thread>

#include "bench/bench.h"
#include "bench/paced_load.h"
#include "bench/process.h"
#include "eventstore/log_reader.h"
#include "projections/engine/worker.h"
#include "projections/projections.h"
#include "projections/sqlite/database.h"
#include "projections/wait.h"
#include "public.orders.pb.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {
namespace {

using namespace millrace::projections;
using ::bench::Orders;

constexpr int kTransactionsPerSecond = 1000;
constexpr int kClients = 8;
/// Between two looks of a reader at the view.
constexpr auto kPause = std::chrono::milliseconds(1);

RelationalView orders_view() {
  return view("orders", Version{1})
      .from(table<Orders>("public.orders"))
      .into(cache_table{.key = integer("id"),
                        .columns = {integer("customer_id"), text("total"), text("note")}});
}

/// The worker of a view, on a thread as in `run` of a program of views.
class FollowingView {
 public:
  FollowingView(const Path& store, const Path& views)
      : schemas_(must(SchemaRegistry::open_read_only(store))),
        view_(orders_view()),
        context_{.store = store,
                 .views = views,
                 .program = "bench",
                 .schemas = schemas_.get(),
                 .stop = stop_.get_token()},
        worker_(view_, context_, {}),
        thread_([this] { result_ = worker_.run(); }) {}
  ~FollowingView() { stop(); }

  /// Gives up if the worker had ended with an error.
  void stop() {
    stop_.request_stop();
    if (thread_.joinable()) thread_.join();
    must(result_);
  }

 private:
  std::stop_source stop_;
  const std::unique_ptr<SchemaRegistry> schemas_;
  const RelationalView view_;
  const Context context_;
  Worker worker_;
  Result<void> result_;
  std::jthread thread_;
};

/// From when on a reader saw everything below an offset.
struct Seen {
  Offset end;
  double at = 0;  ///< In microseconds of the machine's clock.
};

double now() { return micros_since(0); }

/// A reader of the view's file as applications have, in a thread of its own.
class ViewReader {
 public:
  explicit ViewReader(const Path& file)
      : database_(must(sqlite::Database::open(file, sqlite::Mode::kReadOnly))),
        query_(must(database_->prepare("SELECT \"offset\" FROM millrace_checkpoint"))),
        thread_([this](const std::stop_token& stop) {
          while (!stop.stop_requested() && look()) std::this_thread::sleep_for(kPause);
        }) {}

  /// What it saw until everything below `end` was there.
  std::vector<Seen> seen_until(Offset end) {
    wanted_ = end.value;
    thread_.join();
    if (failure_) give_up(failure_->to_string());
    return std::move(seen_);
  }

 private:
  bool look() {
    auto row = query_.step();
    if (!row) {
      failure_ = row.error();
      return false;
    }
    const Offset end{static_cast<std::uint64_t>(query_.column(0).integer())};
    query_.reset();
    if (seen_.empty() || end > seen_.back().end) seen_.push_back({end, now()});
    return end.value < wanted_;
  }

  const std::unique_ptr<sqlite::Database> database_;
  sqlite::Statement query_;
  std::vector<Seen> seen_;
  std::optional<Error> failure_;
  std::atomic<std::uint64_t> wanted_ = UINT64_MAX;
  std::jthread thread_;
};

/// Of one transaction.
struct Committed {
  double at = 0;       ///< In microseconds of the machine's clock.
  double durable = 0;  ///< Microseconds until another process could read it from the store.
  Offset end;
};

std::vector<Committed> read_commits(LogReader& reader, const PacedLoad& load, int transactions) {
  std::vector<Committed> commits;
  while (commits.size() < static_cast<std::size_t>(transactions)) {
    const Batch* batch = must(reader.next());
    if (load.failed()) give_up("the server is gone");
    if (batch == nullptr) {
      must(reader.wait(std::chrono::seconds(1)));
    } else if (batch->count > 0) {
      const auto at = static_cast<double>(batch->info.commit_time.value);
      commits.push_back({at, now() - at, Offset{batch->first.value + batch->count}});
    }
  }
  return commits;
}

std::vector<double> until_visible(const std::vector<Committed>& commits,
                                  const std::vector<Seen>& seen) {
  std::vector<double> latencies;
  auto shown = seen.begin();
  for (const Committed& commit : commits) {
    while (shown->end < commit.end) ++shown;
    latencies.push_back(shown->at - commit.at);
  }
  return latencies;
}

}  // namespace

std::vector<Figure> run_visible(const Settings& settings) {
  const int transactions = kClients * (settings.tiny ? 5 : 1000);
  test::PostgresServer server({.settings = {{"fsync", "on"}, {"autovacuum", "off"}}});
  server.create_database("visible");
  server.exec("visible",
              "CREATE TABLE orders (id bigserial PRIMARY KEY, customer_id integer, status text, "
              "total numeric(12,2), note text, created_at timestamptz, paid boolean)");
  const Path store = settings.directory / "visible.store", views = settings.directory / "views";
  const std::vector<std::string> capture{
      settings.program, "capture",      "run",         "--source", server.uri("visible"),
      "--store",        store.string(), "--log-level", "warn"};
  auto once = capture;
  once.push_back("--until-caught-up");
  run_measured(once);
  const PacedLoad::Options load{
      .database = "visible",
      .script =
          "\\set customer random(1, 1000)\n"
          "INSERT INTO orders (customer_id, total, note) VALUES (:customer, 19.90, 'a "
          "note');\n",
      .clients = kClients,
      .transactions = transactions,
      .per_second = kTransactionsPerSecond};

  std::vector<Figure> figures;
  for (const char* name : {"visible p50", "visible p99"})
    figures.push_back({.name = name,
                       .unit = "us",
                       .limit = "the same commits durable",
                       .goal = 5,
                       .at_most = true});
  for (int round = 0; round < settings.rounds; ++round) {
    const PipedProcess process(capture);
    wait_until_read(server, "visible", "millrace");
    FollowingView following(store, views);
    const auto end = must(LogReader::open(store))->durable_end();
    const ViewPlace place{store, views, "orders"};
    if (!must(wait_until_folded(place, {.offset = end}, std::chrono::minutes(1))))
      give_up("the view does not catch up");
    const auto reader = must(LogReader::open(store, {.from = end, .categories = {}}));
    ViewReader view(views / "orders.db");
    const PacedLoad pgbench(settings, server, load);
    const auto commits = read_commits(*reader, pgbench, transactions);
    const auto visible = until_visible(commits, view.seen_until(commits.back().end));
    following.stop();
    std::vector<double> durable;
    for (const Committed& commit : commits) durable.push_back(commit.durable);
    for (std::size_t i = 0; i < figures.size(); ++i) {
      figures[i].ours.push_back(percentile(visible, i == 0 ? 0.5 : 0.99));
      figures[i].limits.push_back(percentile(durable, i == 0 ? 0.5 : 0.99));
    }
  }
  return figures;
}

}  // namespace millrace::bench
