#include "projections/relational/relational_view.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "base/bytes.h"
#include "projections/relational/row_layout.h"

namespace millrace::projections {
namespace {

using internal::Flow;
using internal::RawChange;
using internal::Root;

/// Gathered rows and state: from here on they are written to the file before their time. A rebuild
/// takes more of the machine, since each row that is written once less is much for it.
constexpr std::size_t kMemoryMax = std::size_t{256} << 20;
constexpr std::size_t kBulkMemoryMax = std::size_t{2} << 30;
constexpr std::size_t kShareOfMachine = 8;

std::size_t memory_max(sqlite::Mode mode) {
  if (mode != sqlite::Mode::kBulk) return kMemoryMax;
  const auto pages = static_cast<std::size_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::size_t>(std::max(0L, ::sysconf(_SC_PAGESIZE)));
  return std::clamp(pages * page / kShareOfMachine, kMemoryMax, kBulkMemoryMax);
}

constexpr std::uint32_t kChangesBetweenLooks = 256;  // at the memory in use
constexpr std::size_t kLargeRow = 64 << 10;          // after which it is looked at in any case

std::string keys_name(const std::string& view) { return view + "_state_keys"; }
const std::string kLayoutOf = "\n";  // no category begins so

/// Of what a view keeps beside its rows, and of how keys are made. A file of another one is refused
/// until the view is rebuilt.
///   1  values of JSON events are grouped by kind and value; a left join's key without a partner
///      is "left,"
///   2  they are grouped as text; it is "left,\N"
constexpr int kFormat = 2;

template <typename Writer>
class WriterRows final : public Root::Rows {
 public:
  WriterRows(Writer& writer, const std::vector<Column>& columns)
      : writer_(writer), columns_(columns) {
    writer_.at(none_);
  }

  void put(const Datum& key, const Record& row) override {
    if (key.is_null())
      throw std::invalid_argument(
          "a row's key is null, which no view can hold: leave such rows out with where(), or group "
          "by(\"name\", function) that calls them something");
    assignments_.clear();
    texts_.resize(std::max(texts_.size(), row.fields().size()));
    std::size_t place = 0;
    for (const auto& [name, value] : row.fields())
      assignments_.push_back({name, value.value(texts_[place++])});
    // A row is what its function makes of it now: what that leaves out is not as it was before.
    for (const Column& column : columns_) {
      const auto is_it = [&](const auto& field) { return field.first == column.name; };
      if (std::none_of(row.fields().begin(), row.fields().end(), is_it))
        assignments_.push_back({column.name, column.counter ? Value(0) : Value()});
    }
    writer_.put(key.value(key_), assignments_);
  }
  void erase(const Datum& key) override {
    if (!key.is_null()) writer_.erase(key.value(key_));
  }

 private:
  Writer& writer_;
  const std::vector<Column>& columns_;
  RawChange none_;  // rows are written by key, not by change
  std::string key_;
  std::vector<std::string> texts_;
  std::vector<Assignment> assignments_;
};

/// A view's flow, from the changes of its tables to its rows.
class RelationalWriter final : public internal::ViewWriter {
 public:
  RelationalWriter(sqlite::Database& database, const std::string& name,
                   std::unique_ptr<internal::ViewWriter> sink, const RelationalView::Made& made)
      : is_live_(database.mode() == sqlite::Mode::kLive),
        memory_max_(memory_max(database.mode())),
        flow_(database, name, Flow::Purpose::kOpen),
        sink_(std::move(sink)) {
    if (made.is_search_index)
      rows_ = std::make_unique<WriterRows<SearchIndex::Writer>>(
          static_cast<SearchIndex::Writer&>(*sink_), made.columns);
    else
      rows_ = std::make_unique<WriterRows<CacheTable::Writer>>(
          static_cast<CacheTable::Writer&>(*sink_), made.columns);
  }

  Result<void> make(const RelationalView::Made& made) {
    root_ = made.make_root(flow_);
    MILLRACE_RETURN_IF_ERROR(flow_.made());
    MILLRACE_RETURN_IF_ERROR(keys_.open(flow_.database(), keys_name(flow_.name())));
    Result<void> laid_out;
    for (const internal::SourceUse& source : made.sources)
      if (source.row != nullptr && laid_out) laid_out = laid_out_as(source);
    keys_.rest();
    return laid_out;
  }

  /// Rows stay under the keys that they came with. A table that is emptied may begin with others,
  /// and what is deleted under an old key is what should be.
  Result<void> keyed_by(const RawChange& change, const std::string& columns) override {
    if (change.op == Op::kDelete) return {};
    try {
      const auto known = keys_.find(change.category);
      if (known == columns) return {};
      const std::string before(known.value_or(std::string_view()));
      const bool differs = known && change.op != Op::kTruncate;
      keys_.put(change.category, columns);
      return differs ? other_key(change, before, columns) : Result<void>{};
    } catch (internal::StateFailure& failure) {
      return failure.take();
    }
  }

