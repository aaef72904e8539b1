#include "projections/engine/verify.h"

#include "base/bytes.h"
#include "projections/engine/fold.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;
using sqlite::Statement;

constexpr std::string_view kNone = "(none)";

bool equal(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kInteger: return a.integer() == b.integer();
    case Value::Kind::kReal: return a.real() == b.real();
    default: return a.text() == b.text();
  }
}

/// Keys as SQLite orders them: numbers before text.
int compare_keys(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return a.kind() < b.kind() ? -1 : 1;
  if (a.kind() == Value::Kind::kInteger)
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  return a.text().compare(b.text());
}

std::string shown(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kInteger: return std::to_string(value.integer());
    case Value::Kind::kReal: return std::to_string(value.real());
    case Value::Kind::kText: return "'" + printable(value.text(), 80) + "'";
    case Value::Kind::kBlob: return "x'" + to_hex(value.text().substr(0, 40)) + "'";
    default: return "null";
  }
}

/// The rows of one comparison in both files, walked side by side in the order of their keys.
class Walk {
 public:
  Walk(std::string what, Statement live, Statement computed, VerifyReport& report)
      : what_(std::move(what)),
        live_(std::move(live)),
        computed_(std::move(computed)),
        report_(report) {}

  Result<void> run() {
    MILLRACE_ASSIGN_OR_RETURN(bool in_live, live_.step());
    MILLRACE_ASSIGN_OR_RETURN(bool in_computed, computed_.step());
    while (in_live || in_computed) {
      const int order = !in_live       ? 1
                        : !in_computed ? -1
                                       : compare_keys(live_.column(0), computed_.column(0));
      ++report_.compared;
      if (order == 0) compare_rows();
      if (order < 0) add(live_.column(0), row(live_), std::string(kNone));
      if (order > 0) add(computed_.column(0), std::string(kNone), row(computed_));
      if (order <= 0) {
        MILLRACE_ASSIGN_OR_RETURN(in_live, live_.step());
      }
      if (order >= 0) {
        MILLRACE_ASSIGN_OR_RETURN(in_computed, computed_.step());
      }
    }
    return {};
  }

 private:
  void compare_rows() {
    for (int i = 0; i < live_.column_count(); ++i) {
      if (equal(live_.column(i), computed_.column(i))) continue;
      const std::string column = live_.column_name(i) + " = ";
      return add(live_.column(0), column + shown(live_.column(i)),
                 column + shown(computed_.column(i)));
    }
  }

  static std::string row(const Statement& statement) {
    std::string out;
    for (int i = 1; i < statement.column_count(); ++i)
      out += (i == 1 ? "" : ", ") + statement.column_name(i) + " = " + shown(statement.column(i));
    return out;
  }

  void add(const Value& key, std::string live, std::string computed) {
    ++report_.different;
    if (report_.differences.size() < kDifferencesShown)
      report_.differences.push_back({what_, shown(key), std::move(live), std::move(computed)});
  }

  const std::string what_;
  Statement live_, computed_;
  VerifyReport& report_;
};

/// What was set aside or skipped in the live view is left out here too.
Result<void> compute(const View& view, const Context& context, Database& live, Database& scratch,
                     Offset until, const BuildHooks& hooks) {
  MILLRACE_ASSIGN_OR_RETURN(const auto set_aside, read_set_aside(live));
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, context.open_reader(view, Offset{0}));
  const Checkpoint start = context.beginning(view, reader->store_id());
  MILLRACE_RETURN_IF_ERROR(create_checkpoint(scratch, start));
  MILLRACE_RETURN_IF_ERROR(view.create(scratch));
  MILLRACE_RETURN_IF_ERROR(view.begin_bulk(scratch));
  MILLRACE_RETURN_IF_ERROR(copy_audit(live, scratch));
  MILLRACE_ASSIGN_OR_RETURN(const auto fold, Fold::make(view, scratch, *context.schemas, start));
  fold->leave_out(set_aside);
  return fold_until(*fold, scratch, view, context, until, hooks.events_per_commit, [&] {
    if (hooks.progress) hooks.progress(fold->checkpoint().offset, until);
  });
}

Result<VerifyReport> compare(const View& view, const Context& context, Database& live,
                             const BuildHooks& hooks) {
  // From here on `live` sees the file as of one commit.
  MILLRACE_RETURN_IF_ERROR(live.begin());
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, read_checkpoint(live));
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, context.open_reader(view, checkpoint.offset));
  MILLRACE_RETURN_IF_ERROR(check_continuation(view, checkpoint, reader->store_id(),
                                              reader->durable_end(), context.program));
  const Path file = context.generations(view).scratch();
  MILLRACE_ASSIGN_OR_RETURN(const auto scratch, Database::open(file, Mode::kBulk, context.stop));
  MILLRACE_RETURN_IF_ERROR(compute(view, context, live, *scratch, checkpoint.offset, hooks));
  VerifyReport report{.offset = checkpoint.offset, .differences = {}};
  MILLRACE_ASSIGN_OR_RETURN(report.left_out, count_set_aside(live));
  for (const auto& comparison : view.comparisons()) {
    for (Database* database : {&live, scratch.get()})
      MILLRACE_RETURN_IF_ERROR(database->execute(comparison.setup));
    MILLRACE_ASSIGN_OR_RETURN(Statement in_live, live.prepare(comparison.sql));
    MILLRACE_ASSIGN_OR_RETURN(Statement in_scratch, scratch->prepare(comparison.sql));
    MILLRACE_RETURN_IF_ERROR(
        Walk(comparison.what, std::move(in_live), std::move(in_scratch), report).run());
  }
  return report;
}

}  // namespace

Result<VerifyReport> verify_view(const View& view, const Context& context,
                                 const BuildHooks& hooks) {
  const Generations generations = context.generations(view);
  MILLRACE_ASSIGN_OR_RETURN(const auto generation, generations.live());
  if (!generation)
    return Error(ErrorCode::kNotFound,
                 "view " + view.name() + " was never made in " + context.views.string())
        .hint("Make it with `" + context.program + " run`, or with `" + context.program +
              " rebuild`.");
  MILLRACE_ASSIGN_OR_RETURN(const auto lock, generations.lock_verify(context.holder("verify")));
  MILLRACE_RETURN_IF_ERROR(
      generations.remove_file(generations.scratch()));  // a killed verify may have left one
  MILLRACE_ASSIGN_OR_RETURN(const auto live, Database::open(generations.file(*generation),
                                                            Mode::kReadOnly, context.stop));
  auto report = compare(view, context, *live, hooks);
  MILLRACE_RETURN_IF_ERROR(generations.remove_file(generations.scratch()));
  return report;
}

}  // namespace millrace::projections
