#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eventstore/event_store.h"
#include "eventstore/log/scrubber.h"
#include "eventstore/log_reader.h"
#include "tests/sim/model.h"
#include "tests/sim/trace.h"
#include "tests/support/fault_fs.h"

// A store on a simulated disk beside a model of it: operations, faults and crashes, with checks
// after each.
//
// One thread works at a time, though the store has a flusher: nothing is flushed unless it is asked
// for (or the appender waits for room, when the flusher works alone), and whoever asked waits until
// it is done. So the same steps are the same run, to the last byte.

namespace millrace::sim {

using test::CrashPolicy;
using test::FaultFs;

class SimClock final : public Clock {
 public:
  Monotonic monotonic() override { return Monotonic{}; }
  UnixMicros wall() override { return {now}; }
  std::int64_t now = 1'700'000'000'000'000;
};

/// How the next death of the writer happens.
struct Doom {
  bool power = false;  ///< The machine dies with it.
  CrashPolicy policy = CrashPolicy::kNothing;
  std::uint64_t seed = 0;
};

struct ReaderSlot {
  std::unique_ptr<LogReader> reader;
  Reading reading;
};

/// What a reader got from the front of a log: as many whole batches as it gave, each checked
/// against the model, and what stopped it.
struct Scan {
  std::uint64_t end = 0;    ///< Where the reader got to.
  bool ends_whole = false;  ///< At the end of a transaction.
  std::optional<Error> error;
  std::uint64_t hash = 0;  ///< Of all that was given.
};

/// A snapshot of the store that may be there, and what it has to hold.
struct Copy {
  std::uint64_t end = 0, hash = 0;
  bool is_finished = false;
};

class Simulation {
 public:
  static constexpr std::size_t kReaders = 3;
  static const Path kStore, kCopy;

  Simulation();
  ~Simulation();

  /// Throws CheckFailed. Ends with all faults over and the store closed, whole and verified.
  void run(const Trace& trace);
  /// Of everything that happened: the same for the same trace.
  std::uint64_t hash() const { return hash_; }
  /// Tells each step on stderr.
  bool is_verbose = false;

  // --- for operations.cc and damage.cc
  // -----------------------------------------------------------

  EventStore& store();  ///< Opens it if it is closed.
  bool is_open() const { return store_ != nullptr; }
  void close();
  /// A power loss may have cost something that a sync called durable.
  bool has_ever_lied() const { return ever_lied_; }
  /// Whether each commit is flushed at once, so that it has to be waited for.
  bool flushes_always() const { return durability_ == Durability::kAlways; }
  /// Makes everything committed durable and waits for that; false if the store is poisoned.
  bool flush();
  /// Kills the writer or takes the power from the machine, as `doom` says.
  void crash(const Doom& doom);
  /// Opens the store, if need be after more crashes, and heals what may be refused.
  void open();
  /// True if the error tells that the reader misses what went for good.
  bool is_told_of_loss(const Error& error, const Reading& reading) const;
  /// One batch or the end; false at the end or when the reader is gone.
  bool follow(ReaderSlot& slot);
  enum class Look {
    kFresh,    ///< What was erased may not come, and the tables are what they were.
    kDamaged,  ///< Any generation of a segment may be there.
    kCopy,     ///< The model may have gone on from somewhere else.
  };
  Scan scan(FileSystem& files_of, Look look = Look::kFresh, const Path& path = kStore) const;
  /// All is there at once, or else an error that fits.
  void check_log(const char* when);

  FaultFs files;
  Model model;
  SimClock clock;
  StoreOptions options;
  Doom doom;
  std::vector<ReaderSlot> readers{kReaders};
  std::uint32_t epoch = 1;
  std::uint64_t next_commit = 1;
  std::uint64_t serial = 0;         ///< Of transactions, so that no two are alike.
  std::size_t unflushed_bytes = 0;  ///< About what the store holds in memory.
  std::unique_ptr<FaultFs> older;   ///< The files as they were once.
  std::optional<Copy> copy;         ///< In kCopy.
  SimClock scrub_clock;             ///< Of the scrubber, for whom weeks pass.
  std::optional<log::Scrubber> scrubber;
  /// Consumers that are known for sure, and where they are.
  std::map<std::string, std::uint64_t> consumers;
  unsigned recovery_deaths = 0;     ///< The next openings that die, and ...
  std::uint32_t recovery_seed = 0;  ///< ... when.