  Result<void> take(const RawChange& change) {
    flow_.take(change);
    if (++changes_ % kChangesBetweenLooks != 0 && change.after.size() < kLargeRow) return {};
    if (has_room()) return {};
    has_spilled_ = true;
    return write();
  }

  void flush() override {
    if (failed()) return;
    if (auto written = write(); !written) fail(std::move(written).error());
    has_spilled_ = false;
  }
  bool gathers() const override { return true; }
  bool has_spilled() const override { return has_spilled_; }
  void take_over_from(ViewWriter& before) override {
    sink_->take_over_from(*static_cast<RelationalWriter&>(before).sink_);
  }
  Result<void> before_commit(Offset offset) override { return sink_->before_commit(offset); }

 private:
  /// Whether rows of that table that the view keeps are read as they were written.
  Result<void> laid_out_as(const internal::SourceUse& source) {
    const std::string name = kLayoutOf + source.category, now = internal::layout_of(*source.row);
    try {
      const auto kept = keys_.find(name);
      if (kept == now) return {};
      const std::string differs = kept ? internal::column_that_differs(*kept, now) : std::string();
      if (differs.empty()) return keys_.put(name, now), Result<void>{};
      return Error(ErrorCode::kFailedPrecondition,
                   "column " + printable(differs) + " of " + printable(source.category) +
                       " has another type in the program than in the rows that the view keeps of "
                       "that table")
          .hint(
              "Have `millrace capture resnapshot` write the table's rows anew, in their new type, "
              "then rebuild the view.");
    } catch (internal::StateFailure& failure) {
      return failure.take();
    }
  }

  Result<void> other_key(const RawChange& change, const std::string& before,
                         const std::string& now) const {
    const std::string what = "the key of " + printable(change.category) + " was (" +
                             printable(before) + ") and is (" + printable(now) + ") from here on";
    if (is_live_)
      return Error(ErrorCode::kFailedPrecondition,
                   what + ": rows that the view has under old keys would stay in it")
          .hint(
              "Run `millrace capture resync`, which takes the old keys out of the log, then "
              "rebuild the view.");
    spdlog::warn(
        "event {}: {}: rows that were not written since stay under their old keys, unless "
        "`millrace "
        "capture resync` has taken those out of the log",
        change.offset.value, what);
    return {};
  }

  bool has_room() const { return flow_.bytes_in_memory() + root_->bytes_in_memory() < memory_max_; }

  Result<void> write() {
    try {
      MILLRACE_RETURN_IF_ERROR(
          flow_.drain([this] { return has_room() ? Result<void>{} : write_drained(); }));
      return write_drained();
    } catch (const std::bad_alloc&) {
      return Error(ErrorCode::kUnavailable, "there is not enough memory for what it gathered");
    }
  }

  Result<void> write_drained() {
    try {
      root_->write(*rows_);
    } catch (internal::StateFailure& failure) {
      return failure.take();
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const internal::BadRow& bad) {
      return Error(ErrorCode::kCorruption, bad.what());
    } catch (const std::exception& thrown) {
      return Error(ErrorCode::kFailedPrecondition, thrown.what())
          .hint("The view stays as of its last commit. Mend the program, then start again.");
    }
    sink_->flush();
    if (sink_->failed()) return sink_->take_failure();
    MILLRACE_RETURN_IF_ERROR(keys_.flush());
    return flow_.flush();
  }

  const bool is_live_;
  const std::size_t memory_max_;
  Flow flow_;
  /// By category, the columns of the key of its rows; under kLayoutOf, how they are encoded.
  internal::StateTable keys_;
  std::unique_ptr<internal::ViewWriter> sink_;
  std::unique_ptr<Root::Rows> rows_;
  std::unique_ptr<Root> root_;
  std::uint32_t changes_ = 0;
  bool has_spilled_ = false;
};

class RelationalApplier final : public internal::Applier {
 public:
  explicit RelationalApplier(RelationalWriter& writer) : writer_(writer) {}
  Result<void> apply(const RawChange& change) override {
    try {
      return writer_.take(change);
    } catch (internal::StateFailure& failure) {
      return failure.take();
    }
  }

