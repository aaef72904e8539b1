#include "tests/sim/simulation.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "tests/sim/probes.h"

namespace millrace::sim {
namespace {

constexpr int kOpeningsMax = 12;

/// Recovery tells what it cut off in the log; so the log tells which paths it took.
class LogProbe final : public spdlog::sinks::base_sink<std::mutex> {
 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    if (text.find("that a crash tore are cut off") != std::string_view::npos)
      hit(Probe::kTornTailCut);
    if (text.find("an unfinished transaction from") != std::string_view::npos)
      hit(Probe::kUnfinishedDropped);
  }
  void flush_() override {}
};

void listen_to_log() {
  static const bool done = [] {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("sim", std::make_shared<LogProbe>()));
    spdlog::set_level(spdlog::level::warn);
    return true;
  }();
  static_cast<void>(done);
}

std::map<std::string, std::string> log_of(const FaultFs& files) {
  auto contents = files.contents();
  std::erase_if(contents, [](const auto& entry) { return entry.first.ends_with("/HEAD"); });
  return contents;
}

StoreId sim_store_id() {
  StoreId id;
  std::copy_n("a simulated one!", id.bytes.size(), id.bytes.begin());
  return id;
}

std::size_t segments_in(FaultFs& files) {
  const auto names = files.names(Simulation::kStore / "log");
  return static_cast<std::size_t>(std::count_if(
      names.begin(), names.end(), [](const auto& name) { return name.ends_with(".log"); }));
}

}  // namespace

const Path Simulation::kStore = "/store", Simulation::kCopy = "/copy";

Simulation::Simulation() {
  listen_to_log();
  options.segment_bytes = 16 << 10;
  options.pending_bytes_max = 16 << 10;
  options.flush_bytes = std::size_t{1} << 40;
  options.flush_interval = std::chrono::hours(24);
  options.new_store_id = sim_store_id();
  options.background_maintenance = false;
  options.os_sync_interval = std::chrono::hours(24);
  options.files = &files;
  options.clock = &clock;
}

Simulation::~Simulation() {
  files.die_at(1);  // whatever is open changes nothing more
}

void Simulation::run(const Trace& trace) {
  for (const Step& step : trace) {
    ++clock.now;
    const Operation& operation = operations()[step.operation];
    if (is_verbose)
      std::fprintf(stderr, "%.*s %u %u %u %u\n", static_cast<int>(operation.name.size()),
                   operation.name.data(), step.arguments[0], step.arguments[1], step.arguments[2],
                   step.arguments[3]);
    operation.run(*this, step.arguments);
    settle();
    mix(step.operation);
    mix(model.end());
    mix(model.acknowledged());
    mix(files.operations());
    if (is_verbose)
      std::fprintf(stderr, "  -> %zu transactions, %llu events, %zu acknowledged, %zu segments%s\n",
                   model.transactions().size(), static_cast<unsigned long long>(model.end()),
                   model.acknowledged(), segments_in(files), store_ ? "" : ", closed");
  }
  finish();
}

void Simulation::mix(std::uint64_t value) {
  hash_ = checksum({reinterpret_cast<const char*>(&value), sizeof value}, hash_);
}

EventStore& Simulation::store() {
  if (!store_) open();
  return *store_;
}

bool Simulation::flush() {
  EventStore& target = store();
  target.request_flush();
  const auto source = model.source_at(model.transactions().size());
  const auto durable =
      target.wait_durable(target.appended_end(), source ? source->end : 0, std::chrono::minutes(1));
  unflushed_bytes = 0;
  if (!durable) return false;
  check(*durable, "I10 flush ends");
  check(target.durable_end().value == model.end() && target.durable_source() == source,
        "I6 durable end is that of what was committed");
  model.acknowledge(!files.has_lied() && durability_ != Durability::kOs);
  return true;
}

void Simulation::close() {
  if (!store_) return;
  const bool was_clean = !files.fault_was_hit() && store_->status().has_value();
  scrubber.reset();
  store_.reset();
  unflushed_bytes = 0;
  if (was_clean && !files.fault_was_hit()) model.acknowledge(!files.has_lied());
  if (files.is_down()) hit(Probe::kDiedInClose);
}