 private:
  void settle();
  bool try_open();
  bool adopt(std::unique_ptr<EventStore> opened);
  void heal(const Error& error);
  bool lost_what_was_only_written();
  void look_before_opening();
  bool append_last();
  void finish();
  void mix(std::uint64_t value);

  std::unique_ptr<EventStore> store_;
  std::unique_ptr<FaultFs> backup_;  // before a crash after which the store may refuse to open
  /// HEAD may have gone back since the store was opened: whoever believes it sees less.
  bool head_went_back() const { return files.times_gone_back() != times_gone_back_; }

  std::uint64_t times_gone_back_ = 0;           // when the store was opened
  Durability durability_ = Durability::kGroup;  ///< Of the store that is or was open.
  bool may_refuse_ = false, after_lie_ = false, ever_lied_ = false;
  bool crashed_ = false;  // since it was open
  std::optional<CrashPolicy> last_policy_;
  std::optional<std::map<std::string, std::string>> expected_log_;  // of a twin that recovered
  std::uint64_t hash_ = 0;
};

struct Operation {
  std::string_view name;
  unsigned weight = 0;  ///< How often, against the others.
  /// In every seed, or else in every other one; or wherever the one before it is.
  enum { kAlways, kOften, kWithLast } when = kOften;
  void (*run)(Simulation& sim, const Arguments& arguments) = nullptr;
};

/// The table that a new operation is added to, at its end.
std::span<const Operation> operations();

/// streams.cc.
void append_to_streams(Simulation& sim, const Arguments& arguments);
void append_versioned(Simulation& sim, const Arguments& arguments);
/// upkeep.cc: what takes events out.
void append_rows(Simulation& sim, const Arguments& arguments);
void set_policy(Simulation& sim, const Arguments& arguments);
void pass_time(Simulation& sim, const Arguments& arguments);
void compact(Simulation& sim, const Arguments& arguments);
void erase(Simulation& sim, const Arguments& arguments);
void use_consumer(Simulation& sim, const Arguments& arguments);
/// copies.cc
void take_snapshot(Simulation& sim, const Arguments& arguments);
void restore_snapshot(Simulation& sim, const Arguments& arguments);
/// operations.cc: how the next death of the writer happens.
Doom doom_of(const Arguments& arguments);
/// Appends a transaction whose events belong together: those with a version are added as
/// `versioned`.
void append_events(Simulation& sim, const TransactionInfo& info, std::vector<ModelEvent> events);
/// The same in steps; a transaction may be rolled back instead. False where it did not begin, or is
/// no more, since a fault was met.
bool begin(Simulation& sim, const TransactionInfo& info, std::size_t bytes);
bool add(Simulation& sim, const std::vector<ModelEvent>& events);
void commit(Simulation& sim, const TransactionInfo& info, std::vector<ModelEvent> events);
/// `was_written`: some of it may be on the disk.
void roll_back(Simulation& sim, const std::vector<ModelEvent>& events, bool was_written);
/// About what they take in memory.
std::size_t bytes_of(const std::vector<ModelEvent>& events);
TransactionInfo next_info(Simulation& sim, bool captured);
/// damage.cc: what somebody does to the files of a store. On a copy of them.
void damage_a_file(Simulation& sim, const Arguments& arguments);
void copy_while_running(Simulation& sim, const Arguments& arguments);
/// repair.cc and scrub.cc: who finds that, and what he makes of it.
void repair_damage(Simulation& sim, const Arguments& arguments);
void scrub(Simulation& sim, const Arguments& arguments);

}  // namespace millrace::sim