 private:
  RelationalWriter& writer_;
};

}  // namespace

RelationalView::RelationalView(std::string name, Version version, Made made)
    : View(std::move(name), version), made_(std::move(made)) {
  keys_set_aside_max_ = kKeysSetAsideMax;
  for (const internal::SourceUse& use : made_.sources) {
    const auto known = std::find_if(sources_.begin(), sources_.end(), [&](const auto& source) {
      return source.category == use.category && source.row == use.row;
    });
    if (known != sources_.end()) {
      known->uses.insert(known->uses.end(), use.uses.begin(), use.uses.end());
      continue;
    }
    sources_.push_back({use.category, use.row, false, !use.is_events,
                        [](internal::ViewWriter& writer) -> std::unique_ptr<internal::Applier> {
                          return std::make_unique<RelationalApplier>(
                              static_cast<RelationalWriter&>(writer));
                        },
                        use.is_events, use.uses});
  }
}

Result<void> RelationalView::check_shape() const {
  if (!made_.missing.empty()) return Error(ErrorCode::kInvalidArgument, made_.missing);
  if (made_.row != nullptr)
    for (const Column& column : made_.columns) {
      const auto* field = made_.row->FindFieldByName(column.name);
      if (field == nullptr)
        return Error(ErrorCode::kInvalidArgument, "its column '" + printable(column.name) +
                                                      "' is none of " + made_.row->full_name())
            .hint("Name it as the table does, or give into() a function that makes the row.");
      if (field->is_repeated() || field->message_type() != nullptr)
        return Error(ErrorCode::kInvalidArgument,
                     "its column '" + printable(column.name) + "' is an array or a message in " +
                         made_.row->full_name() + ", which no column of a view can hold")
            .hint("Give into() a function that makes the row, and a text or number of it.");
    }
  return made_.sink->check_shape();
}

void RelationalView::describe(std::string& shape) const {
  made_.sink->describe(shape);
  shape += "kept as of format " + std::to_string(kFormat) + "\n" + made_.plan;
}

Result<void> RelationalView::create(sqlite::Database& database) const {
  MILLRACE_RETURN_IF_ERROR(made_.sink->create(database));
  Flow flow(database, name(), Flow::Purpose::kCreate);
  made_.make_root(flow);
  MILLRACE_RETURN_IF_ERROR(flow.made());
  return internal::StateTable::create(database, keys_name(name()));
}

Result<void> RelationalView::begin_bulk(sqlite::Database& database) const {
  return made_.sink->begin_bulk(database);
}
Result<void> RelationalView::end_bulk(sqlite::Database& database) const {
  return made_.sink->end_bulk(database);
}
std::vector<internal::Comparison> RelationalView::comparisons() const {
  return made_.sink->comparisons();
}
std::string RelationalView::count_query() const { return made_.sink->count_query(); }

Result<std::unique_ptr<internal::ViewWriter>> RelationalView::make_writer(
    sqlite::Database& database) const {
  MILLRACE_ASSIGN_OR_RETURN(auto sink, made_.sink->make_writer(database));
  auto writer = std::make_unique<RelationalWriter>(database, name(), std::move(sink), made_);
  MILLRACE_RETURN_IF_ERROR(writer->make(made_));
  return std::unique_ptr<internal::ViewWriter>(std::move(writer));
}

namespace internal {
namespace {

/// What the key is called and of which type; `sink` is for the message.
void complete_key(Column& key, const char* sink, const Shape& shape, RelationalView::Made& made) {
  if (key.name.empty() && shape.key) key = *shape.key;
  if (key.name.empty()) {
    made.missing = std::string("it is not said what the key is called: ") + sink +
                   "{.key = " + (shape.is_compound ? "text(\"key\")}" : "integer(\"id\")}");
    return;
  }
  if (shape.is_compound && (key.type == ColumnType::kInteger || key.type == ColumnType::kReal))
    made.missing = "its key '" + printable(key.name) +
                   "' is declared as a number, but the keys of these rows are texts that are made "
                   "of others, like \"7,42\": say .key = text(\"" +
                   printable(key.name) + "\")";
  for (SourceUse& source : made.sources)
    if (source.category == shape.table_of_key && source.row != nullptr &&
        source.row->FindFieldByName(key.name) != nullptr)
      source.uses.push_back({.kind = ColumnUse::Kind::kKey, .column = key.name});
}

}  // namespace

void complete(CacheTableOptions& options, const Shape& shape, RelationalView::Made& made) {
  complete_key(options.key, "cache_table", shape, made);
  if (options.columns.empty()) {
    options.columns = shape.columns;
    if (shape.key_is_first) options.columns.erase(options.columns.begin());
  }
  made.columns = options.columns;
  if (!shape.problem.empty()) made.missing = shape.problem;
}

void complete(SearchIndexOptions& options, const Shape& shape, RelationalView::Made& made) {
  complete_key(options.key, "search_index", shape, made);
  for (const std::string& name : options.text) made.columns.push_back(text(name));
  for (const std::string& name : options.stored) made.columns.push_back(text(name));
  if (!shape.problem.empty()) made.missing = shape.problem;
}

void check_event_columns(RelationalView::Made& made) {
  for (const Column& column : made.columns)
    if (made.missing.empty() && !EventFields::has_column(column.name))
      made.missing = "its column '" + printable(column.name) +
                     "' is none of an event, which has key, type, version, data, time and offset; "
                     "give into() a function that makes the row";
}

void check_aggregated_columns(const Shape& shape, RelationalView::Made& made) {
  if (shape.columns.empty()) return;  // made by a function: not known before there is a row
  std::string there;
  for (const Column& column : shape.columns)
    there += (there.empty() ? "" : ", ") + printable(column.name);
  for (const Column& column : made.columns) {
    const auto is_it = [&](const Column& one) { return one.name == column.name; };
    if (made.missing.empty() && std::none_of(shape.columns.begin(), shape.columns.end(), is_it))
      made.missing = "its column '" + printable(column.name) +
                     "' is none of the aggregation, which has " + there;
  }
}

}  // namespace internal
}  // namespace millrace::projections
