// A backlog is cut into stretches of WAL. Two lanes, each a connection with a temporary slot that
// was copied from ours, take turns: while the log takes in what one has decoded, the server decodes
// the next stretch for the other.
//
// A stretch [from, to) holds the transactions whose commit record begins in it. The lane's slot is
// moved to `from` (commits that begin before it are skipped: SnapBuildXactNeedsSkip) and read up to
// `to` (decoding ends with the first record that ends at or beyond it:
// pg_logical_slot_get_changes). So nothing falls between two stretches; what both give, a
// transaction at their border, is dropped by its commit LSN as after any restart. Whoever kills us
// finds in the store a prefix of the history and in our own slot, which only ever moves to what is
// durable, the rest of it.
//
// What limits it: to decode, the server starts at the slot's restart_lsn, the last place where it
// wrote down which transactions were running, and not later than the oldest one that was. WAL from
// there to `from` is read again for each stretch, without being sent, at a tenth of the cost. So
// stretches grow with what is read again, and beyond a bound streaming is better: that is so beside
// a transaction that is open for long, and inside one that is larger than a stretch. The server
// keeps what a stretch decodes to in a temporary file until it is sent.
#include "capture/daemon/catch_up.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/progress.h"
#include "capture/pipeline/copy_binary.h"
#include "capture/postgres/replication.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kLanes = 2;
/// Reading WAL again costs a tenth of decoding and sending it, streaming two to four times that.
constexpr std::uint64_t kRereadShareMax = 4;
constexpr milliseconds kRoomWait{50};
/// Less than this share of the smallest stretch is left to streaming.
constexpr std::uint64_t kNearShare = 4;
constexpr milliseconds kFinishTimeout{10'000};

/// Positions that we choose ourselves are where a WAL record could begin.
Lsn aligned(std::uint64_t position) { return Lsn{position & ~std::uint64_t{7}}; }

/// A row of the copy, (lsn, data), goes the way that a message of the stream goes.
Result<void> apply(const pgoutput::Tuple& row, StreamApplier& applier) {
  if (row[0].state != pgoutput::FieldState::kBinary || row[0].value.size() != 8 ||
      row[1].state != pgoutput::FieldState::kBinary)
    return Error(ErrorCode::kCorruption, "a copied row is not an LSN and a message");
  return applier.apply(row[1].value, Lsn{ByteReader(row[0].value).u64_be()});
}

}  // namespace

struct CatchUp::Lane {
  std::unique_ptr<PostgresConnection> connection;
  std::string slot;
  Lsn end;            ///< Of the stretch that is under way.
  bool busy = false;  ///< There is one.
};

CatchUp::CatchUp(const SourceAddress& address, Catalog& catalog, EventStore& store, StoreOut& out,
                 StreamApplier& applier, Options options)
    : address_(address),
      catalog_(catalog),
      store_(store),
      out_(out),
      applier_(applier),
      options_(std::move(options)) {
  options_.bounds.stretch_min = std::min(options_.bounds.stretch_min, options_.bounds.from);
}

CatchUp::~CatchUp() = default;

std::uint64_t CatchUp::stretch_size(const CatchUpBounds& bounds, std::uint64_t reread) {
  if (reread > kRereadShareMax * bounds.stretch_max) return 0;
  return std::clamp(reread, bounds.stretch_min, bounds.stretch_max);
}

Lsn CatchUp::durable() const {
  const auto source = store_.durable_source();
  return source && source->epoch == options_.epoch ? Lsn{source->end} : Lsn{};
}

Result<CatchUp::End> CatchUp::run(const std::stop_token& stop) {
  auto end = drain(stop);
  lanes_.clear();
  // Whatever it ended with: what was taken in whole stays, the rest will come again.
  MILLRACE_RETURN_IF_ERROR(applier_.reset());
  store_.request_flush();
  MILLRACE_RETURN_IF_ERROR(
      store_.wait_durable(store_.appended_end(), out_.end().value, kFinishTimeout));
  return end;
}

Result<CatchUp::End> CatchUp::drain(const std::stop_token& stop) {
  next_ = applier_.history().start(out_.end());
  confirmed_ = durable();
  MILLRACE_ASSIGN_OR_RETURN(target_, catalog_.wal_end());
  looked_at_ = std::chrono::steady_clock::now();
  const Lsn begin = next_;
  MILLRACE_ASSIGN_OR_RETURN(const bool opened, open_lanes(stop));
  if (!opened) return End::kDoesNotPay;
  spdlog::info("{} of WAL behind: draining it in stretches up to {}",
               human_bytes(static_cast<double>(target_.value - begin.value)), to_string(target_));
  Progress progress("catch up", target_.value - begin.value, ProgressUnit::kBytes);
  for (auto& lane : lanes_) MILLRACE_RETURN_IF_ERROR(assign(*lane));
  for (std::size_t turn = 0;; turn = (turn + 1) % lanes_.size()) {
    Lane& lane = *lanes_[turn];
    if (stop.stop_requested()) return End::kStopped;
    if (!lane.busy) break;  // stretches are given out in turn: none is under way
    MILLRACE_ASSIGN_OR_RETURN(const bool taken, take(lane, stop));
    if (!taken) return stop.stop_requested() ? End::kStopped : End::kDoesNotPay;
    progress.update(lane.end.value - begin.value, target_.value - begin.value);
    MILLRACE_RETURN_IF_ERROR(look_around());
    if (options_.until && lane.end >= *options_.until) break;
    MILLRACE_RETURN_IF_ERROR(assign(lane));
  }
  progress.finish();
  if (next_ > begin) spdlog::info("drained up to {}", to_string(out_.end()));
  return does_not_pay_ ? End::kDoesNotPay : End::kNear;
}

