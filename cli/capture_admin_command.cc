#include <boost/program_options.hpp>

#include "base/output.h"
#include "base/progress.h"
#include "capture/setup.h"
#include "capture/table_patterns.h"
#include "cli/command.h"
#include "cli/findings.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

void declare_source(po::options_description& options, std::string& source) {
  options.add_options()(
      "source", po::value(&source)->value_name("URI")->required(),
      "the database: postgresql://user@host/name, or 'host=... dbname=...', or service=NAME");
}

constexpr CommandText kSetup{
    "capture setup", "make the publication in a database that is to be captured",
    "--source URI [--tables PATTERNS] [--slot NAME]\n"
    "                              [--publication NAME] [--outbox TABLES] [--json]",
    "Makes the publication where it is missing, with the right to do so, and tells what else the\n"
    "database lacks to be captured, as `capture check` does. A publication that is there is left\n"
    "as it is. `capture run` makes it, too; this is for when another role owns the tables. The\n"
    "slot is made by `capture run`, since the server keeps its WAL from then on.\n"
    "\n"
    "It makes nothing where a table could not be updated any more once it is published. Ends with\n"
    "1 if there is a problem."};

class CaptureSetup final : public Command {
 public:
  CaptureSetup() : Command(kSetup) {}

  void declare(po::options_description& options) override {
    declare_source(options, setup_.source);
    options.add_options()  //
        ("slot", po::value(&setup_.slot)->value_name("NAME")->default_value(setup_.slot),
         "the replication slot")  //
        ("publication",
         po::value(&setup_.publication)->value_name("NAME")->default_value(setup_.publication),
         "the publication")  //
        ("tables", po::value(&setup_.tables)->value_name("PATTERNS"),
         "which tables: schema.table with '*' and '?', several with ',' between, '!' in front "
         "leaves out; by default public.*")  //
        ("outbox", po::value(&setup_.outbox)->value_name("TABLES"),
         "tables whose rows are domain events, as for `capture run`: they go into the publication, "
         "too")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(TablePatterns::parse(setup_.tables));
    MILLRACE_RETURN_IF_ERROR(parse_table_names(setup_.outbox));
    return {};
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const SetupReport report, set_up_source(setup_));
    Output output;
    if (report.made_publication)
      output.text() +=
          json_ ? to_line({{"severity", "made"},
                           {"subject", "publication " + setup_.publication},
                           {"message", "It is made."},
                           {"fix", nullptr}})
                : finding_text("made", "publication " + setup_.publication, "It is made.", "");
    std::size_t problems = 0;
    for (const Finding& finding : report.findings) {
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
  CheckOptions setup_;
  bool json_ = false;
};

constexpr CommandText kTeardown{
    "capture teardown", "remove what a capture has made in its database",
    "--source URI [--store DIR] [--slot NAME]\n"
    "                                 [--publication NAME] [--yes] [--json]",
    "Tells which slot and publication would be removed, and with --yes removes them, so that the\n"
    "server keeps no more WAL for a capture that is given up. The store is left alone: to feed it\n"
    "again, run `millrace capture setup`, then `millrace capture resync`.\n"
    "\n"
    "A slot that is in use, of another plugin or of another database is never dropped, nor is a\n"
    "publication that capture has not made. With --store the names are those that the store was\n"
    "fed from, and it is first looked whether it was really fed from this server.\n"
    "\n"
    "Example:\n"
    "  millrace capture teardown --source postgresql://localhost/shop --store ./store --yes"};

std::string_view name_of(TeardownStep::State state) {
  switch (state) {
    case TeardownStep::State::kAbsent: return "absent";
    case TeardownStep::State::kWouldRemove: return "would";
    case TeardownStep::State::kRemoved: return "removed";
    case TeardownStep::State::kKept: return "kept";
  }
  return "?";
}

class CaptureTeardown final : public Command {
 public:
  CaptureTeardown() : Command(kTeardown) {}

  void declare(po::options_description& options) override {
    declare_source(options, teardown_.source);
    options.add_options()  //
        ("slot", po::value(&teardown_.slot)->value_name("NAME"),
         "the replication slot; by default the store's, without --store millrace")  //
        ("publication", po::value(&teardown_.publication)->value_name("NAME"),
         "the publication; likewise")  //
        ("store", po::value(&store_)->value_name("DIR"),
         "the store that was fed from them")                     //
        ("yes", po::bool_switch(&teardown_.yes), "remove them")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> run() override {
    teardown_.store = store_;
    MILLRACE_ASSIGN_OR_RETURN(const auto steps, tear_down_source(teardown_));
    Output output;
    bool more = false;
    for (const TeardownStep& step : steps) {
      more = more || step.state == TeardownStep::State::kWouldRemove;
      output.text() +=
          json_ ? to_line({{"state", name_of(step.state)},
                           {"subject", step.subject},
                           {"message", step.message},
                           {"fix", step.fix.empty() ? Json() : Json(step.fix)}})
                : finding_text(name_of(step.state), step.subject, step.message, step.fix);
    }
    if (more && !json_) output.text() += "Nothing was changed; --yes does it.\n";
    return output.flush();
  }

 private:
  TeardownOptions teardown_;
  std::string store_;
  bool json_ = false;
};

}  // namespace

void add_capture_admin_commands(Commands& commands) {
  commands.push_back(std::make_unique<CaptureSetup>());
  commands.push_back(std::make_unique<CaptureTeardown>());
}

}  // namespace millrace
