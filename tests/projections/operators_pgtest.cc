#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>

#include "projections/engine/build.h"
#include "projections/engine/worker.h"
#include "projections/wait.h"
#include "tests/projections/operator_cases.h"
#include "tests/projections/operator_statements.h"
#include "tests/support/capture_runner.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

// Every operator against PostgreSQL: random transactions go through a running capture and running
// workers; then each view must hold what a query gives on the source itself. A database serves many
// seeds, each of which begins with empty tables.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using namespace millrace::test;

namespace {

constexpr std::uint64_t kSeedsPerDatabase = 40;
constexpr std::uint64_t kSeedsPerWorker = 10;  ///< Then all are started anew.
constexpr auto kPatience = std::chrono::seconds(30);

using Lines = std::vector<std::string>;

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* given = std::getenv(name);
  return given ? std::strtoull(given, nullptr, 10) : otherwise;
}

std::string as_text(const Value& value) {
  if (value.is_null()) return "null";
  if (value.kind() == Value::Kind::kInteger) return std::to_string(value.integer());
  if (value.kind() != Value::Kind::kReal) return std::string(value.text());
  char real[32];
  return {real, std::to_chars(real, real + sizeof real, value.real()).ptr};
}

Lines rows_of(const std::filesystem::path& file, const OperatorCase& one) {
  const auto database = must(sqlite::Database::open(file, sqlite::Mode::kReadOnly));
  auto statement = must(database->prepare("SELECT " + one.columns + " FROM " + one.view.name()));
  Lines rows;
  while (must(statement.step())) {
    std::string row;
    for (int i = 0; i < statement.column_count(); ++i)
      row += (i == 0 ? "" : "|") + as_text(statement.column(i));
    rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

Lines rows_of(TestDatabase& database, const OperatorCase& one) {
  Lines rows;
  for (const auto& fields : database.query(one.sql)) {
    std::string row;
    for (const auto& field : fields)
      row += (&field == fields.data() ? "" : "|") + field.value_or("null");
    rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

/// Workers of all views, each on its thread.
class Workers {
 public:
  Workers(const std::vector<OperatorCase>& cases, Context context) : context_(std::move(context)) {
    context_.stop = stop_.get_token();
    for (const OperatorCase& one : cases) {
      workers_.push_back(std::make_unique<Worker>(one.view, context_, WorkerOptions{}));
      results_.emplace_back();
    }
    for (std::size_t i = 0; i < workers_.size(); ++i)
      threads_.emplace_back([this, i] { results_[i] = workers_[i]->run(); });
  }
  ~Workers() { static_cast<void>(stop()); }

  /// The first error that one of them ended with.
  Result<void> stop() {
    stop_.request_stop();
    threads_.clear();
    for (const auto& result : results_) MILLRACE_RETURN_IF_ERROR(result);
    return {};
  }

 private:
  std::stop_source stop_;
  Context context_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Result<void>> results_;
  std::vector<std::jthread> threads_;
};

/// A database, its capture, and the views.
class Source {
 public:
  Source(const std::vector<OperatorCase>& cases, OperatorStatements& statements) : cases_(cases) {
    database_.exec(kOperatorTables);
    if (statements.below(2) == 0) database_.exec("ALTER TABLE sales REPLICA IDENTITY FULL");
    if (statements.below(2) == 0)  // transactions with long texts come while they are in progress
      database_.exec("ALTER DATABASE " + database_.name() +
                     " SET logical_decoding_work_mem = '64kB'");
    for (int i = 0; i < 20; ++i) database_.exec(statements.transaction(false));
    capture_ = std::make_unique<BackgroundCapture>(options());
    if (!eventually([this] { return is_streaming(); }))
      throw std::runtime_error("capture does not stream");
    schemas_ = must(SchemaRegistry::open_read_only(store_));
    reader_ = must(LogReader::open(store_));
  }

  void start() { workers_ = std::make_unique<Workers>(cases_, context()); }
  void stop() {
    must(workers_->stop());
    workers_.reset();
  }

  /// Runs what a seed makes of empty tables, and waits until all views show it.
  void run(OperatorStatements& statements) {
    database_.exec(statements.clear());
    for (int n = 5 + statements.below(30); n > 0;) {
      std::string together;  // arrive sometimes one by one, sometimes at once
      for (int i = 1 + statements.below(8); i > 0 && n > 0; --i, --n)
        together += statements.transaction();
      database_.exec(together);
    }
    const auto before = must(parse_lsn(database_.value("SELECT pg_current_wal_insert_lsn()")));
    database_.exec(statements.last_transaction());
    wait_for(offset_behind(before));
  }

  /// The views made anew from the log.
  void rebuild() {
    const Context context = this->context();
    for (const OperatorCase& one : cases_) must(build_generation(one.view, context));
  }

  void compare() {
    for (const OperatorCase& one : cases_) {
      INFO("view " << one.view.name());
      REQUIRE(rows_of(views_ / (one.view.name() + ".db"), one) == rows_of(database_, one));
    }
  }

 private:
  CaptureOptions options() {
    CaptureOptions options;
    options.source = database_.uri();
    options.store = store_;
    options.slot = database_.name();
    return options;
  }
  Context context() const {
    return {.store = store_, .views = views_, .program = "views", .schemas = schemas_.get()};
  }
  bool is_streaming() {
    return database_.value(
               "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON "
               "s.active_pid = r.pid WHERE r.state = 'streaming' AND s.slot_name = '" +
               database_.name() + "'") == "1";
  }

  /// The end of the first transaction that was committed behind `lsn`.
  Offset offset_behind(Lsn lsn) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      const Batch* batch = must(reader_->next());
      if (batch != nullptr && batch->info.source.commit >= lsn.value && batch->last_of_transaction)
        return reader_->position();
      if (batch == nullptr) must(reader_->wait(std::chrono::milliseconds(100)));
      if (capture_->ended()) must(capture_->wait());
      if (std::chrono::steady_clock::now() > end) throw std::runtime_error("capture is stuck");
    }
  }
  void wait_for(Offset offset) {
    for (const OperatorCase& one : cases_)
      if (!must(
              wait_until_folded({store_, views_, one.view.name()}, {.offset = offset}, kPatience)))
        throw std::runtime_error("view " + one.view.name() + " is stuck");
  }

  const std::vector<OperatorCase>& cases_;
  TestDatabase database_;
  TemporaryDirectory temporary_{"millrace-operators"};
  const std::filesystem::path store_ = temporary_ / "store", views_ = temporary_ / "views";
  std::unique_ptr<BackgroundCapture> capture_;
  std::unique_ptr<SchemaRegistry> schemas_;
  std::unique_ptr<LogReader> reader_;
  std::unique_ptr<Workers> workers_;
};

}  // namespace

TEST_CASE("every operator gives what the same query gives on the source",
          "[projections][relational][operators][pg]") {
  const std::uint64_t begin = setting("MILLRACE_SEED", 1);
  const std::uint64_t end = begin + setting("MILLRACE_SEEDS", 100);
  const std::vector<OperatorCase> cases = operator_cases();
  for (std::uint64_t first = begin; first < end; first += kSeedsPerDatabase) {
    OperatorStatements beginning(first);
    Source source(cases, beginning);
    source.start();
    for (std::uint64_t seed = first; seed < std::min(end, first + kSeedsPerDatabase); ++seed) {
      INFO("MILLRACE_SEED=" << seed << ", on a database since " << first);
      if (seed != first && seed % kSeedsPerWorker == 0) source.stop(), source.start();
      OperatorStatements statements(seed);
      source.run(statements);
      source.compare();
    }
    INFO("views made anew, MILLRACE_SEED=" << first);
    source.stop();
    source.rebuild();
    source.compare();
  }
}
