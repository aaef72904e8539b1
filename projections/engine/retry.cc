#include "projections/engine/retry.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/bytes.h"
#include "projections/engine/continuation.h"
#include "projections/engine/fold.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;

/// Sets that are joined (https://en.wikipedia.org/wiki/Disjoint-set_data_structure).
class Sets {
 public:
  std::size_t of(const std::string& category, const std::string& key) {
    const auto [found, is_new] = places_.emplace(std::pair(category, key), parents_.size());
    if (is_new) parents_.push_back(parents_.size());
    return root(found->second);
  }
  void join(std::size_t a, std::size_t b) { parents_[root(b)] = root(a); }

 private:
  std::size_t root(std::size_t place) {
    while (parents_[place] != place) place = parents_[place] = parents_[parents_[place]];
    return place;
  }
  std::map<std::pair<std::string, std::string>, std::size_t> places_;
  std::vector<std::size_t> parents_;
};

bool is_chosen(const std::vector<SetAsideEvent>& group, const QuarantineChoice& choice) {
  return std::any_of(group.begin(), group.end(), [&](const SetAsideEvent& event) {
    return (!choice.category || event.category == *choice.category) &&
           (!choice.key || event.key == *choice.key);
  });
}

enum class Decision : std::uint8_t { kRetry, kSkip };

Result<void> work_off(Fold& fold, const std::vector<SetAsideEvent>& group, Decision decision,
                      const AuditNote& note, RetryReport& report) {
  for (const SetAsideEvent& event : group) {
    if (decision == Decision::kSkip && event.offset == cause_of(group).offset) {
      MILLRACE_RETURN_IF_ERROR(fold.skip(event, note));
      ++report.skipped;
      continue;
    }
    MILLRACE_ASSIGN_OR_RETURN(const auto reason, fold.try_again(event, note));
    if (!reason) continue;
    report.failed.push_back(event);
    report.failed.back().reason = reason;
    break;
  }
  return {};
}

Result<RetryReport> work_off_all(const View& view, const Context& context,
                                 const QuarantineChoice& choice, Decision decision,
                                 const AuditNote& note) {
  const Generations generations = context.generations(view);
  MILLRACE_ASSIGN_OR_RETURN(const auto generation, generations.live());
  if (!generation) return RetryReport{};
  // Whoever switches generations holds this.
  MILLRACE_ASSIGN_OR_RETURN(const auto lock,
                            generations.lock_rebuild(context.holder("quarantine")));
  MILLRACE_ASSIGN_OR_RETURN(const auto live, generations.live());
  MILLRACE_ASSIGN_OR_RETURN(
      const auto database,
      Database::open(generations.file(live.value_or(*generation)), Mode::kLive, context.stop));
  MILLRACE_RETURN_IF_ERROR(database->begin());
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, read_checkpoint(*database));
  MILLRACE_RETURN_IF_ERROR(continue_from(view, context, checkpoint));
  MILLRACE_ASSIGN_OR_RETURN(auto events, read_set_aside(*database));
  MILLRACE_ASSIGN_OR_RETURN(const auto fold,
                            Fold::make(view, *database, *context.schemas, checkpoint));
  RetryReport report;
  const std::uint64_t waiting = events.size();
  for (const auto& group : groups_of(std::move(events)))
    if (is_chosen(group, choice))
      MILLRACE_RETURN_IF_ERROR(work_off(*fold, group, decision, note, report));
  MILLRACE_RETURN_IF_ERROR(fold->commit());
  MILLRACE_ASSIGN_OR_RETURN(report.left, count_set_aside(*database));
  report.folded = waiting - report.left.events - report.skipped;
  return report;
}

}  // namespace

std::vector<std::vector<SetAsideEvent>> groups_of(std::vector<SetAsideEvent> events) {
  Sets sets;
  for (const SetAsideEvent& event : events) {
    const std::size_t own = sets.of(event.category, event.key);
    if (event.moved_from) sets.join(own, sets.of(event.category, *event.moved_from));
  }
  std::map<std::size_t, std::size_t> place_of_set;
  std::vector<std::vector<SetAsideEvent>> groups;
  for (SetAsideEvent& event : events) {
    const auto [place, is_new] =
        place_of_set.emplace(sets.of(event.category, event.key), groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(std::move(event));
  }
  return groups;
}

const SetAsideEvent& cause_of(const std::vector<SetAsideEvent>& group) {
  const auto cause = std::find_if(group.begin(), group.end(),
                                  [](const auto& event) { return event.reason.has_value(); });
  return cause != group.end() ? *cause : group.front();
}

Result<std::vector<SetAsideEvent>> list_set_aside(const View& view, const Context& context) {
  const Generations generations = context.generations(view);
  MILLRACE_ASSIGN_OR_RETURN(const auto generation, generations.live());
  if (!generation) return std::vector<SetAsideEvent>();
  MILLRACE_ASSIGN_OR_RETURN(const auto database, Database::open(generations.file(*generation),
                                                                Mode::kReadOnly, context.stop));
  MILLRACE_RETURN_IF_ERROR(database->begin());
  return read_set_aside(*database);
}

Result<RetryReport> retry_set_aside(const View& view, const Context& context,
                                    const QuarantineChoice& choice, const AuditNote& note) {
  return work_off_all(view, context, choice, Decision::kRetry, note);
}

Result<RetryReport> skip_set_aside(const View& view, const Context& context,
                                   const QuarantineChoice& choice, const AuditNote& note) {
  return work_off_all(view, context, choice, Decision::kSkip, note);
}

}  // namespace millrace::projections