void Simulation::crash(const Doom& how) {
  files.die_at(1);  // the dead write nothing
  scrubber.reset();
  store_.reset();
  unflushed_bytes = 0;
  crashed_ = true;
  if (!how.power) {
    hit(Probe::kKilled);
    files.kill_writer();
    return;
  }
  hit(Probe::kPowerLost);
  const bool lied = files.has_lied();
  const bool may_refuse =
      lied || how.policy == CrashPolicy::kGarbage || how.policy == CrashPolicy::kStale;
  if (may_refuse && !backup_) backup_ = files.clone();
  may_refuse_ = may_refuse_ || may_refuse;
  // Mode `os` promises nothing for that; but what is left has to open.
  after_lie_ = after_lie_ || lied || durability_ == Durability::kOs;
  ever_lied_ = ever_lied_ || lied;
  if (lied) {
    model.distrust();
    consumers.clear();
    copy.reset();
  }
  last_policy_ = how.policy;
  for (ReaderSlot& slot : readers) slot = {};
  files.lose_power(how.policy, how.seed);
}

void Simulation::settle() {
  if (files.is_down()) {
    hit(Probe::kDiedInOperation);
    crash(doom);
    open();
  }
  if (!store_) return;
  const auto status = store_->status();
  if (status) {
    check(store_->durable_end().value == model.acknowledged_end(),
          "I6 nothing is durable that nobody waited for",
          std::to_string(store_->durable_end().value) + " instead of " +
              std::to_string(model.acknowledged_end()));
    return;
  }
  check(files.fault_was_hit(), "I9 poisoned without a fault", status.error().message());
  check(store_->begin({}).error().message() == status.error().message(),
        "I9 a poisoned store answers with its first error");
  check(files.syncs_after_failed_sync() == 0, "D2 a failed sync is not asked for again");
  hit(status.error().code() == ErrorCode::kNoSpace                 ? Probe::kDiskFull
      : status.error().message().find("late") != std::string::npos ? Probe::kSyncFailedLate
      : status.error().message().find("sync") != std::string::npos ? Probe::kSyncFailed
                                                                   : Probe::kWriteFailed);
  files.clear_faults();
  crash(doom);
  open();
}

void Simulation::open() {
  look_before_opening();
  for (int attempt = 0; attempt < kOpeningsMax; ++attempt) {
    if (recovery_deaths != 0) files.die_at(1 + (recovery_seed >> (4 * recovery_deaths)) % 12);
    if (try_open()) {
      recovery_deaths = 0;
      return;
    }
  }
  throw CheckFailed("I10 store opens when the faults are over", "it does not");
}

/// In mode `os` what was only written goes with a sync that fails and brings the old content back,
/// and readers were told of it.
bool Simulation::lost_what_was_only_written() {
  if (durability_ != Durability::kOs || !head_went_back()) return false;
  after_lie_ = true;
  for (ReaderSlot& slot : readers) slot = {};
  return true;
}

/// A reader without a writer, and a twin that recovers, tell what the opening must come to.
void Simulation::look_before_opening() {
  expected_log_.reset();
  if (lost_what_was_only_written()) return;
  if (!crashed_ || may_refuse_ || files.fault_was_hit()) return;
  if (!files.exists(kStore / "store.json").value_or(false)) return;
  const Scan found = scan(files);
  check(!found.error || files.fault_was_hit(), "I8 reader without a writer",
        found.error ? found.error->to_string() : "");
  if (found.error) return files.clear_faults();
  check(found.ends_whole, "I3 reader without a writer ends in a transaction");
  check(found.end >= model.promised_end(after_lie_) || head_went_back(),
        "I1 reader without a writer lacks events");
  model.see(found.end);
  hit(Probe::kReaderFoundEnd);
  if (files.contents().size() % 2 == 0) return;  // every other time is enough
  const auto twin = files.clone();
  StoreOptions same = options;
  same.files = twin.get();
  const auto opened = EventStore::open(kStore, same);
  check(opened.has_value(), "I9 a copy of what a crash left opens",
        opened ? "" : opened.error().to_string());
  expected_log_ = log_of(*twin);
}

