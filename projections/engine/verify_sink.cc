#include "projections/engine/verify_sink.h"

#include "projections/engine/sink_difference.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;
using sqlite::Statement;

/// Rows that have changed since the sink was where it said, as of now.
Result<sqlite::ChangedKeys> still_under_way(const Path& file, const Context& context,
                                            const SinkShape& shape, const SinkCheckpoint& shown) {
  MILLRACE_ASSIGN_OR_RETURN(const auto live, Database::open(file, Mode::kReadOnly, context.stop));
  MILLRACE_ASSIGN_OR_RETURN(const auto head, sqlite::read_change_log_head(*live));
  if (!head || head->lineage != shown.lineage)
    return Error(ErrorCode::kFailedPrecondition,
                 "another generation of the view is shown there; the live one was not brought over "
                 "yet")
        .hint("`" + context.program + " run` does it.");
  MILLRACE_ASSIGN_OR_RETURN(
      auto keys, sqlite::changed_since(*live, shape.key.type, shown.commit, shown.offset));
  if (keys) return *std::move(keys);
  return Error(ErrorCode::kUnavailable,
               "so much has changed in the view since the sink was written that the two can't be "
               "compared")
      .hint("Try again once `" + context.program + " status` says that the sink has caught up.");
}

std::string text_of(const SinkRow& row, const SinkShape& shape) {
  if (!row.columns) return std::string(kNone);
  std::string text;
  for (std::size_t i = 0; i < shape.columns.size(); ++i)
    text += (i == 0 ? "" : ", ") + shape.columns[i].name + " = " + shown((*row.columns)[i]);
  return text;
}

}  // namespace

Result<void> verify_sink(const View& view, const Context& context, const Path& file,
                         VerifyReport& report) {
  const SinkShape shape = view.sink_shape();
  const std::string where = view.sink()->describe(shape);
  const auto sink = view.sink()->make(shape);
  MILLRACE_ASSIGN_OR_RETURN(const auto at, sink->position());
  if (!at)
    return Error(ErrorCode::kFailedPrecondition,
                 "view " + view.name() + " was not written to " + where)
        .hint("`" + context.program + " run` does it; `" + context.program +
              " status` tells why it can't.");
  MILLRACE_ASSIGN_OR_RETURN(const auto live, Database::open(file, Mode::kReadOnly, context.stop));
  MILLRACE_RETURN_IF_ERROR(live->begin());
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t compared, find_differences(*sink, *live, shape));
  report.compared += compared;
  MILLRACE_ASSIGN_OR_RETURN(const auto changed, still_under_way(file, context, shape, *at));
  MILLRACE_ASSIGN_OR_RETURN(Statement forget,
                            live->prepare("DELETE FROM temp.different WHERE key = ?1"));
  for (const std::string& key : changed) {
    forget.bind(1, sqlite::key_of(shape.key.type, key));
    MILLRACE_RETURN_IF_ERROR(forget.run());
  }
  MILLRACE_ASSIGN_OR_RETURN(ViewRows rows, ViewRows::open(*live, shape));
  MILLRACE_ASSIGN_OR_RETURN(Statement different,
                            live->prepare("SELECT key, there FROM temp.different ORDER BY key"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool more, different.step());
    if (!more) return {};
    if (++report.different, report.differences.size() >= kDifferencesShown) continue;
    MILLRACE_ASSIGN_OR_RETURN(const SinkRow row, rows.find(different.column(0)));
    const Value there = different.column(1);
    report.differences.push_back({"row in " + where, shown(different.column(0)),
                                  there.is_null() ? std::string(kNone) : std::string(there.text()),
                                  text_of(row, shape)});
  }
}

}  // namespace millrace::projections
