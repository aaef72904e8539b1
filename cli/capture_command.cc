#include <spdlog/spdlog.h>

#include <boost/program_options.hpp>

#include "base/bytes.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "capture/capture.h"
#include "capture/check.h"
#include "capture/resnapshot.h"
#include "capture/table_patterns.h"
#include "capture/tail.h"
#include "cli/command.h"
#include "cli/findings.h"
#include "cli/quantity.h"
#include "cli/text.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

void declare_source(po::options_description& options, std::string& source) {
  options.add_options()(
      "source", po::value(&source)->value_name("URI")->required(),
      "the database: postgresql://user@host/name, or 'host=... dbname=...', or service=NAME");
}

void declare_tables(po::options_description& options, std::vector<std::string>& tables,
                    const std::string& otherwise) {
  const std::string help =
      "which tables: schema.table with '*' and '?', several with ',' between, '!' in front leaves "
      "out; by default " +
      otherwise;
  options.add_options()("tables", po::value(&tables)->value_name("PATTERNS"), help.c_str());
}

void declare_outbox(po::options_description& options, std::vector<std::string>& outbox) {
  options.add_options()(
      "outbox", po::value(&outbox)->value_name("TABLES"),
      "tables, as schema.table with ',' between, into which the application inserts domain events: "
      "with columns id, aggregatetype, aggregateid, type and payload. Their rows become events of "
      "the stream aggregatetype/aggregateid, not changes of a table");
}

constexpr CommandText kTail{
    "capture tail", "show a database's changes on the terminal as they are committed",
    "--source URI [--tables PATTERNS] [--limit N] [--json]",
    "Shows every change that is committed from now on, whole transactions in commit order, until\n"
    "interrupted. Needs no store: it uses a temporary slot and a publication of its own and "
    "leaves\n"
    "nothing behind in the database.\n"
    "\n"
    "A password is better kept out of the command line: use MILLRACE_SOURCE, ~/.pgpass or a\n"
    "connection service file.\n"
    "\n"
    "Example:\n"
    "  millrace capture tail --source postgresql://localhost/shop --tables 'public.*' --json"};

class CaptureTail final : public Command {
 public:
  CaptureTail() : Command(kTail) {}

  void declare(po::options_description& options) override {
    declare_source(options, capture_.source);
    declare_tables(options, capture_.tables, "public.*");
    options.add_options()                                                                //
        ("limit", po::value(&limit_text_)->value_name("N"), "end after so many events")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(capture_.tables));
    if (limit_text_.empty()) return {};
    MILLRACE_ASSIGN_OR_RETURN(limit_, parse_number("limit", limit_text_));
    if (limit_ == 0) return Error(ErrorCode::kInvalidArgument, "--limit must be at least 1");
    return {};
  }

  Result<void> run() override {
    const StopSignals signals;
    Output output;
    const auto print = [&](const EventRecord& event, SchemaRegistry& schemas) -> Result<void> {
      constexpr bool kWithOffset = false;
      MILLRACE_RETURN_IF_ERROR(json_
                                   ? append_event_json(event, schemas, output.text(), kWithOffset)
                                   : append_event_text(event, schemas, output.text(), kWithOffset));
      MILLRACE_RETURN_IF_ERROR(output.end_of_line());
      MILLRACE_RETURN_IF_ERROR(output.flush());  // somebody is watching
      if (--limit_ == 0) return Error(ErrorCode::kCancelled, "--limit is reached");
      return {};
    };
    return tail_source(capture_, signals.token(), print, [] {
      spdlog::info("watching: changes appear as they are committed; Ctrl-C ends this");
    });
  }

 private:
  TailOptions capture_;
  std::string limit_text_;
  std::uint64_t limit_ = ~std::uint64_t{0};
  bool json_ = false;
};

constexpr CommandText kCheck{
    "capture check", "tell what a database lacks to be captured, and how to mend it",
    "--source URI [--tables PATTERNS] [--slot NAME]\n"
    "                              [--publication NAME] [--outbox TABLES] [--json]",
    "Looks at the server's settings, the user's rights, free slots and connections, slot and\n"
    "publication, and each table's replica identity. Prints a line for each with, where something "
    "is\n"
    "missing, the statement that mends it. Changes nothing. Ends with 1 if there is a problem.\n"
    "\n"
    "A publication that capture has made and that differs from --tables is no problem but a note:\n"
    "the next `capture run` of the store that is fed from the slot brings it in step."};

class CaptureCheck final : public Command {
 public:
  CaptureCheck() : Command(kCheck) {}

