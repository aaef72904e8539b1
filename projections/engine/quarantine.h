#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "eventstore/types.h"
#include "projections/change.h"
#include "projections/sqlite/database.h"

// What a view's functions can't take is set aside, and its key waits.
//
// A function that fails half-way has written half of what it would. To take that back alone, each
// event needs a savepoint, which costs as much as the event itself, and in a view in memory a
// snapshot. So events are folded without: a failure has the whole transaction rolled back and
// folded once more, with a savepoint for the event that failed ("with care").
//
// A change of key comes as a deletion and an insertion, which are set aside together or not at all:
// the second half takes what was not sent from the row of the first. So the savepoint of a deletion
// stays open until the next event is known.
//
// A declared view gathers: its functions are called when it is flushed, with the newest of all
// changes of a key, and which event an error is of can't be told there. With care it is flushed
// after each event. To go so through a whole rebuild would take for ever: the fold first halves
// what it flushes at once until few events are left (fold.h).

namespace millrace::projections {

/// An event that waits, with all that its function is told of it: the log may be compacted
/// meanwhile.
struct SetAsideEvent {
  Offset offset;
  std::string category, key, type, payload, metadata;
  EventFlags flags = EventFlags::kNone;
  std::optional<std::uint64_t> version;
  TransactionInfo transaction;
  std::optional<std::string> moved_from;
  /// Why it can't be folded; nothing if it waits behind another one.
  std::optional<std::string> reason;
  std::uint32_t attempts = 0;  ///< That failed.
  UnixMicros first_failed, last_failed;

  EventView view() const;
};

/// What was decided about an event that had been set aside.
enum class AuditAction : std::uint8_t {
  kRetried,    ///< Its function could take it after all.
  kSkipped,    ///< Left out for good, also by every rebuild and verify.
  kTruncated,  ///< Its table was truncated meanwhile, which leaves nothing of it.
};
std::string_view name_of(AuditAction action);

/// Who decided, and why.
struct AuditNote {
  std::string by;
  std::string note;
};

/// Whether another event of the same view may well be folded: not where the disk, the file, the
/// program or the store is at fault.
bool is_fault_of_event(const Error& error);

struct QuarantineCounts {
  std::uint64_t keys = 0;
  std::uint64_t events = 0;
  std::uint64_t skipped = 0;
};

/// What a view's file says; none of it in a file that was made before there was any.
Result<QuarantineCounts> count_set_aside(sqlite::Database& database);
Result<std::vector<SetAsideEvent>> read_set_aside(sqlite::Database& database);
/// Takes over into a generation what was retried and skipped in another one, of events from `begin`
/// on: those that it has yet to fold.
Result<void> copy_audit(sqlite::Database& from, sqlite::Database& to, Offset begin);

/// Keys that a view can't go on with, in tables of its own file: millrace_quarantine, and
/// millrace_quarantine_audit for what became of it. Both change in the transaction that changes
/// rows and checkpoint. Threads: one.
class Quarantine {
 public:
  /// What it asks of the fold.
  struct Hands {
    std::function<Result<void>()> call;  ///< The view's function, with the event at hand.
    /// The same to its end: of a view that gathers, what it has gathered as well.
    std::function<Result<void>()> call_alone;
    std::function<Result<void>()> flush;  ///< What the view's writer has put off.
    /// The writer and the functions anew, without what they had in memory.
    std::function<Result<void>()> renew;
    bool gathers = false;  ///< The view does: an error of call() may be another event's.
  };

  /// `keys_max`: with more keys the view stops after all. 0: none is ever set aside.
  Quarantine(sqlite::Database& database, std::size_t keys_max)
      : database_(database), keys_max_(keys_max) {}

  /// Reads what the file says.
  Result<void> load();
  /// The same where another connection may have changed it. Within a transaction.
  struct Changes {
    bool any = false;      ///< The file has changed.
    bool decided = false;  ///< Something was retried or skipped.
  };
  Result<Changes> load_if_changed();
  /// From now on events that only wait behind others are written by write_put_off(), which comes
  /// before each commit(): where a state in memory is ahead of the file, they must not be there
  /// without it.
  void put_off_what_waits() { puts_off_ = true; }
  Result<void> write_put_off();
  /// Something is in the database's transaction, or should not wait.
  bool must_commit() const {
    return has_written_ || in_savepoint_ || put_off_bytes_ > kPutOffBytesMax;
  }
  /// Leaves events out as if they had been skipped, without a trace in the file.
  void leave_out(const std::vector<SetAsideEvent>& events);

