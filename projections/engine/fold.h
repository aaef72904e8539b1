#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "eventstore/log_reader.h"
#include "projections/engine/checkpoint.h"
#include "projections/engine/quarantine.h"
#include "projections/sqlite/database.h"
#include "projections/view.h"
#include "schemas/registry.h"

// Of a view that gathers, an error may be that of any event since the last flush, which in a
// rebuild may be millions. The fold then goes back to what the file held by then, its mark, and
// halves what it folds at once, until it gets through or few events are left; those are folded with
// care (quarantine.h). Wherever it got through, the next mark is made, and twice as many events are
// folded at once. So an event that can't be folded costs about as much again as those since the one
// before it.
//
// Other views write each row as it is put, or a few at a time. Where those few fail, the fold goes
// back as well, and from there each row is written with its event, so that the error is of the
// right one.

namespace millrace::projections {

/// A view's functions at work on one SQLite file: events in, rows and checkpoint out.
///
/// The caller begins and commits the database's transactions; commit() writes the checkpoint into
/// the one that is open first. Errors name the view and the event, and leave the transaction to be
/// rolled back. An event that its function can't take is no error: it is set aside, in the same
/// transaction (quarantine.h). Threads: one.
class Fold {
 public:
  /// `from` is where the file stands. kFailedPrecondition if the program's messages can't hold the
  /// rows of the store's latest schemas.
  static Result<std::unique_ptr<Fold>> make(const View& view, sqlite::Database& database,
                                            SchemaRegistry& schemas, Checkpoint from);

  /// Applies the events of `batch` that are not folded yet and lie below `until`.
  Result<void> apply(Batch& batch, Offset until = {UINT64_MAX});
  /// After an error of apply() or of a commit: should events only have to be folded again, from
  /// where checkpoint() is after begin_again(), which may end the transaction.
  bool wants_to_begin_again() const { return failed_late_ || quarantine_.wants_care(); }
  Result<void> begin_again();
  /// What another process may have done to the file since the last commit.
  enum class Found : std::uint8_t {
    kAsItWas,   ///< Or something in the quarantine was decided, which this knows of now.
    kChanged,   ///< The Fold must be made anew.
    kElsewhere  ///< Somebody else has folded into it, or put another file's content there.
  };
  /// At the start of a transaction.
  Result<Found> look_again();
  /// Leaves these events out, as if they had been skipped.
  void leave_out(const std::vector<SetAsideEvent>& events) { quarantine_.leave_out(events); }
  /// Folds an event that was set aside. The reason if it still can't be: no later one of its key
  /// may be tried then.
  Result<std::optional<std::string>> try_again(const SetAsideEvent& event, const AuditNote& note);
  Result<void> skip(const SetAsideEvent& event, const AuditNote& note) {
    return quarantine_.skip(event, note);
  }
  /// The next event of `batch` is the second half of a change of key: a commit now would come
  /// between the halves, and begin_again() needs what the writer keeps of the first.
  bool goes_on_in(Batch& batch);

  /// Everything below `end` has been read; what of it was not given to apply() is of no interest to
  /// the view.
  void advance_to(Offset end);
  /// At the end of a source transaction.
  Result<void> commit();
  /// The same, which shows what was applied to readers. A view in memory is shown there; a commit
  /// is made of it only where one is due or `at_once`, else the database's transaction just ends.
  /// `is_all`: the log has no more. True if readers of a view in memory see it.
  Result<bool> show(bool is_all, bool at_once);
  /// A view in memory is to be shown or committed now, though nothing has come since.
  bool wants_show(bool at_once) const {
    if (!writer_->is_ahead_of_file()) return false;
    return !is_shown_ || (checkpoint_.events != committed_.events && (at_once || must_commit()));
  }
  /// The same in the middle of a source transaction, but not where goes_on_in(), in a file that
  /// nobody sees before the next commit(). What a view gathers in memory stays there, and then
  /// there may be nothing to commit: the transaction goes on.
  Result<void> commit_part();
  /// Ends the database's transaction where nothing but the position has moved, which is kept for
  /// the next commit().
  Result<void> release();
  /// Drops what was applied since the last commit(); the Fold is of no use after it.
  void give_up();

  const Checkpoint& checkpoint() const { return checkpoint_; }
  /// The position has moved since the last commit() or show().
  bool has_moved() const {
    return checkpoint_.offset != shown_.offset || checkpoint_.source_lsn != shown_.source_lsn;
  }
  /// The view's functions were called since the last commit() or show().
  bool has_written() const { return checkpoint_.events != shown_.events; }

 private:
  struct Table {
    const internal::Source* source;
    std::unique_ptr<internal::Applier> applier;
    std::uint32_t checked_schema = 0;  ///< Rows of this version and older can be read.
    std::vector<std::uint32_t> older_seen{};
    std::uint32_t keyed_schema = 0;  ///< Of which the writer knows the key.
  };

  Fold(const View& view, sqlite::Database& database, SchemaRegistry& schemas, Checkpoint from)
      : view_(view),
        database_(database),
        schemas_(schemas),
        checkpoint_(std::move(from)),
        committed_(checkpoint_),
        mark_(checkpoint_),
        shown_(checkpoint_),
        quarantine_(database, view.keys_set_aside_max()) {}

  Table* table_of(std::string_view category);
  Result<void> make_writer();
  void rollback();
  bool must_commit() const { return writer_->wants_commit() || quarantine_.must_commit(); }
  Result<void> apply_event(const EventView& event, const TransactionInfo& transaction);
  Result<void> call(Table& table);
  Quarantine::Hands hands(Table& table);
  Result<void> flush();
  Result<void> flush_gathered();
  void note_late(const Error& error);
  void write_at_once(bool at_once);
  Result<void> mark();
  void marked();
  Result<void> go_back();
  void log_news(const std::vector<std::string>& news) const;
  Result<void> decode(Table& table, const EventView& event, const TransactionInfo& transaction);
  Result<void> check_change(Table& table) const;
  Result<void> tell_key(Table& table);
  Result<void> check_schema(Table& table) const;

  const View& view_;
  sqlite::Database& database_;
  SchemaRegistry& schemas_;
  Checkpoint checkpoint_, committed_;
  Checkpoint mark_;  ///< What begin_again() goes back to: a commit, or a savepoint since.
  Checkpoint shown_;
  bool at_savepoint_ = false;
  bool is_shown_ = false;               ///< What the writer has in memory.
  std::uint64_t portion_ = UINT64_MAX;  ///< Events that are folded at once.
  CheckpointWriter checkpoint_writer_;
  std::unique_ptr<internal::ViewWriter> writer_;
  bool gathers_ = false;  ///< The writer does.
  bool at_once_ = false;  ///< It puts off no rows.
  bool failed_late_ = false;
  std::vector<Table> tables_;
  Quarantine quarantine_;
  internal::RawChange change_;  // reused
};

}  // namespace millrace::projections