bool Simulation::try_open() {
  const std::size_t segments_before = segments_in(files);
  auto opened = EventStore::open(kStore, options);
  if (files.is_down()) {
    if (opened) opened->reset();
    if (!files.exists(kStore / "store.json").value_or(false)) hit(Probe::kDiedWhileMakingStore);
    hit(recovery_deaths > 1 ? Probe::kDiedInRecoveryTwice : Probe::kDiedInRecovery);
    if (recovery_deaths != 0) --recovery_deaths;
    expected_log_.reset();
    const Doom again{.power = doom.power || recovery_seed % 2 == 0,
                     .policy = doom.policy,
                     .seed = doom.seed + recovery_deaths + 1};
    crash(again);
    return false;
  }
  if (!opened) {
    heal(opened.error());
    expected_log_.reset();
    return false;
  }
  if (recovery_deaths != 0) files.clear_faults();
  if (segments_in(files) < segments_before) hit(Probe::kUnfinishedSegmentsDropped);
  if (expected_log_)
    check(*expected_log_ == log_of(files), "I9 recovery of the same bytes gives the same bytes");
  return adopt(std::move(*opened));
}

/// What an opening that failed calls for; throws if it may not fail.
void Simulation::heal(const Error& error) {
  const bool is_fault = error.code() == ErrorCode::kIo || error.code() == ErrorCode::kNoSpace;
  if (is_fault && files.fault_was_hit()) {
    if (error.code() == ErrorCode::kNoSpace) hit(Probe::kDiskFullWhileOpening);
    files.clear_faults();
    files.set_space_left(std::nullopt);
    files.kill_writer();
    lost_what_was_only_written();
    return;
  }
  check(may_refuse_ && error.code() == ErrorCode::kCorruption, "I10 store does not open",
        error.to_string());
  hit(after_lie_                              ? Probe::kLieRefused
      : last_policy_ == CrashPolicy::kGarbage ? Probe::kGarbageRefused
                                              : Probe::kStaleRefused);
  files.clear_faults();
  files.kill_processes();
  files.restore(*backup_);  // somebody puts the files back
  backup_.reset();
  may_refuse_ = after_lie_ = false;
  lost_what_was_only_written();  // before they were backed up
}

bool Simulation::adopt(std::unique_ptr<EventStore> opened) {
  const Scan found = scan(files);
  if (found.error) {
    opened.reset();
    heal(*found.error);
    return false;
  }
  const std::size_t before = model.transactions().size(), acknowledged = model.acknowledged();
  const std::size_t count =
      model.reopen(opened->durable_end(), opened->durable_source(), after_lie_, !files.has_lied());
  check(found.end == model.end() && found.ends_whole,
        "I5 what the reader gives ends where the writer says");
  check(opened->appended_end() == opened->durable_end(), "I6 all is durable after opening");
  if (count < acknowledged)
    hit(durability_ == Durability::kOs ? Probe::kModeOsCostEvents : Probe::kLieCostEvents);
  if (crashed_ && count > acknowledged) hit(Probe::kUnacknowledgedSurvived);
  if (crashed_ && count < before) hit(Probe::kUnacknowledgedLost);
  if (crashed_ && count == before) hit(Probe::kNothingLost);
  store_ = std::move(opened);
  times_gone_back_ = files.times_gone_back();
  durability_ = options.durability;
  backup_.reset();
  may_refuse_ = after_lie_ = crashed_ = false;
  return true;
}

Scan Simulation::scan(FileSystem& files_of, Look look, const Path& path) const {
  Scan result{.ends_whole = true, .error = {}};
  auto reader = LogReader::open(path, {.from = {}, .categories = {}, .files = &files_of});
  if (!reader) {
    result.error = reader.error();
    return result;
  }
  Reading reading{.is_fresh = look == Look::kFresh};
  const bool checks = look != Look::kCopy;
  for (;;) {
    const auto batch = (*reader)->next();
    if (!batch) result.error = batch.error();
    result.end = (*reader)->position().value;
    if (checks && batch && *batch == nullptr && result.ends_whole)
      model.check_end(result.end, reading);
    if (!batch || *batch == nullptr) break;
    Batch& given = **batch;
    if (checks) model.check_batch(given, reading);
    result.ends_whole = given.last_of_transaction;
    result.hash = checksum(given.payload, result.hash + given.first.value);
  }
  if (reading.is_fresh && !result.error) model.check_fold(reading);
  return result;
}

