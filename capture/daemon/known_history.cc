#include "capture/daemon/known_history.h"

#include <algorithm>
#include <optional>

#include "eventstore/log_reader.h"

namespace millrace {
namespace {

/// How far back one looks for it.
constexpr std::uint64_t kEventsMax = 1 << 20;
constexpr std::uint64_t kFirstLook = 16, kWider = 16;

struct Look {
  std::optional<SourceCommit> last;
  bool older_epoch = false;  ///< The log holds transactions of another, before any of ours.
  bool whole = true;         ///< No event is missing behind the last one found.
};

/// Reads from `from` to the end.
Result<Look> look(LogReader& reader, Offset from, std::uint32_t epoch) {
  Look found;
  std::uint64_t expected = from.value;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader.next());
    if (batch == nullptr) break;
    const SourcePosition& source = batch->info.source;
    while (const EventView* event = batch->next()) {
      if (event->offset.value != expected) found = {.last = {}, .whole = false};
      expected = event->offset.value + 1;
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    if (batch->info.snapshot || source.epoch == 0) continue;
    if (source.epoch == epoch)
      found = {.last = SourceCommit{.lsn = Lsn{source.commit},
                                    .xid = batch->info.source_xid,
                                    .time = batch->info.commit_time}};
    else
      found = {.last = {}, .older_epoch = true};
  }
  if (expected != reader.durable_end().value) found = {.last = {}, .whole = false};
  return found;
}

}  // namespace

Result<HistoryCheck> known_history(const Path& store, std::uint32_t epoch, FileSystem& files) {
  for (std::uint64_t window = kFirstLook;; window *= kWider) {
    MILLRACE_ASSIGN_OR_RETURN(const auto end, LogReader::open(store, {.files = &files}));
    const std::uint64_t durable = end->durable_end().value;
    const Offset from{durable > window ? durable - window : 0};
    MILLRACE_ASSIGN_OR_RETURN(
        const auto reader,
        LogReader::open(store, {.from = from, .accepts_gaps = true, .files = &files}));
    MILLRACE_ASSIGN_OR_RETURN(const Look found, look(*reader, from, epoch));
    if (found.last) return HistoryCheck(found.last);
    if (!found.whole) return HistoryCheck();
    if (found.older_epoch || from.value == 0) return HistoryCheck(std::nullopt);
    if (window >= kEventsMax) return HistoryCheck();
  }
}

}  // namespace millrace
