#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "projections/sink.h"
#include "projections/sqlite/change_log.h"
#include "projections/sqlite/database.h"

namespace millrace::projections {

/// The rows of a cache table by key, as a sink gets them.
class ViewRows {
 public:
  static Result<ViewRows> open(sqlite::Database& view, const SinkShape& shape);

  /// The row, or the key of one that is not there; valid until the next call.
  Result<SinkRow> find(const Value& key);
  /// All of them, in the order of their keys.
  Result<void> for_each(const std::function<Result<void>(const SinkRow&)>& visit);
  /// Lets go of what was found, so that the view's transaction can end.
  void reset() { find_.reset(); }

 private:
  SinkRow row_of(const sqlite::Statement& statement);

  sqlite::Statement find_, all_;
  std::vector<Value> columns_;  // reused
};

/// Writes what a sink lacks, within a transaction of it: the rows with these keys.
Result<void> write_rows(Sink& sink, ViewRows& rows, ColumnType key,
                        const sqlite::ChangedKeys& keys);

/// The keys whose rows in a sink are not those of the view, put into the table temp.different(key,
/// there) of the view's connection; `there` is what the sink has, null for nothing. Gives how many
/// rows were compared.
Result<std::uint64_t> find_differences(Sink& sink, sqlite::Database& view, const SinkShape& shape);

}  // namespace millrace::projections
