#include "projections/engine/unseen_events.h"

#include <spdlog/spdlog.h>

#include "base/bytes.h"

namespace millrace::projections {
namespace {

/// By the indexes of segments that are full; only what is behind them is read.
Result<bool> has_events(const Path& store, const std::string& category) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto reader, LogReader::open(store, {.categories = {category}, .accepts_gaps = true}));
  if (reader->durable_end() == Offset{0}) return true;  // it is too early to tell
  MILLRACE_ASSIGN_OR_RETURN(const Batch* const batch, reader->next());
  return batch != nullptr;
}

}  // namespace

void warn_of_unseen_events(const View& view, const Context& context) {
  for (const auto& source : view.sources()) {
    if (!source.is_events || source.category == internal::kMessagesCategory) continue;
    const auto seen = has_events(context.store, source.category);
    if (seen && !*seen)  // what else is wrong with the store is told by who reads it next
      spdlog::warn(
          "view {}: the store has no event of category {} so far; `millrace log stat --store {}` "
          "shows what it has",
          view.name(), printable(source.category), context.store.string());
  }
}

}  // namespace millrace::projections
