#include "projections/engine/build.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "projections/engine/continuation.h"
#include "projections/memory_view.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;

/// A rebuild is the way out where the live file is damaged or gone; any other error may pass.
bool is_lost(const Error& error) {
  return error.code() == ErrorCode::kCorruption || error.code() == ErrorCode::kNotFound;
}

/// What was decided about events of this store stays decided.
Result<void> take_over_audit(const View& view, const Context& context, const Checkpoint& checkpoint,
                             Database& database) {
  const Generations generations = context.generations(view);
  MILLRACE_ASSIGN_OR_RETURN(const auto number, generations.live());
  if (!number) return {};
  const auto live = Database::open(generations.file(*number), Mode::kReadOnly, context.stop);
  const auto reached = live ? read_checkpoint(**live) : Result<Checkpoint>(live.error());
  if (reached && reached->store_id != checkpoint.store_id) return {};
  if (auto taken = reached ? copy_audit(**live, database, checkpoint.offset) : reached.error();
      !taken) {
    if (!is_lost(taken.error())) return std::move(taken).error();
    spdlog::warn("view {}: which events were skipped can't be read from generation {}: {}",
                 view.name(), *number, taken.error().message());
  }
  return {};
}

class Builder {
 public:
  Builder(const View& view, const Context& context, const BuildHooks& hooks)
      : view_(view), context_(context), hooks_(hooks), generations_(context.generations(view)) {}

  Result<BuildReport> run() {
    MILLRACE_ASSIGN_OR_RETURN(const auto lock,
                              generations_.lock_rebuild(context_.holder("rebuild")));
    MILLRACE_ASSIGN_OR_RETURN(generation_, generations_.prepare_next());
    step("prepared");
    const Path file = generations_.file(generation_);
    if (auto built = build(file); !built) {
      // Only tidiness: the next rebuild would remove it too.
      if (!is_live() && !generations_.remove_file(file))
        spdlog::warn("{} is left behind", file.string());
      return std::move(built).error();
    }
    if (!switched_) {
      MILLRACE_RETURN_IF_ERROR(generations_.remove_file(file));
      return report();
    }
    MILLRACE_RETURN_IF_ERROR(generations_.remove_old());
    step("old generations removed");
    return report();
  }

  Result<BuildReport> roll_back() {
    MILLRACE_ASSIGN_OR_RETURN(const auto lock,
                              generations_.lock_rebuild(context_.holder("rollback")));
    MILLRACE_ASSIGN_OR_RETURN(const auto previous, generations_.previous());
    if (!previous)
      return Error(ErrorCode::kNotFound,
                   "view " + view_.name() + " has no generation before the live one")
          .hint("A rebuild keeps the one that it replaces; older ones are removed.");
    generation_ = *previous;
    MILLRACE_ASSIGN_OR_RETURN(const auto database, Database::open(generations_.file(generation_),
                                                                  Mode::kLive, context_.stop));
    MILLRACE_ASSIGN_OR_RETURN(checkpoint_, read_checkpoint(*database));
    MILLRACE_RETURN_IF_ERROR(continue_from(view_, context_, checkpoint_));
    MILLRACE_RETURN_IF_ERROR(take_over_audit(view_, context_, checkpoint_, *database));
    MILLRACE_RETURN_IF_ERROR(fold_to_end(*database));
    MILLRACE_RETURN_IF_ERROR(switch_over(*database));
    return report();
  }

 private:
  Result<void> build(const Path& file) {
    MILLRACE_RETURN_IF_ERROR(fold_in_bulk(file));
    step("folded");
    MILLRACE_ASSIGN_OR_RETURN(const auto database,
                              Database::open(file, Mode::kLive, context_.stop));
    MILLRACE_RETURN_IF_ERROR(fold_to_end(*database));  // what came while the indexes were made
    return switch_over(*database);
  }

  /// Everything up to the durable end, with the settings for a file that a crash may take.
  Result<void> fold_in_bulk(const Path& file) {
    MILLRACE_ASSIGN_OR_RETURN(const auto database,
                              Database::open(file, Mode::kBulk, context_.stop));
    MILLRACE_ASSIGN_OR_RETURN(checkpoint_,
                              begin_file(view_, context_, *database, hooks_.with_skipped));
    step("created");
    MILLRACE_RETURN_IF_ERROR(fold_to_end(*database));
    MILLRACE_RETURN_IF_ERROR(view_.end_bulk(*database));
    step("indexed");
    return {};
  }