  /// Every event goes straight to its function.
  bool is_idle() const { return waiting_.empty() && left_out_.empty() && !is_careful(); }
  /// Each event that goes to its function can be taken back alone.
  bool is_careful() const { return careful_until_.has_value(); }
  /// Does with the event what is to be done: calls its function, sets it aside or leaves it out.
  Result<void> pass(const EventView& event, const internal::RawChange& change, const Hands& hands);
  /// The function failed in an event that went straight to it: should that be the event's fault,
  /// the transaction is to be folded again, with care.
  void note_failure(Offset offset, const Error& error);
  bool wants_care() const { return wants_care_.has_value(); }
  /// After the transaction was rolled back, to its start or to keep(): goes on with care until that
  /// event is behind, if there is one, or without.
  Result<void> begin_again(bool with_care);
  /// What is done so far stays, and all of it was done with the care that it needs: from here on
  /// events go on without.
  Result<void> keep();
  /// The transaction was committed with everything below `end`. Gives a sentence for each event
  /// that can't be folded and was set aside in it.
  std::vector<std::string> committed(Offset end);

  /// Calls the function for an event that waits. The reason if it still can't be folded; else it
  /// waits no more. Once an event fails, those behind it must not be tried.
  Result<std::optional<std::string>> try_again(const SetAsideEvent& event,
                                               const internal::RawChange& change,
                                               const AuditNote& note, const Hands& hands);
  /// From now on it is left out, here and in every rebuild.
  Result<void> skip(const SetAsideEvent& event, const AuditNote& note);

 private:
  using Key = std::pair<std::string, std::string>;  ///< Category and key.

  static constexpr std::size_t kPutOffBytesMax = 4 << 20;

  bool needs_care(const EventView& event, const Hands& hands) const;
  bool can_take(const Error& error) const;
  bool waits(std::string_view category, std::string_view key) const;
  bool is_second_half(const internal::RawChange& change) const;
  Result<void> enter(const Hands& hands);
  Result<void> leave();
  Result<void> take_back(const Hands& hands);
  Result<void> call_truncate(const EventView& event, const Hands& hands);
  Result<void> call_with_care(const EventView& event, const internal::RawChange& change,
                              const Hands& hands);
  Result<void> add(const SetAsideEvent& event);
  Result<void> write(const SetAsideEvent& event);
  Result<void> drop_truncated(std::string_view category, Offset by);
  Result<void> leave_quarantine(const SetAsideEvent& event, AuditAction action,
                                const AuditNote& note);
  Result<void> failed_again(Offset offset, const std::string& reason);

  sqlite::Database& database_;
  const std::size_t keys_max_;
  std::map<Key, std::uint64_t> waiting_;  ///< With the number of its events.
  std::uint64_t events_ = 0;              ///< All that wait.
  std::set<Offset> left_out_;
  std::set<Offset> left_out_here_;  ///< Of them, those that the file does not tell of.
  std::vector<std::string> news_;   ///< What failed since the last commit, a sentence each.
  std::size_t news_kept_ = 0;       ///< Of them, those before the last keep().
  std::int64_t data_version_ = 0;   ///< As SQLite counts changes by other connections.
  std::int64_t decisions_ = 0;      ///< The last one in the audit.
  sqlite::Statement look_;
  std::optional<Offset> careful_until_, wants_care_;
  std::set<Offset> failed_;  ///< That care was asked for, since the last commit.
  bool puts_off_ = false;
  std::vector<SetAsideEvent> put_off_;
  std::size_t put_off_bytes_ = 0;
  bool has_written_ = false;  ///< In the transaction that is open.
  bool in_savepoint_ = false;
  std::optional<SetAsideEvent> first_half_;  ///< A deletion whose savepoint is open.
};

}  // namespace millrace::projections
