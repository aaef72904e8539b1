#include <boost/program_options.hpp>

#include "base/bytes.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "capture/resync.h"
#include "capture/table_patterns.h"
#include "capture/verify.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

/// A key may be any bytes.
Json text_or_hex(const std::string& key) {
  const std::string shown = printable(key, key.size());
  return shown == key ? Json(key) : Json{{"hex", to_hex(key)}};
}

std::string difference_json(const TableDifference& difference) {
  return to_line({{"table", difference.category},
                  {"difference", name_of(difference.kind)},
                  {"key", text_or_hex(difference.key)},
                  {"columns", difference.columns},
                  {"rows", difference.times}});
}

std::string difference_text(const TableDifference& difference) {
  std::string text = difference.category + " " + printable(difference.key) + ": " +
                     std::string(name_of(difference.kind));
  if (difference.times > 1) text += ", " + grouped(difference.times) + " times";
  for (std::size_t i = 0; i < difference.columns.size(); ++i)
    text += (i == 0 ? " in " : ", ") + printable(difference.columns[i]);
  return text + "\n";
}

std::string report_json(const TableReport& report) {
  const TableCounts& counts = report.counts;
  return to_line({{"table", report.category},
                  {"rows", counts.live},
                  {"stored", counts.stored},
                  {"equal", counts.equal},
                  {"incomplete", counts.incomplete},
                  {"different", counts.different},
                  {"missing_in_store", counts.missing},
                  {"missing_in_table", counts.gone}});
}

std::string reports_text(const std::vector<TableReport>& reports) {
  TextTable table({"table", "rows", "in the store", "equal", "incomplete", "different",
                   "missing in the store", "missing in the table"});
  for (const TableReport& report : reports) {
    const TableCounts& counts = report.counts;
    table.add({printable(report.category), grouped(counts.live), grouped(counts.stored),
               grouped(counts.equal), grouped(counts.incomplete), grouped(counts.different),
               grouped(counts.missing), grouped(counts.gone)});
  }
  std::string text;
  table.append_to(text);
  return text;
}

/// The first differences of each table as they come, then what all of it adds up to.
class Report {
 public:
  Report(std::uint64_t limit, bool json) : limit_(limit), json_(json) {}

  Result<void> add(const TableDifference& difference) {
    if (difference.category != category_) {
      category_ = difference.category;
      told_ = 0;
    }
    if (told_++ >= limit_) return {};
    output_.text() += json_ ? difference_json(difference) : difference_text(difference);
    return output_.text().size() < kEnough ? Result<void>() : output_.flush();
  }
  Result<void> finish(const std::vector<TableReport>& reports) {
    if (json_)
      for (const TableReport& report : reports) output_.text() += report_json(report);
    else
      output_.text() += reports_text(reports);
    return output_.flush();
  }

 private:
  static constexpr std::size_t kEnough = 64 << 10;

  const std::uint64_t limit_;
  const bool json_;
  std::string category_;
  std::uint64_t told_ = 0;
  Output output_;
};

constexpr CommandText kVerify{
    "capture verify", "compare the tables of a database with what a store says of them",
    "--source URI --store DIR [--tables PATTERNS] [--limit N]\n"
    "                               [--wait SECONDS] [--spill DIR] [--json]",
    "Reads the captured tables in one snapshot of the database and compares each row with what "
    "the\n"
    "store's events say of it as of that snapshot. Names the first differences of each table and\n"
    "counts them all. Changes nothing, and may run beside a capture and beside writers: it waits\n"
    "until the store has what the snapshot sees. Meanwhile TRUNCATE and ALTER TABLE of these "
    "tables\n"
    "wait for it. Ends with 1 if a row is missing or different.\n"
    "\n"
    "A row is incomplete, which is no difference, where it is equal as far as the store knows it:\n"
    "PostgreSQL does not send large values that an update left alone, nor the values that a new,\n"
    "renamed or retyped column has in rows that were written before. In a table without a key, "
    "equal\n"
    "rows are counted.\n"
    "\n"
    "Example:\n"
    "  millrace capture verify --source service=shop --store ./store --tables 'public.orders'"};

class CaptureVerify final : public Command {
 public:
  CaptureVerify() : Command(kVerify) {}

