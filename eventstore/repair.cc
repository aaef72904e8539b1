#include "eventstore/repair.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "eventstore/log/format.h"
#include "eventstore/log/generation_file.h"
#include "eventstore/log/repair_planner.h"
#include "eventstore/log/store_copy.h"
#include "eventstore/log/store_files.h"
#include "eventstore/scrub_report.h"

namespace millrace {
namespace {

using log::RepairPlanner;
using log::StorePaths;
using Kind = RepairStep::Kind;

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::kRebuild: return "rebuild";
    case Kind::kMoveAway: return "move away";
    case Kind::kCut: return "cut";
    case Kind::kBegin: return "begin";
  }
  return "?";
}

Error running(const std::string& holder) {
  return Error(ErrorCode::kLocked, "the store is written by " + holder)
      .hint("Stop that writer first: it changes what is to be repaired.");
}

Result<RepairPlanner::Outcome> plan_log(FileSystem& files, const StorePaths& paths) {
  auto outcome = RepairPlanner(files, paths).run();
  if (!outcome)
    return std::move(outcome).error().context("repair store " + paths.directory.string());
  return outcome;
}

void add_faults(RepairPlan& plan, std::vector<Fault> faults) {
  plan.faults = std::move(faults);
  for (const Fault& fault : plan.faults)
    if (fault.kind == "index")
      plan.steps.push_back({.kind = Kind::kMoveAway,
                            .file = fault.file,
                            .reason = "not what its segment says; a writer makes it again"});
}

/// Does a plan, step by step; what is taken out is kept in one folder.
class Repairer {
 public:
  Repairer(FileSystem& files, StorePaths paths, Clock& clock)
      : files_(files), paths_(std::move(paths)), clock_(clock) {}

  Result<Path> run(const RepairPlanner::Outcome& outcome);

 private:
  Result<void> make_folder();
  Result<void> do_step(const RepairStep& step, const RepairPlanner::Outcome& outcome);
  Result<void> keep_copy(const Path& file);
  Result<void> move_away(const Path& file);
  Result<void> cut(const StoreId& store, const RepairPlanner::LostSegment& lost);
  Result<void> copy_batches(const StoreId& store, const RepairPlanner::LostSegment& lost,
                            log::GenerationFile& to);
  Result<void> begin(log::SegmentHeader header);

  FileSystem& files_;
  StorePaths paths_;
  Clock& clock_;
  Path folder_;
};

/// Each step is one rename. The cut comes first: from then on the log itself says how much is lost,
/// and whatever is still there of that is a leftover. As long as the mark is there no writer opens
/// what is half done; the planner finds the same end in it, for all before that is as it was.
Result<Path> Repairer::run(const RepairPlanner::Outcome& outcome) {
  MILLRACE_RETURN_IF_ERROR(make_folder());
  MILLRACE_RETURN_IF_ERROR(
      write_file_atomically(files_, paths_.repair_mark(), folder_.filename().string() + "\n"));
  MILLRACE_RETURN_IF_ERROR(
      write_file_atomically(files_, folder_ / "report.json", to_json(outcome.plan) + "\n"));
  for (const RepairStep& step : outcome.plan.steps)
    MILLRACE_RETURN_IF_ERROR(do_step(step, outcome));
  MILLRACE_RETURN_IF_ERROR(remove_scrub_report(paths_.directory, files_));
  MILLRACE_RETURN_IF_ERROR(files_.remove(paths_.repair_mark()));
  MILLRACE_RETURN_IF_ERROR(files_.sync_directory(paths_.directory));
  return folder_;
}

Result<void> Repairer::do_step(const RepairStep& step, const RepairPlanner::Outcome& outcome) {
  switch (step.kind) {
    case Kind::kRebuild:
      MILLRACE_RETURN_IF_ERROR(keep_copy(paths_.description()));
      return log::write_description(files_, paths_, *outcome.description);
    case Kind::kMoveAway: return move_away(paths_.directory / step.file);
    case Kind::kCut: return cut(outcome.plan.store, *outcome.lost);
    case Kind::kBegin: return begin(*outcome.next);
  }
  return {};
}

Result<void> Repairer::make_folder() {
  const std::time_t now = static_cast<std::time_t>(clock_.wall().value / 1'000'000);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char name[32];
  std::strftime(name, sizeof name, "%Y%m%dT%H%M%SZ", &utc);
  MILLRACE_RETURN_IF_ERROR(files_.make_directory(paths_.repairs()));
  MILLRACE_RETURN_IF_ERROR(files_.sync_directory(paths_.directory));
  for (int number = 1;; ++number) {
    folder_ =
        paths_.repairs() / (number == 1 ? name : std::string(name) + "-" + std::to_string(number));
    MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(folder_));
    if (!there) break;
  }
  MILLRACE_RETURN_IF_ERROR(files_.make_directory(folder_));
  return files_.sync_directory(paths_.repairs());
}

Result<void> Repairer::keep_copy(const Path& file) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(file));
  if (!there) return {};
  MILLRACE_RETURN_IF_ERROR(log::copy_file(files_, file, folder_ / file.filename()));
  return files_.sync_directory(folder_);
}

Result<void> Repairer::move_away(const Path& file) {
  MILLRACE_RETURN_IF_ERROR(files_.rename(file, folder_ / file.filename()));
  MILLRACE_RETURN_IF_ERROR(files_.sync_directory(folder_));
  return files_.sync_directory(file.parent_path());
}

