#include "projections/engine/comparison.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "projections/sink.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Statement;

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

/// The rows of one comparison in both files, walked side by side in the order of their keys.
class Walk {
 public:
  Walk(std::string what, Statement live, Statement computed, VerifyReport& report)
      : what_(std::move(what)),
        live_(std::move(live)),
        computed_(std::move(computed)),
        report_(report) {}

  Result<void> run() {
    match_columns();
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
  void match_columns() {
    const auto names_of = [](const Statement& statement) {
      std::map<std::string, int> names;
      for (int i = 0; i < statement.column_count(); ++i) names.emplace(statement.column_name(i), i);
      return names;
    };
    const auto in_live = names_of(live_), in_computed = names_of(computed_);
    for (const auto& [name, place] : in_live) {
      const auto other = in_computed.find(name);
      if (other == in_computed.end())
        add_named("column", name, "there", std::string(kNone));
      else
        columns_.emplace_back(place, other->second);
    }
    for (const auto& [name, place] : in_computed)
      if (!in_live.contains(name)) add_named("column", name, std::string(kNone), "there");
    std::sort(columns_.begin(), columns_.end());
  }

  void compare_rows() {
    for (const auto& [live, computed] : columns_) {
      if (equal(live_.column(live), computed_.column(computed))) continue;
      const std::string column = live_.column_name(live) + " = ";
      return add(live_.column(0), column + shown(live_.column(live)),
                 column + shown(computed_.column(computed)));
    }
  }

  static std::string row(const Statement& statement) {
    std::string out;
    for (int i = 1; i < statement.column_count(); ++i)
      out += (i == 1 ? "" : ", ") + statement.column_name(i) + " = " + shown(statement.column(i));
    return out;
  }

  void add(const Value& key, std::string live, std::string computed) {
    add_named(what_, shown(key), std::move(live), std::move(computed));
  }
  void add_named(const std::string& what, std::string key, std::string live, std::string computed) {
    ++report_.different;
    if (report_.differences.size() < kDifferencesShown)
      report_.differences.push_back({what, std::move(key), std::move(live), std::move(computed)});
  }

  const std::string what_;
  Statement live_, computed_;
  std::vector<std::pair<int, int>> columns_;  ///< Their places in both.
  VerifyReport& report_;
};

/// All of its digits, and never like an integer.
std::string shown_real(const Value& value) {
  const std::string text = *sink_text(value);
  return text.find_first_not_of("-0123456789") == text.npos ? text + ".0" : text;
}

}  // namespace

std::string shown(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kInteger: return std::to_string(value.integer());
    case Value::Kind::kReal: return shown_real(value);
    case Value::Kind::kText: return "'" + printable(value.text(), 80) + "'";
    case Value::Kind::kBlob: return "x'" + to_hex(value.text().substr(0, 40)) + "'";
    default: return "null";
  }
}

Result<void> compare_views(const View& view, Database& live, Database& computed,
                           VerifyReport& report) {
  for (const auto& comparison : view.comparisons()) {
    for (Database* database : {&live, &computed}) {
      MILLRACE_RETURN_IF_ERROR(database->execute(comparison.setup));
      if (comparison.prepare) MILLRACE_RETURN_IF_ERROR(comparison.prepare(*database));
    }
    MILLRACE_ASSIGN_OR_RETURN(Statement in_live, live.prepare(comparison.sql));
    MILLRACE_ASSIGN_OR_RETURN(Statement in_computed, computed.prepare(comparison.sql));
    MILLRACE_RETURN_IF_ERROR(
        Walk(comparison.what, std::move(in_live), std::move(in_computed), report).run());
  }
  return {};
}

}  // namespace millrace::projections
