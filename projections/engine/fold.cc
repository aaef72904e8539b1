#include "projections/engine/fold.h"

#include <google/protobuf/descriptor.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "projections/engine/envelope.h"
#include "projections/engine/event_envelope.h"
#include "projections/engine/row_check.h"

namespace millrace::projections {
namespace {

constexpr std::size_t kNewsMax = 10;  // that are logged after a commit, each
/// Not halved any further: each is flushed alone, which takes some tens of microseconds; to begin
/// again takes a thousand.
constexpr std::uint64_t kFewEvents = 32;

}  // namespace

Result<std::unique_ptr<Fold>> Fold::make(const View& view, sqlite::Database& database,
                                         SchemaRegistry& schemas, Checkpoint from) {
  std::unique_ptr<Fold> fold(new Fold(view, database, schemas, std::move(from)));
  MILLRACE_ASSIGN_OR_RETURN(fold->checkpoint_writer_, CheckpointWriter::make(database));
  for (const auto& source : view.sources()) {
    Table table{&source, nullptr};
    if (source.is_events) {
      fold->tables_.push_back(std::move(table));
      continue;
    }
    const auto latest = schemas.latest(source.category);
    if (latest) {
      // Also where the program checked it at its start: a new shape may have come since.
      if (auto fits = check_row(*source.row, **latest); !fits)
        return std::move(fits).error().context("view " + view.name());
      table.checked_schema = (*latest)->version;
    } else if (latest.error().code() != ErrorCode::kNotFound) {
      return latest.error();
    }
    fold->tables_.push_back(std::move(table));
  }
  // In this order: what changes in between makes look_again() look at all of it.
  MILLRACE_RETURN_IF_ERROR(fold->quarantine_.load());
  if (auto made = fold->make_writer(); !made)
    return std::move(made).error().context("view " + view.name());
  if (fold->writer_->is_ahead_of_file()) fold->quarantine_.put_off_what_waits();
  return fold;
}

/// Also anew, where what the one before has in memory is not to be.
Result<void> Fold::make_writer() {
  for (Table& table : tables_) table.applier.reset();
  MILLRACE_ASSIGN_OR_RETURN(auto writer, view_.make_writer(database_));
  if (writer_) writer->take_over_from(*writer_);
  writer_ = std::move(writer);
  is_shown_ = false;
  gathers_ = writer_->gathers();
  write_at_once(at_once_);
  for (Table& table : tables_) {
    table.applier = table.source->make_applier(*writer_);
    table.keyed_schema = 0;
  }
  return {};
}

Fold::Table* Fold::table_of(std::string_view category) {
  for (Table& table : tables_)
    if (table.source->category == category) return &table;
  return nullptr;
}

Result<void> Fold::apply(Batch& batch, Offset until) {
  std::optional<Offset> last;
  while (const EventView* event = batch.next()) {
    if (event->offset < checkpoint_.offset) continue;
    if (event->offset >= until) break;
    const Offset after{event->offset.value + 1};
    if (auto applied = apply_event(*event, batch.info); !applied) [[unlikely]] {
      note_late(applied.error());
      return std::move(applied).error().context(
          "view " + view_.name() + ": event at offset " + std::to_string(event->offset.value) +
          " of " + printable(event->category) + ", key '" + printable(event->key) + "'");
    }
    advance_to(after);
    last = event->offset;
  }
  MILLRACE_RETURN_IF_ERROR(batch.status());
  if (!last) return {};
  checkpoint_.last_event = last;
  if (batch.info.source.epoch != 0) {
    checkpoint_.source_epoch = batch.info.source.epoch;
    checkpoint_.source_lsn = batch.info.source.commit;
  }
  checkpoint_.commit_time = batch.info.commit_time;
  return {};
}

Result<void> Fold::apply_event(const EventView& event, const TransactionInfo& transaction) {
  Table* table = table_of(event.category);
  if (table == nullptr) return {};
  MILLRACE_RETURN_IF_ERROR(decode(*table, event, transaction));
  // Both halves of a change of key are of one portion: the second needs what the first leaves.
  if (checkpoint_.events - mark_.events >= portion_ && !change_.moved_from) [[unlikely]]
    MILLRACE_RETURN_IF_ERROR(mark());
  ++checkpoint_.events;
  if (!quarantine_.is_idle()) [[unlikely]]
    return quarantine_.pass(event, change_, hands(*table));
  auto done = call(*table);
  if (!done && (gathers_ || change_.op != Op::kTruncate)) [[unlikely]]
    quarantine_.note_failure(event.offset, done.error());
  return done;
}

/// Into change_, if that can be what the view expects.
Result<void> Fold::decode(Table& table, const EventView& event,
                          const TransactionInfo& transaction) {
  if (table.source->is_events) return decode_event(event, transaction, change_);
  MILLRACE_RETURN_IF_ERROR(decode_change(event, transaction, change_));
  MILLRACE_RETURN_IF_ERROR(check_change(table));
  if (change_.schema != table.keyed_schema) [[unlikely]]
    MILLRACE_RETURN_IF_ERROR(tell_key(table));
  return {};
}

Result<void> Fold::call(Table& table) {
  try {
    return table.applier->apply(change_);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kUnavailable, "there is not enough memory for it");
  } catch (const std::exception& thrown) {
    if (writer_->failed()) return writer_->take_failure();  // before it
    return Error(ErrorCode::kFailedPrecondition,
                 std::string("its function threw: ") + thrown.what())
        .hint("The view stays as it was before this event. Mend the function, then start again.");
  } catch (...) {
    return Error(ErrorCode::kFailedPrecondition, "its function threw what is no std::exception")
        .hint("The view stays as it was before this event. Mend the function, then start again.");
  }
}

