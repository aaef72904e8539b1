#include "projections/engine/as_of.h"

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "eventstore/inspect.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;

std::string text_of(const AsOf& moment) {
  if (const auto* offset = std::get_if<Offset>(&moment))
    return "offset " + std::to_string(offset->value);
  if (const auto* lsn = std::get_if<Lsn>(&moment)) return "LSN " + to_string(*lsn);
  return to_iso8601(std::get<UnixMicros>(moment));
}

/// Goes over the log from its start to the moment.
class Search {
 public:
  /// `epoch` is that of an LSN.
  Search(const AsOf& moment, std::uint32_t epoch, std::stop_token stop, LogReader& reader)
      : moment_(moment), epoch_(epoch), stop_(std::move(stop)), reader_(reader) {}

  Result<Offset> run() {
    end_ = reader_.durable_end();
    if (const auto* offset = std::get_if<Offset>(&moment_); offset != nullptr && *offset > end_)
      return beyond("ends at offset " + std::to_string(end_.value));
    MILLRACE_ASSIGN_OR_RETURN(const bool found, find());
    if (!found && !std::holds_alternative<Offset>(moment_)) {
      MILLRACE_RETURN_IF_ERROR(check_reached());
    }
    const auto* offset = std::get_if<Offset>(&moment_);
    const Offset cut = offset != nullptr ? *offset : found ? whole_ : end_;
    // As of the end it is as in every rebuild: what is missing has been replaced.
    if (cut != end_ && gap_ && (offset == nullptr || *gap_ < cut)) return gone(*gap_);
    return cut;
  }

 private:
  /// True at the first transaction that is not of the moment. `whole_` is where it starts.
  Result<bool> find() {
    for (;;) {
      if (stop_.stop_requested())
        return Error(ErrorCode::kCancelled, "stopped while looking for " + text_of(moment_));
      MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader_.next());
      if (batch == nullptr || batch->first >= end_) return false;
      if (batch->first_of_transaction && is_beyond(*batch)) {
        if (batch->first > next_ && !gap_) gap_ = next_;
        return true;
      }
      while (const EventView* event = batch->next()) {
        if (event->offset > next_ && !gap_) gap_ = next_;
        next_ = Offset{event->offset.value + 1};
      }
      MILLRACE_RETURN_IF_ERROR(batch->status());
      last_time_ = std::max(last_time_, batch->info.commit_time);
      if (!batch->last_of_transaction) continue;
      if (const auto* offset = std::get_if<Offset>(&moment_); offset != nullptr && next_ > *offset)
        return within_a_transaction();
      whole_ = next_;
    }
  }

  bool is_beyond(const Batch& batch) const {
    if (const auto* offset = std::get_if<Offset>(&moment_)) return batch.first >= *offset;
    if (const auto* time = std::get_if<UnixMicros>(&moment_)) return batch.info.commit_time > *time;
    // Positions of a source before the present one are no measure: all of it was before.
    return batch.info.source.epoch == epoch_ &&
           batch.info.source.commit >= std::get<Lsn>(moment_).value;
  }

  Result<void> check_reached() const {
    const auto* time = std::get_if<UnixMicros>(&moment_);
    if (time == nullptr || *time <= last_time_) return {};  // of an LSN the caller knows
    return beyond("holds commits up to " + to_iso8601(last_time_));
  }

  Error beyond(const std::string& reached) const {
    return Error(ErrorCode::kInvalidArgument,
                 text_of(moment_) + " is beyond the end of the store, which " + reached)
        .hint("Without --as-of the view is built as of the end.");
  }
  Error within_a_transaction() const {
    return Error(ErrorCode::kInvalidArgument,
                 text_of(moment_) + " lies within a transaction, which no view ever shows in part")
        .hint("Its events are at the offsets " + std::to_string(whole_.value) + " to " +
              std::to_string(next_.value - 1) + ": give " + std::to_string(whole_.value) + " or " +
              std::to_string(next_.value) + ".");
  }
  Error gone(Offset first) const {
    return Error(ErrorCode::kGone, "the log lacks events before " + text_of(moment_) +
                                       ", the first at offset " + std::to_string(first.value) +
                                       ": compaction, retention or an erasure removed them")
        .hint(
            "What the view was then can't be told any more. Only as of the end it is the same as "
            "before; snapshots of the store (`millrace log snapshot`) that are older may do.");
  }

  const AsOf& moment_;
  const std::uint32_t epoch_;
  const std::stop_token stop_;
  LogReader& reader_;
  Offset end_, next_, whole_;
  std::optional<Offset> gap_;
  UnixMicros last_time_;
};