Result<void> Repairer::cut(const StoreId& store, const RepairPlanner::LostSegment& lost) {
  log::SegmentHeader header = lost.header;
  header.rewritten->at = clock_.wall();
  if (!lost.exists) header.created = header.rewritten->at;
  const Path path = paths_.segment(header.segment), temporary = path.string() + ".tmp";
  if (lost.exists) MILLRACE_RETURN_IF_ERROR(keep_copy(path));
  MILLRACE_ASSIGN_OR_RETURN(const bool leftover, files_.exists(temporary));
  if (leftover) MILLRACE_RETURN_IF_ERROR(files_.remove(temporary));
  MILLRACE_ASSIGN_OR_RETURN(auto file, files_.open(temporary, OpenMode::kCreate));
  log::GenerationFile to(std::move(file), store, header, Compression::kNone);
  if (lost.keep_until > log::kSegmentHeaderBytes)
    MILLRACE_RETURN_IF_ERROR(copy_batches(store, lost, to));
  MILLRACE_RETURN_IF_ERROR(to.finish(lost.removals));
  MILLRACE_RETURN_IF_ERROR(files_.rename(temporary, path));
  return files_.sync_directory(paths_.log());
}

/// They get other links to each other and stay as they are else, also compressed.
Result<void> Repairer::copy_batches(const StoreId& store, const RepairPlanner::LostSegment& lost,
                                    log::GenerationFile& to) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            log::SegmentReader::open(files_, paths_, store, lost.header.segment));
  while (reader.state().position() < lost.keep_until) {
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader.peek(lost.keep_until));
    if (found.fault == log::BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader.load(found));
    if (found.fault != log::BatchFault::kNone)
      return Error(ErrorCode::kCorruption,
                   paths_.segment(lost.header.segment).string() + " at byte " +
                       std::to_string(found.position) +
                       " was sound just before: " + std::string(describe(found.fault)))
          .hint("The disk gives other bytes each time: copy the store to another one.");
    MILLRACE_ASSIGN_OR_RETURN(
        const std::string_view stored,
        reader.fetch(found.position + log::kBatchHeaderBytes, found.header.payload_bytes));
    MILLRACE_RETURN_IF_ERROR(to.add(found.header, stored, true));
    reader.advance(found);
  }
  return {};
}

Result<void> Repairer::begin(log::SegmentHeader header) {
  header.created = clock_.wall();
  std::string page(log::kSegmentHeaderBytes, '\0');
  log::encode_segment_header(header, page.data());
  return write_file_atomically(files_, paths_.segment(header.segment), page);
}

}  // namespace

Result<RepairPlan> plan_repair(const Path& directory, FileSystem& files) {
  const StorePaths paths(directory);
  MILLRACE_ASSIGN_OR_RETURN(const std::string holder, files.lock_holder(paths.lock()));
  if (!holder.empty()) return running(holder);
  MILLRACE_ASSIGN_OR_RETURN(auto outcome, plan_log(files, paths));
  if (outcome.description) return std::move(outcome.plan);
  MILLRACE_ASSIGN_OR_RETURN(VerifyReport report, verify_store(directory, {}, files));
  add_faults(outcome.plan, std::move(report.faults));
  return std::move(outcome.plan);
}

Result<Repair> repair_store(const Path& directory, FileSystem& files, Clock& clock) {
  const StorePaths paths(directory);
  // A folder that is no store gets no LOCK; and verify would take ours for that of a writer.
  MILLRACE_ASSIGN_OR_RETURN(RepairPlan looked, plan_repair(directory, files));
  auto lock = files.lock(paths.lock());
  if (!lock) return std::move(lock).error();
  MILLRACE_RETURN_IF_ERROR(
      (*lock)->describe("pid " + std::to_string(::getpid()) + ", millrace log repair"));
  MILLRACE_ASSIGN_OR_RETURN(auto outcome, plan_log(files, paths));
  add_faults(outcome.plan, std::move(looked.faults));
  Repair repair;
  if (outcome.plan.is_needed()) {
    auto kept = Repairer(files, paths, clock).run(outcome);
    if (!kept) return std::move(kept).error().context("repair store " + directory.string());
    repair.kept = *std::move(kept);
    spdlog::warn(
        "store {}: repaired; what lies before offset {} stays, the log goes on at {}, "
        "what was taken out is in {}",
        directory.string(), outcome.plan.end.value, outcome.plan.lost_end.value,
        repair.kept.string());
  }
  repair.plan = std::move(outcome.plan);
  return repair;
}

std::string to_json(const RepairPlan& plan) {
  using Json = nlohmann::ordered_json;
  Json steps = Json::array(), faults = Json::array(), source = nullptr;
  for (const RepairStep& step : plan.steps)
    steps.push_back({{"do", name_of(step.kind)},
                     {"file", step.file},
                     {"from", step.from},
                     {"to", step.to},
                     {"events", step.events},
                     {"transactions", step.transactions},
                     {"reason", step.reason}});
  for (const Fault& fault : plan.faults)
    faults.push_back({{"file", fault.file},
                      {"position", fault.position},
                      {"kind", fault.kind},
                      {"detail", fault.detail}});
  if (plan.source)
    source = {
        {"epoch", plan.source->epoch}, {"commit", plan.source->commit}, {"end", plan.source->end}};
  return Json{{"store_id", to_string(plan.store)}, {"needed", plan.is_needed()},
              {"interrupted", plan.interrupted},   {"end", plan.end.value},
              {"source", std::move(source)},       {"lost_end", plan.lost_end.value},
              {"lost_events", plan.lost_events},   {"lost_transactions", plan.lost_transactions},
              {"lost_bytes", plan.lost_bytes},     {"steps", std::move(steps)},
              {"faults", std::move(faults)}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace millrace
