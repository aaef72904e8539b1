#include <boost/program_options.hpp>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/output.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/json.h"
#include "eventstore/repair.h"
#include "schemas/lsn.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

constexpr CommandText kRepair{
    "log repair", "make a damaged store end before its damage", "--store DIR [--yes] [--json]",
    "Says which files and which of their bytes have to go so that the log is sound again, which\n"
    "offsets that costs, what of them can still be read, and why. With --yes does it. What is\n"
    "taken out is kept as it was in STORE/repair/<time>, with report.json.\n"
    "\n"
    "The log is a prefix: what stays ends with the last whole transaction before the first\n"
    "damage, and all behind that goes, also where it is sound. The log goes on behind the\n"
    "offsets that are lost; who resumes before that place is told OFFSET_GONE. A copy of the\n"
    "store is always better: put that back if there is one. No writer may run.\n"
    "\n"
    "Ends with 0 if nothing was wrong or it has been repaired, with 3 if there is damage and no\n"
    "--yes, or damage that is not the log's.\n"
    "\n"
    "Examples:\n"
    "  millrace log repair --store ./store\n"
    "  millrace log repair --store ./store --yes"};

std::string readable(std::uint64_t events, std::uint64_t transactions) {
  return counted(events, "event") + " and the end" + (transactions == 1 ? "" : "s") + " of " +
         counted(transactions, "transaction");
}

std::string step_text(const RepairStep& step, bool done) {
  std::string bytes = step.to > step.from ? grouped(step.to - step.from) + " bytes" : "";
  if (step.events + step.transactions != 0)
    bytes += " with " + readable(step.events, step.transactions) + " that can be read";
  if (!bytes.empty()) bytes = " (" + bytes + ")";
  std::string text = done ? "" : "would ";
  switch (step.kind) {
    case RepairStep::Kind::kRebuild:
      text += (done ? "made " : "make ") + step.file + " anew";
      break;
    case RepairStep::Kind::kMoveAway:
      text += (done ? "moved " : "move ") + step.file + bytes + " away";
      break;
    case RepairStep::Kind::kCut:
      text += step.to == 0 ? (done ? "noted in " : "note in ") + step.file + " what is lost"
                           : "cut " + step.file + " at byte " + std::to_string(step.from) + bytes;
      break;
    case RepairStep::Kind::kBegin: text += (done ? "began " : "begin ") + step.file; break;
  }
  return text + ": " + printable(step.reason, 1000) + "\n";
}

std::string loss_text(const RepairPlan& plan) {
  if (plan.lost_end == plan.end) return "lost: no event\n";
  return "lost: offsets " + std::to_string(plan.end.value) + " to " +
         std::to_string(plan.lost_end.value - 1) + ", " + grouped(plan.lost_bytes) +
         " bytes; of these " + readable(plan.lost_events, plan.lost_transactions) +
         " can still be read in what is taken out\n";
}

std::string text_of(const Repair& repair, const std::string& registry_fault) {
  const RepairPlan& plan = repair.plan;
  const bool done = !repair.kept.empty();
  std::string text;
  for (const Fault& fault : plan.faults)
    text += "fault: " + fault.file + " at byte " + std::to_string(fault.position) + ": " +
            fault.kind + (fault.detail.empty() ? "" : ": " + printable(fault.detail, 1000)) + "\n";
  if (plan.interrupted) text += "an earlier repair was interrupted\n";
  for (const RepairStep& step : plan.steps) text += step_text(step, done);
  if (!registry_fault.empty()) text += "fault: " + printable(registry_fault, 1000) + "\n";
  if (!plan.is_needed())
    return text + (registry_fault.empty() ? "ok: nothing to repair\n" : "nothing else to repair\n");
  text += loss_text(plan) + "what lies before offset " + std::to_string(plan.end.value) +
          (done ? " stays" : " would stay");
  if (plan.source)
    text += ", commit " + to_string(Lsn{plan.source->commit}) + " of " +
            to_iso8601(plan.last_commit_time) + " included";
  text += "; the log " + std::string(done ? "goes" : "would go") + " on at offset " +
          std::to_string(plan.lost_end.value) + "\n";
  if (done) text += "kept in " + repair.kept.string() + "\n";
  return text;
}

/// The registry of schemas is no part of the log, and nothing in the log tells what was in it.
Result<std::string> find_registry_fault(const std::string& store) {
  const auto registry = SchemaRegistry::open_read_only(store);
  const auto schemas = registry ? (*registry)->all() : registry.error();
  if (schemas) return std::string();
  if (schemas.error().code() == ErrorCode::kCorruption) return schemas.error().message();
  return schemas.error();
}

class LogRepair final : public Command {
 public:
  LogRepair() : Command(kRepair) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("yes", po::bool_switch(&yes_), "do it")                                               //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    Repair repair;
    if (yes_) {
      MILLRACE_ASSIGN_OR_RETURN(repair, repair_store(store_));
    } else {
      MILLRACE_ASSIGN_OR_RETURN(repair.plan, plan_repair(store_));
    }
    MILLRACE_ASSIGN_OR_RETURN(const std::string registry_fault, find_registry_fault(store_));
    Output output;
    output.text() = json_ ? json_of(repair, registry_fault) : text_of(repair, registry_fault);
    MILLRACE_RETURN_IF_ERROR(output.flush());
    if (!registry_fault.empty())
      return Error(ErrorCode::kCorruption, "the schemas of " + store_ + " can't be repaired")
          .hint(
              "Put the file `schemas` back from the newest copy of this store. Without it its "
              "events can't be shown.");
    if (yes_ || !repair.plan.is_needed()) return {};
    return Error(ErrorCode::kCorruption, store_ + " is damaged; nothing was changed")
        .hint("Put it back from a copy if there is one. Else --yes does what is said above.");
  }

 private:
  static std::string json_of(const Repair& repair, const std::string& registry_fault) {
    Json json = Json::parse(to_json(repair.plan));
    json["schemas"] = registry_fault.empty() ? Json() : Json(printable(registry_fault, 1000));
    json["kept"] = repair.kept.empty() ? Json() : Json(repair.kept.string());
    return to_line(json);
  }

  std::string store_;
  bool yes_ = false;
  bool json_ = false;
};

}  // namespace

void add_repair_command(Commands& commands) { commands.push_back(std::make_unique<LogRepair>()); }

}  // namespace millrace