/// The epoch whose positions LSNs are.
Result<std::uint32_t> epoch_of(const Context& context, Lsn lsn) {
  MILLRACE_ASSIGN_OR_RETURN(const StoreSummary store, summarize_store(context.store));
  const Lsn reached{store.source ? store.source->end : 0};
  if (store.source && reached >= lsn) return store.source->epoch;
  return Error(ErrorCode::kInvalidArgument, "LSN " + to_string(lsn) +
                                                " is beyond the end of the store, which has come "
                                                "to " +
                                                to_string(reached))
      .hint("Without --as-of the view is built as of the end.");
}

Result<Offset> end_of_store(const Context& context) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(context.store));
  return reader->durable_end();
}

}  // namespace

Result<AsOf> parse_as_of(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed_to, failure] = std::from_chars(text.data(), end, number);
  if (failure == std::errc() && parsed_to == end) return AsOf(Offset{number});
  if (text.find('/') != std::string_view::npos) {
    MILLRACE_ASSIGN_OR_RETURN(const Lsn lsn, parse_lsn(text));
    return AsOf(lsn);
  }
  auto time = parse_rfc3339(text);
  if (time) return AsOf(*time);
  return Error(ErrorCode::kInvalidArgument, "'" + printable(text) + "' is no moment")
      .hint("Give an offset (1204), an LSN (0/1C0ED5F8) or a time (2026-01-01T10:00:00Z).");
}

Result<Offset> offset_as_of(const Context& context, const AsOf& moment) {
  std::uint32_t epoch = 0;
  if (const auto* lsn = std::get_if<Lsn>(&moment)) {
    MILLRACE_ASSIGN_OR_RETURN(epoch, epoch_of(context, *lsn));
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(context.store));
  return Search(moment, epoch, context.stop, *reader).run();
}

Result<BuildReport> build_as_of(const View& view, const Context& context,
                                const std::optional<AsOf>& moment, const Path& file,
                                const BuildHooks& hooks) {
  const auto began = std::chrono::steady_clock::now();
  MILLRACE_ASSIGN_OR_RETURN(const bool there, FileSystem::real().exists(file));
  if (there)
    return Error(ErrorCode::kConflict, file.string() + " is there already")
        .hint("Move it away, or give another name.");
  MILLRACE_ASSIGN_OR_RETURN(const Offset until,
                            moment ? offset_as_of(context, *moment) : end_of_store(context));
  const Path unfinished = file.string() + ".building";
  const Generations generations = context.generations(view);
  MILLRACE_RETURN_IF_ERROR(generations.remove_file(unfinished));
  BuildReport report;
  auto built = [&]() -> Result<void> {
    MILLRACE_ASSIGN_OR_RETURN(const auto database,
                              Database::open(unfinished, Mode::kBulk, context.stop));
    MILLRACE_ASSIGN_OR_RETURN(const Checkpoint start, begin_file(view, context, *database));
    MILLRACE_ASSIGN_OR_RETURN(const auto fold,
                              Fold::make(view, *database, *context.schemas, start));
    MILLRACE_RETURN_IF_ERROR(
        fold_until(*fold, *database, view, context, until, hooks.events_per_commit, [&] {
          if (hooks.progress) hooks.progress(fold->checkpoint().offset, until);
        }));
    MILLRACE_RETURN_IF_ERROR(view.end_bulk(*database));
    report.checkpoint = fold->checkpoint();
    MILLRACE_ASSIGN_OR_RETURN(report.set_aside, count_set_aside(*database));
    return {};
  }();
  if (!built) {
    static_cast<void>(generations.remove_file(unfinished));  // only tidiness
    return std::move(built).error().context("build " + file.string());
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto written,
                            FileSystem::real().open(unfinished, OpenMode::kReadWrite));
  MILLRACE_RETURN_IF_ERROR(written->sync());
  MILLRACE_RETURN_IF_ERROR(FileSystem::real().rename(unfinished, file));
  report.elapsed = std::chrono::steady_clock::now() - began;
  return report;
}

}  // namespace millrace::projections
