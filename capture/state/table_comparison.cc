#include "capture/state/table_comparison.h"

#include <map>

namespace millrace {

namespace {

class Comparison {
 public:
  Comparison(KeyedState& state, std::size_t number, LiveRows& live, const LiveRows::Table& table,
             SchemaRegistry& schemas, const OnDifference& on_difference,
             const std::stop_token& stop)
      : state_(state),
        number_(number),
        live_rows_(live),
        table_(table),
        schemas_(schemas),
        on_difference_(on_difference),
        stop_(stop) {}

  Result<TableCounts> run() {
    MILLRACE_ASSIGN_OR_RETURN(stored_, state_.next(number_));
    MILLRACE_ASSIGN_OR_RETURN(live_, live_rows_.next());
    while (stored_ != nullptr || live_ != nullptr) {
      if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
      const int order = stored_ == nullptr ? 1
                        : live_ == nullptr ? -1
                                           : sort_key(*stored_).compare(live_->key);
      if (order < 0) {
        MILLRACE_RETURN_IF_ERROR(gone(stored_->count));
        MILLRACE_ASSIGN_OR_RETURN(stored_, state_.next(number_));
      } else if (order > 0) {
        MILLRACE_RETURN_IF_ERROR(missing());
        MILLRACE_ASSIGN_OR_RETURN(live_, live_rows_.next());
      } else if (table_.rows_are_keys) {
        MILLRACE_RETURN_IF_ERROR(count_equal());
      } else {
        MILLRACE_RETURN_IF_ERROR(compare());
      }
    }
    return counts_;
  }

 private:
  std::string_view sort_key(const KeyedRow& row) {
    if (!table_.rows_are_keys) return row.key;
    return row_key_ = key_of_row(row.state.row);
  }

  Result<void> gone(std::uint64_t times) {
    counts_.stored += times;
    counts_.gone += times;
    return on_difference_({.kind = RowDifferenceKind::kGone,
                           .key = stored_->key,
                           .stored = &stored_->state,
                           .times = times});
  }
  Result<void> missing() {
    ++counts_.live;
    ++counts_.missing;
    return on_difference_(
        {.kind = RowDifferenceKind::kMissing, .key = live_->event_key, .live = live_});
  }

  /// Rows without keys that are equal: as many of them must be there as here.
  Result<void> count_equal() {
    std::uint64_t left = stored_->count;
    const std::string key(live_->key);
    while (live_ != nullptr && live_->key == key) {
      if (left > 0) {
        --left;
        ++counts_.live, ++counts_.stored, ++counts_.equal;
      } else {
        MILLRACE_RETURN_IF_ERROR(missing());
      }
      MILLRACE_ASSIGN_OR_RETURN(live_, live_rows_.next());
    }
    if (left > 0) MILLRACE_RETURN_IF_ERROR(gone(left));
    MILLRACE_ASSIGN_OR_RETURN(stored_, state_.next(number_));
    return {};
  }

  Result<void> compare() {
    ++counts_.live, ++counts_.stored;
    MILLRACE_ASSIGN_OR_RETURN(const TableSchema* schema, schema_of(stored_->state.schema));
    MILLRACE_RETURN_IF_ERROR(
        compare_rows(stored_->state, *schema, live_->row, *table_.schema, difference_));
    if (difference_.is_equal()) {
      ++counts_.equal;
    } else {
      const bool differs = !difference_.different.empty();
      ++(differs ? counts_.different : counts_.incomplete);
      MILLRACE_RETURN_IF_ERROR(on_difference_(
          {.kind = differs ? RowDifferenceKind::kDifferent : RowDifferenceKind::kIncomplete,
           .key = stored_->key,
           .stored = &stored_->state,
           .live = live_,
           .columns = &difference_}));
    }
    MILLRACE_ASSIGN_OR_RETURN(stored_, state_.next(number_));
    MILLRACE_ASSIGN_OR_RETURN(live_, live_rows_.next());
    return {};
  }

  Result<const TableSchema*> schema_of(std::uint32_t version) {
    auto known = known_.find(version);
    if (known == known_.end()) {
      MILLRACE_ASSIGN_OR_RETURN(auto schema, schemas_.find(table_.schema->category, version));
      known = known_.emplace(version, std::move(schema)).first;
    }
    return known->second.get();
  }

  KeyedState& state_;
  const std::size_t number_;
  LiveRows& live_rows_;
  const LiveRows::Table& table_;
  SchemaRegistry& schemas_;
  const OnDifference& on_difference_;
  const std::stop_token& stop_;
  const KeyedRow* stored_ = nullptr;
  const LiveRow* live_ = nullptr;
  std::string row_key_;
  std::map<std::uint32_t, SchemaRegistry::Schema> known_;  // by version
  RowDifference difference_;
  TableCounts counts_;
};

}  // namespace

Result<TableCounts> compare_table(KeyedState& state, std::size_t number, LiveRows& live,
                                  const LiveRows::Table& table, SchemaRegistry& schemas,
                                  const OnDifference& on_difference, const std::stop_token& stop) {
  return Comparison(state, number, live, table, schemas, on_difference, stop).run();
}

}  // namespace millrace