  void declare(po::options_description& options) override {
    declare_source(options, check_.source);
    declare_tables(options, check_.tables, "public.*");
    options.add_options()  //
        ("slot", po::value(&check_.slot)->value_name("NAME")->default_value(check_.slot),
         "the replication slot that capture would use")  //
        ("publication",
         po::value(&check_.publication)->value_name("NAME")->default_value(check_.publication),
         "the publication that capture would use")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
    declare_outbox(options, check_.outbox);
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(check_.tables));
    MILLRACE_RETURN_IF_ERROR(parse_table_names(check_.outbox));
    return {};
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const auto findings, check_source(check_));
    Output output;
    std::size_t problems = 0;
    for (const Finding& finding : findings) {
      output.text() += json_ ? finding_json(finding) : finding_text(finding);
      if (finding.severity == Finding::Severity::kProblem) ++problems;
    }
    MILLRACE_RETURN_IF_ERROR(output.flush());
    if (problems == 0) return {};
    return Error(ErrorCode::kFailedPrecondition,
                 problems == 1
                     ? "1 problem keeps this database from being captured"
                     : grouped(problems) + " problems keep this database from being captured");
  }

 private:
  CheckOptions check_;
  bool json_ = false;
};

constexpr CommandText kRun{
    "capture run", "capture a database into a store, until stopped",
    "--source URI --store DIR [--tables PATTERNS] [--slot NAME]\n"
    "                            [--publication NAME] [--snapshot initial|never]\n"
    "                            [--snapshot-workers N]\n"
    "                            [--durability group|always] [--scrub-rate BYTES]\n"
    "                            [--compaction-rate BYTES] [--catch-up-from BYTES]\n"
    "                            [--until-caught-up] [--accept-publication-change]\n"
    "                            [--complete-rows PATTERNS] [--outbox TABLES]\n"
    "                            [--listen ADDRESS:PORT] [--probe-interval TIME]",
    "Makes the publication and the replication slot where they are missing, reads the tables'\n"
    "present rows once, then appends every committed transaction to the store, until SIGTERM or\n"
    "Ctrl-C. Started again, it goes on where it stopped: no change is lost and none comes twice.\n"
    "A publication that it has made is kept in step with --tables: a table that comes later is\n"
    "added and read, one that is left out from now on is dropped from it.\n"
    "\n"
    "A password is better kept out of the command line: use MILLRACE_SOURCE, ~/.pgpass or a\n"
    "connection service file.\n"
    "\n"
    "Examples:\n"
    "  millrace capture run --source postgresql://localhost/shop --store ./store\n"
    "  millrace capture run --source service=shop --store ./store --tables 'public.*,!public.log'"};

class CaptureRun final : public Command {
 public:
  CaptureRun() : Command(kRun) {}

  void declare(po::options_description& options) override {
    declare_source(options, capture_.source);
    options.add_options()("store", po::value(&store_)->value_name("DIR")->required(),
                          "the store's directory; made if missing");
    declare_tables(options, capture_.tables,
                   "those of the publication, or public.* if it has to be made");
    options.add_options()  //
        ("slot", po::value(&capture_.slot)->value_name("NAME")->default_value(capture_.slot),
         "the replication slot")  //
        ("publication",
         po::value(&capture_.publication)->value_name("NAME")->default_value(capture_.publication),
         "the publication")  //
        ("snapshot", po::value(&snapshot_)->value_name("WHEN")->default_value("initial"),
         "initial: read the rows that are there before the first change; never: changes only")  //
        ("snapshot-workers",
         po::value(&workers_)->value_name("N")->default_value(
             std::to_string(capture_.snapshot_workers)),
         "connections that read those rows at once, 1 to 64")  //
        ("durability", po::value(&durability_)->value_name("MODE")->default_value("group"),
         "group: one sync for what was committed meanwhile; always: a sync for each commit as soon "
         "as the disk is free. Either way PostgreSQL is told only of what was synced")  //
        ("scrub-rate",
         po::value(&scrub_rate_)
             ->value_name("BYTES")
             ->default_value(bytes_text(capture_.scrub_bytes_per_second)),
         "check full segments for damage again, about once a week, reading at most so much in a "
         "second; 0: never")  //
        ("compaction-rate",
         po::value(&compaction_rate_)
             ->value_name("BYTES")
             ->default_value(bytes_text(capture_.compaction_bytes_per_second)),
         "compact as the policies say, by itself, reading so much in a second while it does; 0: "
         "only `millrace log compact` does")  //
        ("catch-up-from",
         po::value(&catch_up_from_)
             ->value_name("BYTES")
             ->default_value(bytes_text(capture_.catch_up.from)),
         "so far behind, in bytes of WAL, it reads the backlog in large pieces, which is faster "
         "than "
         "the replication protocol and takes two more slots and temporary files on the server "
         "meanwhile; 0: never")  //
        ("listen", po::value(&capture_.listen)->value_name("ADDRESS:PORT"),
         "serve /metrics (Prometheus), /healthz and /readyz there; a port alone is one of "
         "127.0.0.1. There is no password: keep it from those whom it does not concern")  //
        ("probe-interval", po::value(&probe_interval_)->value_name("TIME")->default_value("5s"),
         "commit a small transaction so often, to measure how long a commit takes to become "
         "durable "
         "here; every five minutes at most while nothing else is written on the server; 0: "
         "never")  //
        ("until-caught-up", po::bool_switch(&capture_.until_caught_up),
         "end once everything committed before the start is in the store")  //
        ("accept-publication-change", po::bool_switch(&capture_.accept_publication_change),
         "go on although tables joined or left the publication, or --outbox, since the last run; "
         "rows that a new table has already are read beside the stream")  //
        ("complete-rows", po::value(&capture_.complete_rows)->value_name("PATTERNS"),
         "tables, as in --tables, whose changed rows are made whole with what the store knows of "
         "them: large values that an update left alone, and old rows, which PostgreSQL sends only "
         "under REPLICA IDENTITY FULL");
    declare_outbox(options, capture_.outbox);
  }