  void declare(po::options_description& options) override {
    options.add_options()  //
        ("source", po::value(&verify_.source)->value_name("URI")->required(),
         "the database: postgresql://user@host/name, or 'host=... dbname=...', or service=NAME")  //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")     //
        ("tables", po::value(&verify_.tables)->value_name("PATTERNS"),
         "which tables: schema.table with '*' and '?', several with ',' between, '!' in front "
         "leaves out; by default those of the publication")  //
        ("limit", po::value(&limit_text_)->value_name("N")->default_value("10"),
         "name so many differences of each table; all are counted")  //
        ("wait", po::value(&wait_text_)->value_name("SECONDS")->default_value("60"),
         "how long to wait for a running capture")  //
        ("spill", po::value(&spill_)->value_name("DIR"),
         "the folder for what does not fit into memory, up to the size of the tables' rows; by "
         "default the store's, in which no file appears")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(verify_.tables));
    MILLRACE_ASSIGN_OR_RETURN(limit_, parse_number("limit", limit_text_));
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t seconds, parse_number("wait", wait_text_));
    constexpr std::uint64_t kDay = 86'400;
    if (seconds > kDay)
      return Error(ErrorCode::kInvalidArgument, "--wait must be at most 86400 seconds");
    verify_.wait = std::chrono::seconds(seconds);
    verify_.store = store_;
    verify_.spill = spill_;
    return {};
  }

  Result<void> run() override {
    const StopSignals signals;
    Report report(limit_, json_);
    MILLRACE_ASSIGN_OR_RETURN(
        const auto reports,
        verify_source(verify_, signals.token(),
                      [&](const TableDifference& difference) { return report.add(difference); }));
    MILLRACE_RETURN_IF_ERROR(report.finish(reports));
    std::uint64_t differences = 0;
    for (const TableReport& table : reports) differences += table.counts.differences();
    if (differences == 0) return {};
    return Error(ErrorCode::kFailedPrecondition,
                 differences == 1 ? "1 row differs" : grouped(differences) + " rows differ")
        .hint("`millrace capture resync` appends what makes them equal.");
  }

 private:
  VerifyOptions verify_;
  std::string store_, spill_, limit_text_, wait_text_;
  std::uint64_t limit_ = 0;
  bool json_ = false;
};

constexpr CommandText kResync{
    "capture resync", "make a store what a database's tables are, after changes were lost",
    "--source URI --store DIR [--slot NAME] [--publication NAME]\n"
    "                               [--outbox TABLES] [--accept-new-source] [--spill DIR] [--json]",
    "The way out where capture halts because changes can no longer be read: a slot that is gone,\n"
    "lost or was moved, a server that was restored, promoted or replaced, a store that is an "
    "older\n"
    "copy, a publication that changed. Makes a new slot, compares all captured tables with what "
    "the\n"
    "store's events add up to, as of that slot, and appends only what differs, in one "
    "transaction:\n"
    "rows that the store lacks (r), rows that are different or incomplete (u), rows that are gone\n"
    "(d). Views fold it like any other change. An event in the category $capture tells of the "
    "gap:\n"
    "what happened to the rows in between is lost, and so are events that an application wrote\n"
    "there for streams, in messages or an outbox.\n"
    "\n"
    "No capture may run; start it again afterwards, with the same slot. The old slot is dropped "
    "only\n"
    "when all is ready; if this is killed then, run it again.\n"
    "\n"
    "Example:\n"
    "  millrace capture resync --source service=shop --store ./store"};

class CaptureResync final : public Command {
 public:
  CaptureResync() : Command(kResync) {}

  void declare(po::options_description& options) override {
    options.add_options()  //
        ("source", po::value(&resync_.source)->value_name("URI")->required(),
         "the database: postgresql://user@host/name, or 'host=... dbname=...', or service=NAME")  //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")     //
        ("slot", po::value(&resync_.slot)->value_name("NAME"),
         "the replication slot; by default the one that the store was fed from")  //
        ("publication", po::value(&resync_.publication)->value_name("NAME"),
         "the publication; by default the one that the store was fed from")  //
        ("outbox", po::value(&resync_.outbox)->value_name("TABLES"),
         "as that of `capture run` was; only where the store's source.json is gone")  //
        ("accept-new-source", po::bool_switch(&resync_.accept_new_source),
         "take another server or database than the store was fed from; what the store has and this "
         "one has not is then deleted by events")  //
        ("spill", po::value(&spill_)->value_name("DIR"),
         "the folder for what does not fit into memory, up to the size of the tables' rows; by "
         "default the store's, in which no file appears")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(parse_table_names(resync_.outbox));
    resync_.store = store_;
    resync_.spill = spill_;
    return {};
  }

  Result<void> run() override {
    const StopSignals signals;
    MILLRACE_ASSIGN_OR_RETURN(const ResyncReport report, resync_source(resync_, signals.token()));
    Output output;
    if (json_) {
      for (const TableReport& table : report.tables) output.text() += report_json(table);
      output.text() += to_line({{"reason", report.reason},
                                {"epoch", report.epoch},
                                {"captured_up_to", to_string(report.old_end)},
                                {"captured_from", to_string(report.new_start)}});
    } else {
      output.text() += reports_text(report.tables);
      output.text() += "resynced because of " + report.reason + ": what was committed between " +
                       to_string(report.old_end) + " and " + to_string(report.new_start) +
                       " came as the differences above\n";
    }
    return output.flush();
  }

 private:
  ResyncOptions resync_;
  std::string store_, spill_;
  bool json_ = false;
};

}  // namespace

void add_resync_commands(Commands& commands) {
  commands.push_back(std::make_unique<CaptureVerify>());
  commands.push_back(std::make_unique<CaptureResync>());
}

}  // namespace millrace
