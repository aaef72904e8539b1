#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "projections/cache_table.h"
#include "projections/relational/event_source.h"
#include "projections/relational/plan.h"
#include "projections/search_index.h"
#include "projections/view.h"

namespace millrace::projections {

namespace internal {

/// What a flow ends in: the keys of its result that have changed, and how their rows are written.
class Root {
 public:
  /// Where rows go. Errors stay in the writer, as of all that write to views.
  class Rows {
   public:
    virtual ~Rows() = default;
    virtual void put(const Datum& key, const Record& row) = 0;
    virtual void erase(const Datum& key) = 0;
  };

  virtual ~Root() = default;
  /// Writes the rows that changed since the last time.
  virtual void write(Rows& rows) = 0;
  virtual std::size_t bytes_in_memory() const = 0;
};

template <typename T, typename Function>
class RootOf final : public Root, public Consumer<T> {
 public:
  /// Rows are written in `order`.
  RootOf(Node<T>& from, Function function, std::vector<std::string> columns, ByteMap::Order order)
      : from_(from), function_(std::move(function)), columns_(std::move(columns)), order_(order) {
    from.feed(*this);
  }

  void take(const Delta<T>& delta) override { changed_.put(delta.key, std::nullopt); }
  bool needs_rows() const override { return false; }

  void write(Rows& rows) override {
    for (const ByteMap::Entry* changed : changed_.in_order(order_)) {
      const std::string_view key = changed->key();
      const Datum visible = from_.visible_key(key);
      try {
        if (from_.find(key, When::kAfter, row_))
          rows.put(visible, function_(*row_, columns_));
        else
          rows.erase(visible);
      } catch (const StateFailure&) {
        throw;
      } catch (const BadRow&) {
        throw;
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& thrown) {
        throw std::runtime_error("its row '" + visible.key_text() +
                                 "' can't be made: " + thrown.what());
      } catch (...) {
        throw std::runtime_error("its row '" + visible.key_text() +
                                 "' can't be made: a function threw what is no std::exception");
      }
    }
    changed_.clear();
  }
  std::size_t bytes_in_memory() const override { return changed_.bytes(); }

 private:
  Node<T>& from_;
  Function function_;
  std::vector<std::string> columns_;
  const ByteMap::Order order_;
  ByteMap changed_;       ///< Keys.
  std::optional<T> row_;  // reused
};

/// The columns of a view that are called as those of the row.
template <typename T>
Record by_name(const T& row, const std::vector<std::string>& columns) {
  Record record;
  if constexpr (IsTableRow<T> || IsEvent<T>) {
    for (const std::string& name : columns) record.add(name, row.column(name));
  } else {
    static_assert(std::is_same_v<T, Record>,
                  "these rows have no columns by name: give into() a function that makes a Record");
    for (const std::string& name : columns) record.add(name, row[name]);
  }
  return record;
}

using MakeRoot = std::function<std::unique_ptr<Root>(Flow&)>;

}  // namespace internal

/// A relation kept as a view: made by into(). What its operators need to know is kept in the view's
/// file, in tables named "<view>_state_<number>". A row that one of its functions throws at is set
/// aside: it stays as it was before that change, and all others go on (docs/projections.md).
class RelationalView final : public View {
 public:
  Result<void> create(sqlite::Database& database) const override;
  Result<void> begin_bulk(sqlite::Database& database) const override;
  Result<void> end_bulk(sqlite::Database& database) const override;
  Result<std::unique_ptr<internal::ViewWriter>> make_writer(
      sqlite::Database& database) const override;
  std::vector<internal::Comparison> comparisons() const override;
  std::string count_query() const override;
  const SinkKind* sink() const override { return made_.sink->sink(); }
  SinkShape sink_shape() const override { return made_.sink->sink_shape(); }

  /// As of other views (ViewBuilder): so many keys of its tables may wait.
  RelationalView&& set_aside_at_most(std::size_t keys) && {
    keys_set_aside_max_ = keys;
    return std::move(*this);
  }
  RelationalView& set_aside_at_most(std::size_t keys) & {
    keys_set_aside_max_ = keys;
    return *this;
  }

  // --- for into() ---
  /// What a sink of into() needs beside the relation itself.
  struct Made {
    std::shared_ptr<const View> sink;
    bool is_search_index = false;
    std::vector<Column> columns;
    std::vector<internal::SourceUse> sources;
    const google::protobuf::Descriptor* row = nullptr;  ///< In which the columns must be.
    std::string plan;                                   ///< Described.
    internal::MakeRoot make_root;
    std::string missing;  ///< What into() was not told.
  };
  RelationalView(std::string name, Version version, Made made);

 private:
  Result<void> check_shape() const override;
  void describe(std::string& shape) const override;

  Made made_;
};

namespace internal {

/// Fills in what a sink was not told and the relation knows.
void complete(CacheTableOptions& options, const Shape& shape, RelationalView::Made& made);
void complete(SearchIndexOptions& options, const Shape& shape, RelationalView::Made& made);

/// Of a view whose rows are events as they are.
void check_event_columns(RelationalView::Made& made);

/// Of a view whose rows are those of an aggregation as they are: its columns are among them.
void check_aggregated_columns(const Shape& shape, RelationalView::Made& made);

inline std::vector<std::string> names_of(const std::vector<Column>& columns) {
  std::vector<std::string> names;
  for (const Column& column : columns) names.push_back(column.name);
  return names;
}

template <typename T, typename Options, typename Function>
RelationalView make_view(const std::string& name, Version version, PlanOf<T> plan, Options options,
                         Function function) {
  constexpr bool is_search_index = std::is_same_v<Options, SearchIndexOptions>;
  constexpr bool is_by_name =
      std::is_same_v<Function, Record (*)(const T&, const std::vector<std::string>&)>;
  using Sink = std::conditional_t<is_search_index, SearchIndex, CacheTable>;
  const Shape shape = plan->shape();
  RelationalView::Made made;
  made.is_search_index = is_search_index;
  plan->sources(made.sources);
  complete(options, shape, made);
  if constexpr (is_by_name && IsTableRow<T>) made.row = shape.row;
  if constexpr (is_by_name && IsEvent<T>) check_event_columns(made);
  if constexpr (is_by_name && std::is_same_v<T, Record>) check_aggregated_columns(shape, made);
  // As the view's tree has them: SQLite appends faster than it inserts.
  const auto order =
      options.key.type == ColumnType::kInteger ? ByteMap::Order::kLength : ByteMap::Order::kBytes;
  made.sink = std::make_shared<Sink>(name, version, std::move(options));
  plan->describe(made.plan, 0);
  made.make_root = [plan, function = std::move(function), columns = names_of(made.columns),
                    order](Flow& flow) -> std::unique_ptr<Root> {
    return std::make_unique<RootOf<T, Function>>(plan->build(flow), function, columns, order);
  };
  return RelationalView(name, version, std::move(made));
}

}  // namespace internal
}  // namespace millrace::projections