/// False where the server refuses what streaming does not need, such as two more slots.
Result<bool> CatchUp::open_lanes(const std::stop_token& stop) {
  const std::string name = "millrace_catch_up_" + std::to_string(std::random_device{}()) + "_";
  for (std::size_t i = 0; i < kLanes; ++i) {
    auto lane = std::make_unique<Lane>();
    lane->slot = name + std::to_string(i);
    MILLRACE_ASSIGN_OR_RETURN(lane->connection, PostgresConnection::open(address_, false, stop));
    auto copied = lane->connection->query("SELECT pg_copy_logical_replication_slot('" +
                                          options_.slot + "', '" + lane->slot + "', true)");
    if (!copied) {
      if (refused(*lane, copied.error())) return false;
      return std::move(copied).error();
    }
    lanes_.push_back(std::move(lane));
  }
  return true;
}

/// Gives the lane the next stretch, if there is one and it pays: true.
Result<bool> CatchUp::assign(Lane& lane) {
  lane.busy = false;
  if (does_not_pay_) return false;
  if (target_.value < next_.value + options_.bounds.stretch_min) {
    MILLRACE_ASSIGN_OR_RETURN(target_, catalog_.wal_end());
  }
  if (target_.value < next_.value + options_.bounds.stretch_min / kNearShare) return false;
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(lane.slot));
  if (!slot || !slot->restart)
    return Error(ErrorCode::kUnavailable, "the temporary slot " + lane.slot + " is gone");
  const std::uint64_t reread = next_ > *slot->restart ? next_.value - slot->restart->value : 0;
  const std::uint64_t size = stretch_size(options_.bounds, reread);
  if (size == 0) {
    spdlog::info(
        "the server would read {} of WAL again for each stretch, as beside a transaction that is "
        "open for long: streaming",
        human_bytes(static_cast<double>(reread)));
    does_not_pay_ = true;
    return false;
  }
  const Lsn from = next_;
  lane.end = aligned(std::min(target_.value, from.value + size));
  std::string sql;
  // Our own slot follows what is durable, so that the server can remove WAL.
  if (const Lsn done = durable(); done.value >= confirmed_.value + options_.bounds.confirm) {
    sql +=
        "SELECT pg_replication_slot_advance('" + options_.slot + "', '" + to_string(done) + "');";
    confirmed_ = done;
  }
  if (slot->confirmed_flush && *slot->confirmed_flush < from)
    sql += "SELECT pg_replication_slot_advance('" + lane.slot + "', '" + to_string(from) + "');";
  sql += "COPY (SELECT lsn, data FROM pg_logical_slot_get_binary_changes('" + lane.slot + "', '" +
         to_string(lane.end) + "', NULL, " +
         plugin_arguments(lane.connection->server_version(), options_.publication) +
         ")) TO STDOUT (FORMAT binary)";
  MILLRACE_RETURN_IF_ERROR(lane.connection->send_copy_out(sql));
  next_ = lane.end;
  lane.busy = true;
  return true;
}

/// Takes in a lane's stretch; false on `stop`, and where the server refused it.
Result<bool> CatchUp::take(Lane& lane, const std::stop_token& stop) {
  MILLRACE_RETURN_IF_ERROR(applier_.reset());  // each stretch tells every table's shape again
  CopyBinaryParser parser;
  for (;;) {
    while (!store_.has_room()) {
      MILLRACE_RETURN_IF_ERROR(store_.status());
      if (stop.stop_requested()) return false;
      store_.request_flush();
      store_.wait_room(kRoomWait);
    }
    auto bytes = lane.connection->next_copied();
    if (!bytes) {
      if (stop.stop_requested()) return false;
      if (refused(lane, bytes.error())) return false;
      return std::move(bytes).error().context("catch up to " + to_string(lane.end));
    }
    if (!*bytes) break;
    parser.feed(**bytes);
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Tuple* row, parser.next(2));
      if (row == nullptr) break;
      MILLRACE_RETURN_IF_ERROR(apply(*row, applier_));
    }
  }
  if (!parser.ended())
    return Error(ErrorCode::kCorruption, "the copy up to " + to_string(lane.end) + " has no end");
  MILLRACE_RETURN_IF_ERROR(finish_stretch(lane.end));
  return true;
}

/// All that commits before `end` is in the log. Where nothing did, the log says so all the same:
/// else the next start would read this WAL again.
Result<void> CatchUp::finish_stretch(Lsn end) {
  if (applier_.in_transaction())
    return Error(ErrorCode::kCorruption,
                 "a stretch of WAL up to " + to_string(end) + " ends inside a transaction");
  MILLRACE_RETURN_IF_ERROR(applier_.history().sent_all_before(end));
  if (out_.end() >= end) return {};
  return out_.record_position(options_.epoch, end);
}

Result<void> CatchUp::look_around() {
  const auto now = std::chrono::steady_clock::now();
  if (!options_.look_around || now - looked_at_ < options_.look_interval) return {};
  looked_at_ = now;
  return options_.look_around();
}

/// Whether an error is the server's refusal of what only this way needs: slots, temporary files,
/// rights. Streaming goes on then, and tells in its own words if it meets the same.
bool CatchUp::refused(const Lane& lane, const Error& error) {
  const std::string& state = lane.connection->sqlstate();
  const bool resources = state.starts_with("53") && state != "53300";  // not: too many connections
  const bool sizes = state.starts_with("54") || state.starts_with("XX");
  if (!resources && !sizes && state != "42501" && state != "42883") return false;
  spdlog::warn("the backlog can't be drained in stretches ({}): streaming",
               printable(error.message(), 1000));
  return true;
}

}  // namespace millrace