  Result<void> fold_to_end(Database& database) {
    MILLRACE_ASSIGN_OR_RETURN(const auto fold,
                              Fold::make(view_, database, *context_.schemas, checkpoint_));
    Offset end;
    const auto show = [&] {
      step("some folded");
      if (hooks_.progress) hooks_.progress(fold->checkpoint().offset, end);
    };
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                                context_.open_reader(view_, fold->checkpoint().offset));
      MILLRACE_ASSIGN_OR_RETURN(end, target(reader->durable_end()));
      if (fold->checkpoint().offset >= end) break;
      MILLRACE_RETURN_IF_ERROR(
          fold_until(*fold, database, view_, context_, end, hooks_.events_per_commit, show));
    }
    checkpoint_ = fold->checkpoint();
    return {};
  }

  /// To be compared, both must stand at the same offset.
  Result<Offset> target(Offset durable_end) const {
    if (!hooks_.may_switch) return durable_end;
    MILLRACE_ASSIGN_OR_RETURN(const auto number, generations_.live());
    if (!number) return durable_end;
    const auto live = Database::open(generations_.file(*number), Mode::kReadOnly, context_.stop);
    const auto reached = live ? read_checkpoint(**live) : Result<Checkpoint>(live.error());
    if (!reached) return cannot_compare(reached.error().message());
    return std::min(reached->offset, durable_end);
  }

  Result<bool> may_switch(Database* live, Database& database) const {
    if (!hooks_.may_switch || (live == nullptr && !has_live())) return true;
    if (live == nullptr) return cannot_compare("it can't be read");
    MILLRACE_ASSIGN_OR_RETURN(const Checkpoint reached, read_checkpoint(*live));
    if (reached.store_id != checkpoint_.store_id) return cannot_compare("it is of another store");
    if (reached.offset != checkpoint_.offset) return cannot_compare("it is ahead of the store");
    VerifyReport report{.offset = checkpoint_.offset, .differences = {}};
    if (auto compared = compare_views(view_, *live, database, report); !compared)
      return cannot_compare(compared.error().message());
    return hooks_.may_switch(report);
  }

  Error cannot_compare(const std::string& why) const {
    return Error(ErrorCode::kFailedPrecondition,
                 "view " + view_.name() + ": the live generation can't be compared: " + why)
        .hint("Without --diff the view is rebuilt without looking at it.");
  }

  Result<void> switch_over(Database& database) {
    MILLRACE_ASSIGN_OR_RETURN(const auto live, lock_live());
    if (live) {
      MILLRACE_ASSIGN_OR_RETURN(const Checkpoint reached, read_checkpoint(*live));
      MILLRACE_ASSIGN_OR_RETURN(const auto reader, context_.open_reader(view_, checkpoint_.offset));
      const bool comparable =
          reached.store_id == checkpoint_.store_id && reached.offset <= reader->durable_end();
      if (comparable && reached.offset > checkpoint_.offset) {
        MILLRACE_ASSIGN_OR_RETURN(const auto fold,
                                  Fold::make(view_, database, *context_.schemas, checkpoint_));
        MILLRACE_RETURN_IF_ERROR(fold_until(*fold, database, view_, context_, reached.offset,
                                            hooks_.events_per_commit, {}));
        checkpoint_ = fold->checkpoint();
      }
      if (comparable) MILLRACE_RETURN_IF_ERROR(internal::take_over_shown(*live, database));
    }
    MILLRACE_ASSIGN_OR_RETURN(set_aside_, count_set_aside(database));
    MILLRACE_ASSIGN_OR_RETURN(switched_, may_switch(live.get(), database));
    if (!switched_) return {};
    step("caught up");
    MILLRACE_RETURN_IF_ERROR(make_durable(database));
    step("durable");
    MILLRACE_RETURN_IF_ERROR(generations_.switch_to(generation_));
    step("switched");
    return {};
  }

  /// The live generation with its write lock held; nothing if there is none, or none that can be
  /// read.
  Result<std::unique_ptr<Database>> lock_live() {
    MILLRACE_ASSIGN_OR_RETURN(const auto number, generations_.live());
    if (!number) return std::unique_ptr<Database>();
    auto live = Database::open(generations_.file(*number), Mode::kLive, context_.stop);
    if (live) {
      if (auto locked = (*live)->begin(); !locked && locked.error().code() == ErrorCode::kCancelled)
        return std::move(locked).error();
      else if (locked && read_checkpoint(**live))
        return live;
    }
    spdlog::warn("view {}: generation {} can't be read; it is replaced without looking at it",
                 view_.name(), *number);
    return std::unique_ptr<Database>();
  }

  Result<void> make_durable(Database& database) {
    MILLRACE_RETURN_IF_ERROR(database.execute("PRAGMA wal_checkpoint(TRUNCATE)"));
    MILLRACE_ASSIGN_OR_RETURN(const auto file,
                              FileSystem::real().open(database.file(), OpenMode::kReadWrite));
    return file->sync();
  }

  BuildReport report() const {
    return {generation_, checkpoint_, set_aside_, switched_,
            std::chrono::steady_clock::now() - start_};
  }

  bool has_live() const {
    const auto live = generations_.live();
    return !live || *live;
  }

  bool is_live() const {
    const auto live = generations_.live();
    return live && *live == generation_;
  }

  void step(std::string_view name) const {
    if (hooks_.at_step) hooks_.at_step(name);
  }

  const View& view_;
  const Context& context_;
  const BuildHooks& hooks_;
  const Generations generations_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::uint32_t generation_ = 0;
  Checkpoint checkpoint_;
  QuarantineCounts set_aside_;
  bool switched_ = true;
};