void Simulation::check_log(const char* when) {
  const Scan found = scan(files);
  if (found.error) {
    check(files.fault_was_hit(), when, found.error->to_string());
    hit(Probe::kReadFailed);
    return files.clear_faults();
  }
  check(found.end == store().durable_end().value, when, "another end");
}

/// True if the error tells that the reader misses what went for good.
bool Simulation::is_told_of_loss(const Error& error, const Reading& reading) const {
  if (error.code() != ErrorCode::kGone) return false;
  check(model.may_be_told_of_loss(reading), "I12 a reader is told of a loss that is none",
        error.to_string());
  hit(Probe::kReaderToldOfLoss);
  return true;
}

bool Simulation::follow(ReaderSlot& slot) {
  const auto batch = slot.reader->next();
  Reading& reading = slot.reading;
  if (!batch && batch.error().code() == ErrorCode::kFailedPrecondition && head_went_back()) {
    slot = {};  // it is told that the store is an older one
    return false;
  }
  if (!batch && batch.error().code() == ErrorCode::kCorruption && durability_ == Durability::kOs &&
      head_went_back()) {
    slot = {};  // and what was only written is gone from under it
    return false;
  }
  if (!batch && is_told_of_loss(batch.error(), reading)) {
    slot = {};
    return false;
  }
  if (!batch) {
    // It stays where it is: what could not be read now is read next time.
    check(batch.error().code() == ErrorCode::kIo && files.fault_was_hit(), "I8 reader",
          batch.error().to_string());
    hit(Probe::kReadFailed);
    files.clear_faults();
    return true;
  }
  const std::uint64_t durable = slot.reader->durable_end().value;
  if (*batch == nullptr) {
    model.check_end(std::max(reading.from, durable), reading);
    model.check_fold(reading);
    return false;
  }
  Batch& given = **batch;
  const bool skipped = given.first.value > reading.next;
  model.check_batch(given, reading);
  check(reading.next <= durable, "I6 reader got what is not durable");
  if (skipped && !reading.categories.empty()) hit(Probe::kFilteredReaderSkipped);
  if (skipped && reading.categories.empty()) hit(Probe::kReaderMetHole);
  if (given.last_of_transaction) model.see(reading.next);
  hit(Probe::kReaderFollowed);
  return true;
}

bool Simulation::append_last() {
  const NewEvent event{.category = "last", .key = "k", .type = "", .payload = "p", .metadata = ""};
  TransactionInfo info;
  info.source = {epoch, next_commit, next_commit + 5};
  info.commit_time = {clock.now};
  next_commit += 10;
  if (!store().append(info, {&event, 1})) return false;
  model.add(info, {{.category = "last", .key = "k", .type = "", .payload = "p", .metadata = ""}});
  return flush();
}

void Simulation::finish() {
  files.clear_faults();
  files.set_space_left(std::nullopt);
  recovery_deaths = 0;
  while (!append_last()) {  // an error that a sync still owes may come once for each file
    check(files.fault_was_hit(), "I10 append when the faults are over");
    settle();
  }
  const auto maintained = store().run_maintenance();
  check(maintained.has_value() || files.fault_was_hit(), "I10 maintenance at the end",
        maintained ? "" : maintained.error().to_string());
  for (ReaderSlot& slot : readers)
    if (slot.reader)
      while (follow(slot)) {
      }
  readers.clear();
  close();
  auto report = verify_store(kStore, {}, files);
  check(report.has_value(), "I8 verify at the end", report ? "" : report.error().to_string());
  // What a lie cost an index, nobody needs to notice before somebody looks.
  if (ever_lied_)
    std::erase_if(report->faults, [](const Fault& each) { return each.kind == "index"; });
  check(report->faults.empty() && report->torn_tail_bytes == 0, "I8 verify at the end",
        report->faults.empty() ? "torn tail"
                               : report->faults[0].kind + ": " + report->faults[0].detail);
  const Scan all = scan(files);
  check(!all.error && all.end == model.end(), "I1 everything is there at the end");
  for (const auto& [name, bytes] : files.contents()) mix(checksum(bytes));
}

}  // namespace millrace::sim