Quarantine::Hands Fold::hands(Table& table) {
  const auto call_alone = [this, &table] {
    auto done = call(table);
    return done && gathers_ ? flush() : done;
  };
  return {.call = [this, &table] { return call(table); },
          .call_alone = call_alone,
          .flush = [this] { return flush(); },
          .renew = [this] { return make_writer(); },
          .gathers = gathers_};
}

Result<void> Fold::begin_again() {
  const std::uint64_t events = checkpoint_.events - mark_.events;
  MILLRACE_RETURN_IF_ERROR(go_back());
  failed_late_ = false;
  at_once_ = true;
  const bool with_care = !gathers_ || events <= kFewEvents;
  if (gathers_) portion_ = with_care ? events : events / 2;
  // In this order, as in make().
  MILLRACE_RETURN_IF_ERROR(quarantine_.begin_again(with_care));
  return make_writer();
}

Result<Fold::Found> Fold::look_again() {
  MILLRACE_ASSIGN_OR_RETURN(const auto changes, quarantine_.load_if_changed());
  // Also where nothing seems to have changed: it may have before the quarantine was read last.
  MILLRACE_ASSIGN_OR_RETURN(const bool stands, checkpoint_writer_.stands_at(committed_));
  if (writer_->is_ahead_of_file() && (changes.any || !stands)) return Found::kChanged;
  if (!stands) return Found::kElsewhere;
  // Whoever folded what had waited has changed what this writer knows of the file.
  if (changes.decided) MILLRACE_RETURN_IF_ERROR(make_writer());
  return Found::kAsItWas;
}

Result<std::optional<std::string>> Fold::try_again(const SetAsideEvent& event,
                                                   const AuditNote& note) {
  const auto where = [&](Error error) {
    return std::move(error).context("view " + view_.name() + ": event at offset " +
                                    std::to_string(event.offset.value) + " of " +
                                    printable(event.category));
  };
  Table* table = table_of(event.category);
  if (table == nullptr)
    return where(Error(ErrorCode::kFailedPrecondition, "the view takes nothing from it any more"));
  write_at_once(true);
  const EventView view = event.view();
  if (auto decoded = decode(*table, view, event.transaction); !decoded)
    return where(std::move(decoded).error());
  auto reason = quarantine_.try_again(event, change_, note, hands(*table));
  if (!reason) return where(std::move(reason).error());
  return reason;
}

bool Fold::goes_on_in(Batch& batch) {
  const EventView* event = batch.next();
  const Table* table = event == nullptr ? nullptr : table_of(event->category);
  const bool is_second_half = table != nullptr && !table->source->is_events &&
                              decode_change(*event, batch.info, change_) && change_.moved_from;
  batch.rewind();
  return is_second_half;
}

Result<void> Fold::check_change(Table& table) const {
  if (change_.schema != table.checked_schema) [[unlikely]]
    MILLRACE_RETURN_IF_ERROR(check_schema(table));
  const bool had_a_row = change_.op == Op::kUpdate || change_.op == Op::kDelete;
  if (table.source->needs_old_rows && had_a_row && (!change_.before || change_.before_is_key))
      [[unlikely]]
    return Error(ErrorCode::kFailedPrecondition,
                 "it came without the old row, which the view needs")
        .hint("It was written while the table was not REPLICA IDENTITY FULL.");
  return {};
}

Result<void> Fold::tell_key(Table& table) {
  if (table.source->needs_key) {
    MILLRACE_ASSIGN_OR_RETURN(const auto schema,
                              schemas_.find(table.source->category, change_.schema));
    std::string columns;
    for (const ColumnSchema& column : schema->columns)
      if (column.key) columns += (columns.empty() ? "" : ", ") + column.name;
    MILLRACE_RETURN_IF_ERROR(writer_->keyed_by(change_, columns));
  }
  // A deletion tells nothing of the key that rows have now.
  if (change_.op != Op::kDelete) table.keyed_schema = change_.schema;
  return {};
}