/// `reader` is used up: where it skips what the view does not take, the batch that it gives last
/// may lie beyond `until`, and is then lost to who would read on.
Result<void> fold_from(Fold& fold, Database& database, LogReader& reader, Offset until,
                       std::uint64_t events_per_commit, const std::stop_token& stop,
                       const std::function<void()>& progress) {
  // One may be open still where `fold` has begun again, or had nothing to commit.
  const auto begin = [&] { return database.in_transaction() ? Result<void>{} : database.begin(); };
  MILLRACE_RETURN_IF_ERROR(begin());
  std::uint64_t events = fold.checkpoint().events;
  while (fold.checkpoint().offset < until) {
    if (stop.stop_requested())
      return Error(ErrorCode::kCancelled, "stopped while building the view");
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader.next());
    const bool full = fold.checkpoint().events - events >= events_per_commit;
    if (full && !(batch != nullptr && fold.goes_on_in(*batch))) {
      MILLRACE_RETURN_IF_ERROR(fold.commit_part());
      MILLRACE_RETURN_IF_ERROR(begin());
      events = fold.checkpoint().events;
    }
    if (batch != nullptr) MILLRACE_RETURN_IF_ERROR(fold.apply(*batch, until));
    // At the end of the log all below `until` was there to be read; what did not come is of no
    // interest.
    fold.advance_to(batch == nullptr ? until : std::min(until, reader.position()));
    if (progress) progress();
  }
  return fold.commit();
}

}  // namespace

Result<void> fold_until(Fold& fold, Database& database, const View& view, const Context& context,
                        Offset until, std::uint64_t events_per_commit,
                        const std::function<void()>& progress) {
  while (fold.checkpoint().offset < until) {
    // A round each for a reader: where `fold` begins again, so does the log.
    MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                              context.open_reader(view, fold.checkpoint().offset));
    auto folded =
        fold_from(fold, database, *reader, until, events_per_commit, context.stop, progress);
    if (folded) continue;
    if (!fold.wants_to_begin_again()) return folded;
    MILLRACE_RETURN_IF_ERROR(fold.begin_again());
  }
  return {};
}

Result<Checkpoint> begin_file(const View& view, const Context& context, Database& database,
                              bool with_skipped) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, context.open_reader(view, Offset{0}));
  const Checkpoint start = context.beginning(view, reader->store_id());
  MILLRACE_RETURN_IF_ERROR(create_checkpoint(database, start));
  MILLRACE_RETURN_IF_ERROR(view.create(database));
  MILLRACE_RETURN_IF_ERROR(view.begin_bulk(database));
  if (!with_skipped) MILLRACE_RETURN_IF_ERROR(take_over_audit(view, context, start, database));
  return start;
}

Result<BuildReport> build_generation(const View& view, const Context& context,
                                     const BuildHooks& hooks) {
  return Builder(view, context, hooks).run();
}

Result<BuildReport> roll_back(const View& view, const Context& context, const BuildHooks& hooks) {
  // In one transaction: the file is somebody's view, and what waits in memory is lost with the
  // process.
  BuildHooks at_once = hooks;
  at_once.events_per_commit = UINT64_MAX;
  return Builder(view, context, at_once).roll_back();
}

}  // namespace millrace::projections