  Result<void> check() override {
    if (snapshot_ != "initial" && snapshot_ != "never")
      return Error(ErrorCode::kInvalidArgument,
                   "--snapshot '" + snapshot_ + "' is neither 'initial' nor 'never'");
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t workers,
                              parse_number("snapshot-workers", workers_));
    if (workers < 1 || workers > 64)
      return Error(ErrorCode::kInvalidArgument, "--snapshot-workers must be 1 to 64");
    capture_.snapshot_workers = static_cast<unsigned>(workers);
    const auto durability = durability_named(durability_);
    if (!durability || durability == Durability::kOs)
      return Error(ErrorCode::kInvalidArgument,
                   "--durability '" + durability_ + "' is neither 'group' nor 'always'");
    capture_.durability = *durability;
    MILLRACE_ASSIGN_OR_RETURN(capture_.scrub_bytes_per_second,
                              parse_bytes("--scrub-rate", scrub_rate_));
    MILLRACE_ASSIGN_OR_RETURN(capture_.compaction_bytes_per_second,
                              parse_bytes("--compaction-rate", compaction_rate_));
    MILLRACE_ASSIGN_OR_RETURN(capture_.catch_up.from,
                              parse_bytes("--catch-up-from", catch_up_from_));
    MILLRACE_ASSIGN_OR_RETURN(capture_.probe_interval,
                              parse_age("--probe-interval", probe_interval_));
    MILLRACE_RETURN_IF_ERROR(require_listen_address(capture_.listen));
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(capture_.tables));
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(capture_.complete_rows));
    MILLRACE_RETURN_IF_ERROR(parse_table_names(capture_.outbox));
    capture_.initial_snapshot = snapshot_ == "initial";
    capture_.store = store_;
    return {};
  }

  Result<void> run() override {
    const StopSignals signals;
    capture_.serve = true;
    return run_capture(capture_, signals.token());
  }

 private:
  CaptureOptions capture_;
  std::string store_, snapshot_, workers_, durability_, scrub_rate_, compaction_rate_;
  std::string catch_up_from_, probe_interval_;
};

constexpr CommandText kResnapshot{
    "capture resnapshot", "read rows of captured tables once more",
    "--source URI --store DIR --tables PATTERNS [--where CONDITION]",
    "Asks the capture that feeds the store to read the tables' rows as they are now and to append\n"
    "them beside the stream, each where it is right in commit order. A running capture begins "
    "within\n"
    "a second or two; without one, the next `millrace capture run` does. Prints the tables' "
    "names.\n"
    "\n"
    "Rows that the store has and the table has no more are not found by this.\n"
    "\n"
    "Example:\n"
    "  millrace capture resnapshot --source postgresql://localhost/shop --store ./store \\\n"
    "      --tables public.orders --where 'id >= 1000'"};

class CaptureResnapshot final : public Command {
 public:
  CaptureResnapshot() : Command(kResnapshot) {}

  void declare(po::options_description& options) override {
    declare_source(options, resnapshot_.source);
    options.add_options()("store", po::value(&store_)->value_name("DIR")->required(),
                          "the store's directory");
    options.add_options()  //
        ("tables", po::value(&resnapshot_.tables)->value_name("PATTERNS")->required(),
         "which tables: schema.table with '*' and '?', several with ',' between, '!' in front "
         "leaves out")  //
        ("where", po::value(&resnapshot_.where)->value_name("CONDITION"),
         "only rows of which this SQL condition is true; by default all");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(resnapshot_.tables));
    resnapshot_.store = store_;
    return {};
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const auto tables, request_resnapshot(resnapshot_));
    Output output;
    for (const std::string& table : tables) output.text() += printable(table) + "\n";
    return output.flush();
  }

 private:
  ResnapshotOptions resnapshot_;
  std::string store_;
};

}  // namespace

void add_capture_commands(Commands& commands) {
  commands.push_back(std::make_unique<CaptureTail>());
  commands.push_back(std::make_unique<CaptureCheck>());
  commands.push_back(std::make_unique<CaptureRun>());
  commands.push_back(std::make_unique<CaptureResnapshot>());
}

}  // namespace millrace
