#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eventstore/event_store.h"
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
  std::string category;
  std::uint64_t from = 0;
  std::uint64_t next = 0;  ///< All events below were given, or passed over.
};

/// What a reader got from the front of a log: as many whole batches as it gave, each checked
/// against the model, and what stopped it.
struct Scan {
  std::uint64_t end = 0;        ///< After the last event given.
  std::uint64_t whole_end = 0;  ///< After the last transaction that was given whole.
  std::optional<Error> error;
};

class Simulation {
 public:
  static constexpr std::size_t kReaders = 3;
  static const Path kStore;

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
  /// Whether each commit is flushed at once, so that it has to be waited for.
  bool flushes_always() const { return durability_ == Durability::kAlways; }
  /// Makes everything committed durable and waits for that; false if the store is poisoned.
  bool flush();
  /// Kills the writer or takes the power from the machine, as `doom` says.
  void crash(const Doom& doom);
  /// Opens the store, if need be after more crashes, and heals what may be refused.
  void open();
  /// One batch or the end; false at the end or when the reader is gone.
  bool follow(ReaderSlot& slot);
  Scan scan(FileSystem& files_of) const;

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
  bool always = false;  ///< In every seed; else in every other one.
  void (*run)(Simulation& sim, const Arguments& arguments) = nullptr;
};

/// The table that a new operation is added to, at its end.
std::span<const Operation> operations();

/// streams.cc.
void append_to_streams(Simulation& sim, const Arguments& arguments);
/// damage.cc: what somebody does to the files of a store. On a copy of them.
void damage_a_file(Simulation& sim, const Arguments& arguments);
void copy_while_running(Simulation& sim, const Arguments& arguments);

}  // namespace millrace::sim