/// A newer shape than the one that make() checked must still be readable. An older one always
/// is, but the values of a column that had another type then are in a field that the program does
/// not have.
Result<void> Fold::check_schema(Table& table) const {
  const std::uint32_t version = change_.schema;
  if (version < table.checked_schema &&
      std::ranges::find(table.older_seen, version) != table.older_seen.end())
    return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto schema, schemas_.find(table.source->category, version));
  if (version > table.checked_schema) {
    MILLRACE_RETURN_IF_ERROR(check_row(*table.source->row, *schema));
    table.checked_schema = version;
    return {};
  }
  table.older_seen.push_back(version);
  for (const auto& column : schema->columns) {
    const auto* field = table.source->row->FindFieldByName(column.name);
    if (field != nullptr && static_cast<std::uint32_t>(field->number()) != column.field)
      spdlog::warn(
          "view {}: column {} of {} had another type when event {} was written (schema version "
          "{}); the "
          "program sees null in its place",
          view_.name(), printable(column.name), printable(table.source->category),
          change_.offset.value, version);
  }
  return {};
}

void Fold::advance_to(Offset end) { checkpoint_.offset = std::max(checkpoint_.offset, end); }

Result<void> Fold::flush() {
  writer_->flush();
  if (writer_->failed()) return writer_->take_failure();
  return {};
}

/// An error may be the fault of any event since the mark.
Result<void> Fold::flush_gathered() {
  auto done = flush();
  if (done) return done;
  note_late(done.error());
  const bool any = checkpoint_.events != mark_.events;
  if (gathers_ && any && !quarantine_.is_careful())
    quarantine_.note_failure(Offset{checkpoint_.offset.value - 1}, done.error());
  return std::move(done).error().context("view " + view_.name());
}

void Fold::note_late(const Error& error) {
  failed_late_ = writer_->failed_late() && is_fault_of_event(error);
}

void Fold::write_at_once(bool at_once) {
  at_once_ = at_once;
  writer_->write_at_once(at_once);
}

/// begin_again() goes no further back than here.
Result<void> Fold::mark() {
  MILLRACE_RETURN_IF_ERROR(flush_gathered());
  MILLRACE_RETURN_IF_ERROR(quarantine_.keep());
  if (at_savepoint_) MILLRACE_RETURN_IF_ERROR(database_.execute("RELEASE millrace_mark"));
  MILLRACE_RETURN_IF_ERROR(database_.execute("SAVEPOINT millrace_mark"));
  at_savepoint_ = true;
  marked();
  return {};
}

void Fold::marked() {
  mark_ = checkpoint_;
  portion_ = portion_ > UINT64_MAX / 2 ? UINT64_MAX : 2 * portion_;
}

Result<void> Fold::go_back() {
  if (!at_savepoint_) {
    rollback();
    return {};
  }
  checkpoint_ = mark_;
  return database_.execute("ROLLBACK TO millrace_mark");
}

void Fold::log_news(const std::vector<std::string>& news) const {
  const std::size_t shown = std::min(news.size(), kNewsMax);
  for (std::size_t i = 0; i < shown; ++i) spdlog::error("view {}: {}", view_.name(), news[i]);
  if (shown < news.size())
    spdlog::error("view {}: {} more events are set aside; `quarantine list` shows them",
                  view_.name(), news.size() - shown);
}

Result<void> Fold::commit() {
  MILLRACE_RETURN_IF_ERROR(flush_gathered());
  MILLRACE_RETURN_IF_ERROR(quarantine_.write_put_off());
  MILLRACE_RETURN_IF_ERROR(writer_->before_commit(checkpoint_.offset));
  MILLRACE_RETURN_IF_ERROR(checkpoint_writer_.write(checkpoint_));
  MILLRACE_RETURN_IF_ERROR(database_.commit());
  committed_ = shown_ = checkpoint_;
  at_savepoint_ = false;
  marked();
  log_news(quarantine_.committed(checkpoint_.offset));
  write_at_once(quarantine_.is_careful());
  return {};
}

Result<bool> Fold::show(bool is_all, bool at_once) {
  // Before the commit: whoever reads there that it is shown must find it so.
  MILLRACE_ASSIGN_OR_RETURN(is_shown_, writer_->show(checkpoint_.offset, is_all));
  if (at_once || must_commit()) {
    MILLRACE_RETURN_IF_ERROR(commit());
  } else {
    MILLRACE_RETURN_IF_ERROR(database_.commit());
    shown_ = checkpoint_;
  }
  return is_shown_;
}

Result<void> Fold::commit_part() {
  const bool is_all_in_memory = gathers_ && !writer_->has_spilled() && !at_savepoint_;
  if (is_all_in_memory) return {};
  if (!must_commit()) return database_.commit();
  return commit();  // what is in memory must not be lost should it begin again
}

Result<void> Fold::release() {
  MILLRACE_CHECK(!has_written());
  return database_.commit();
}

void Fold::rollback() {
  database_.rollback();
  checkpoint_ = mark_ = shown_ = committed_;
  at_savepoint_ = false;
}

void Fold::give_up() {
  rollback();
  for (Table& table : tables_) table.applier.reset();
  writer_.reset();
}

}  // namespace millrace::projections
