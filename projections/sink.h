#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "eventstore/types.h"
#include "projections/value.h"
#include "projections/view.h"

// Where a cache table is kept as well: a table of a PostgreSQL server, keys of a Redis, or whatever
// implements the two classes below and passes testing::broken_promise() (sink_testing.h).
//
// The view's own file holds the rows and what the fold needs to know; a sink is kept equal to it.
// What it is given are whole rows by their keys, never differences, and each transaction of it
// takes the sink from one state of the view to a later one. So whatever was lost on the way or over
// there (a reply, a commit, everything) is written again from the view's file, and neither side has
// to wait for the other: no prepared transaction, no log of what is under way.

namespace millrace::projections {

/// Which state of a view a sink shows; written in the same transaction as its rows.
struct SinkCheckpoint {
  std::string store_id;      ///< Of the store that the view follows.
  std::string lineage;       ///< Names the file of the view that the rows are from.
  std::uint64_t commit = 0;  ///< Commits of that file are counted.
  Offset offset;             ///< Everything below is shown.

  bool operator==(const SinkCheckpoint&) const = default;
};

/// What the rows of a view look like.
struct SinkShape {
  std::string view;
  Column key;  ///< An integer or a text.
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> indexes;  ///< To look rows up by, where a sink can.
};

/// A row of a view, or where it has no columns, the key of one that is gone. Values are of the
/// types that their columns say, or null; they live until the call returns.
struct SinkRow {
  Value key;
  std::optional<std::span<const Value>> columns;
};

/// Who writes a view: all Sinks of one process have the same name, by which it is told from
/// another that has taken over.
struct SinkWriter {
  std::string name;
  std::string store_id;  ///< Of the store that it follows.
  bool again = false;    ///< It has opened a Sink before.
};

/// One connection to where a view is kept. Used as
///
///     open() (begin() write()... checkpoint() commit() [finish()])...
///
/// and thrown away after any error: nothing of the transaction that was open is to be seen, but
/// of one whose commit() or finish() failed either all of it or nothing. open() of another Sink
/// tells which.
///
/// Errors: kUnavailable for what may pass, which is tried again with a new Sink; anything else
/// stops the view. Threads: one.
class Sink {
 public:
  virtual ~Sink() = default;

  /// Takes over: from here on no Sink of this view that was opened before can commit(). Where
  /// `writer` comes again and another one has taken over meanwhile, it is fenced_off() instead.
  /// Gives what is shown, nothing if that is nothing or rows of another shape. Makes what is
  /// missing. kFailedPrecondition, with nothing changed and nobody kept from writing, if something
  /// is there that the view has not written, or has from another store.
  virtual Result<std::optional<SinkCheckpoint>> open(const SinkWriter& writer) = 0;

  virtual Result<void> begin() = 0;
  /// Puts a row in the place of what has its key, or takes that away. A key comes once in a
  /// transaction.
  virtual Result<void> write(const SinkRow& row) = 0;
  /// The last thing in a transaction, once.
  virtual Result<void> checkpoint(const SinkCheckpoint& checkpoint) = 0;
  /// All at once to whoever reads there, and as durable as the place is. Only where open() gave
  /// nothing, rows may be seen before: readers then ask for a checkpoint first.
  ///
  /// May return while that is still under way, so that the next transaction can be sent meanwhile;
  /// but not before the commit() before it is known to be done.
  virtual Result<void> commit() = 0;
  /// Waits until what was committed is there.
  virtual Result<void> finish() { return {}; }

  /// What is shown; without taking over. Nothing also where the view was never kept.
  virtual Result<std::optional<SinkCheckpoint>> position() = 0;
  /// Where position() gives something, every row that is there, in any order, some perhaps twice.
  /// Not within a transaction. Values as
  /// sink_text() of what was written, nothing for null.
  using Texts = std::vector<std::optional<std::string>>;
  using Visit = std::function<Result<void>(const std::string& key, const Texts& columns)>;
  virtual Result<void> read(const Visit& visit) = 0;
  /// Turns rows as sink_text() has them into what read() would give of them, were they written:
  /// where a value is rounded or spelled otherwise there, that is no difference. Also within
  /// read()'s visit.
  virtual Result<void> as_kept(std::vector<Texts>& /*rows*/) { return {}; }

  /// Has what another thread waits for in this Sink fail soon, as far as that can be: the program
  /// is to end. Threads: from any.
  virtual void interrupt() {}
};

/// What a sink's Sink is made by; of `sink` in cache_table{.sink = ...}. Threads: may be used by
/// several at once.
class SinkKind {
 public:
  virtual ~SinkKind() = default;
  /// What it keeps of such rows: all of their columns, if it does not say otherwise. All other
  /// functions are given this.
  virtual SinkShape kept(SinkShape shape) const { return shape; }
  /// kInvalidArgument if it can't hold such rows, or does not know how to get there.
  virtual Result<void> check(const SinkShape& shape) const = 0;
  /// "table public.totals of database shop on db:5432"; no secret.
  virtual std::string describe(const SinkShape& shape) const = 0;
  /// Does not connect.
  virtual std::unique_ptr<Sink> make(const SinkShape& shape) const = 0;
};

/// A value as text: integers in decimal, reals the shortest that reads back as the same, text and
/// bytes as they are. Nothing for null.
std::optional<std::string> sink_text(const Value& value);

/// Whether a column of a row is the same here and there: in a numeric one 1e+20 may come back
/// written out, 1.50 as 1.5, and inf as Infinity.
bool same_in_sink(const Column& column, const std::optional<std::string>& here,
                  const std::optional<std::string>& there);

/// Of a place that is kept from another store.
Error of_another_store(const std::string& where, const std::string& theirs,
                       const std::string& ours);

/// Of a Sink whose view another one has taken over.
Error fenced_off(const std::string& where);

}  // namespace millrace::projections
