#include "capture/daemon/chunk_reader.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/postgres/binary_choice.h"

namespace millrace {
namespace {

/// Of rows as the server writes them: what is held in memory until the stream is there. A single
/// row may be larger.
constexpr std::size_t kChunkBytesMax = 16 << 20;

std::string new_run() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 2; ++i) append_be<std::uint32_t>(bytes, random());
  return to_hex(bytes);
}

/// Transactions of other databases have changed nothing of ours. (Who may not see them waits for
/// them.)
constexpr const char* kCurrentSnapshot = R"(
  SELECT pg_snapshot_xmax(s)::text,
         (SELECT string_agg(x::text, ',') FROM pg_snapshot_xip(s) x
           WHERE NOT EXISTS (SELECT FROM pg_stat_activity a
                              WHERE a.backend_xid = x::xid AND a.datname <> current_database()))
    FROM pg_current_snapshot() s)";

}  // namespace

ChunkReader::ChunkReader(const SourceAddress& address, std::string publication)
    : address_(address),
      publication_(std::move(publication)),
      run_(new_run()),
      catalog_(address),
      thread_([this](const std::stop_token& stop) { work(stop); }) {}

ChunkReader::~ChunkReader() = default;

std::string ChunkReader::low_watermark(std::uint64_t number) const {
  return "low " + run_ + " " + std::to_string(number);
}

std::string ChunkReader::high_watermark(std::uint64_t number) const {
  return "high " + run_ + " " + std::to_string(number);
}

void ChunkReader::ask(ChunkRequest request) {
  const std::scoped_lock lock(mutex_);
  chunk_.reset();
  request_ = std::move(request);
  changed_.notify_all();
}

bool ChunkReader::idle() const {
  const std::scoped_lock lock(mutex_);
  return !request_ && !working_;
}

std::optional<Chunk> ChunkReader::take() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(chunk_, std::nullopt);
}

void ChunkReader::wait(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return chunk_.has_value(); });
}

void ChunkReader::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return request_.has_value(); })) {
    const ChunkRequest request = *std::exchange(request_, std::nullopt);
    working_ = true;
    lock.unlock();
    Chunk chunk = read(request, stop);
    lock.lock();
    chunk_ = std::move(chunk);
    working_ = false;
    changed_.notify_all();
  }
}

Chunk ChunkReader::read(const ChunkRequest& request, const std::stop_token& stop) {
  Chunk chunk{
      .number = request.number, .parts = {}, .table = {}, .snapshot = {}, .rows = {}, .ends = {}};
  chunk.end = [&]() -> Result<Chunk::End> {
    MILLRACE_ASSIGN_OR_RETURN(const auto table, catalog_.table(request.table));
    if (!table) return Chunk::End::kGone;
    if (connection_ == nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(connection_, PostgresConnection::open(address_, false, stop));
    }
    if (request.what != ChunkRequest::What::kParts) return read_between(request, *table, chunk);
    MILLRACE_ASSIGN_OR_RETURN(chunk.parts, read_parts(*connection_, *table));
    return Chunk::End::kRead;
  }();
  // Whatever state the transaction is in, it ends with its connection.
  if (!chunk.end || *chunk.end != Chunk::End::kRead) connection_.reset();
  return chunk;
}

/// The lock comes first: what committed before it is seen from then on, also a TRUNCATE, and the
/// table keeps its shape from one watermark to the other. Each statement has a snapshot of its own:
/// the one that is looked at sees no more than that of the COPY behind it.
Result<Chunk::End> ChunkReader::read_between(const ChunkRequest& request, const SourceTable& found,
                                             Chunk& chunk) {
  MILLRACE_RETURN_IF_ERROR(connection_->query(
      "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '5s'; "
      "SET LOCAL statement_timeout = '10min'"));
  if (auto locked = connection_->query("LOCK TABLE " + found.quoted() + " IN ACCESS SHARE MODE");
      !locked) {
    if (connection_->sqlstate() != "55P03") return std::move(locked).error();
    return Error(ErrorCode::kUnavailable, "somebody else has the table locked: see pg_locks");
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto table, catalog_.table(request.table));
  if (!table) return Chunk::End::kGone;
  if (table->quoted() != found.quoted())
    return Error(ErrorCode::kUnavailable, "table " + found.name() + " was just renamed");
  MILLRACE_ASSIGN_OR_RETURN(Catalog::TableShape shape,
                            read_shape(*connection_, *table, publication_));
  MILLRACE_ASSIGN_OR_RETURN(chunk.parts, read_parts(*connection_, *table));
  MILLRACE_ASSIGN_OR_RETURN(const bool binary, binary_is_exact(catalog_, shape.columns));
  chunk.table.emplace(*table, std::move(shape), binary);

  TablePart part{.oid = table->oid, .quoted = table->quoted()};  // all of it, for kKeys
  if (request.what == ChunkRequest::What::kRange) {
    const auto same =
        std::find_if(chunk.parts.begin(), chunk.parts.end(), [&](const TablePart& known) {
          return known.oid == request.part && known.file == request.file;
        });
    if (same == chunk.parts.end()) return Chunk::End::kMoved;
    part = *same;
  }
  MILLRACE_RETURN_IF_ERROR(write(low_watermark(request.number)));
  MILLRACE_ASSIGN_OR_RETURN(chunk.snapshot, current_snapshot());
  MILLRACE_ASSIGN_OR_RETURN(const Chunk::End end, copy(request, part, chunk));
  if (end != Chunk::End::kRead) return end;
  MILLRACE_RETURN_IF_ERROR(write(high_watermark(request.number)));
  MILLRACE_RETURN_IF_ERROR(connection_->query("COMMIT"));
  return end;
}

Result<SourceSnapshot> ChunkReader::current_snapshot() {
  MILLRACE_ASSIGN_OR_RETURN(const auto rows, connection_->query(kCurrentSnapshot));
  if (rows.size() != 1 || rows.front().size() != 2)
    return Error(ErrorCode::kUnsupported, "the server tells no snapshot");
  return parse_source_snapshot(rows.front()[0].value_or(""), rows.front()[1].value_or(""));
}

Result<Chunk::End> ChunkReader::copy(const ChunkRequest& request, const TablePart& part,
                                     Chunk& chunk) {
  RowSelection rows{.from = request.from, .to = request.to, .condition = request.where};
  if (request.what == ChunkRequest::What::kKeys)
    rows = {.condition = chunk.table->condition_of(request.keys)};
  const bool may_shrink = request.what == ChunkRequest::What::kKeys
                              ? request.keys.size() > 1
                              : request.to.value - request.from.value > 1;
  bool too_large = false;
  auto copied = chunk.table->copy(
      *connection_, part, rows, [&](std::string_view row, const pgoutput::Tuple&) -> Result<void> {
        if (may_shrink && chunk.rows.size() + row.size() > kChunkBytesMax) {
          too_large = true;
          return Error(ErrorCode::kCancelled, "a chunk is too large");
        }
        chunk.rows += row;
        chunk.ends.push_back(chunk.rows.size());
        return {};
      });
  if (too_large) return Chunk::End::kTooLarge;
  if (!copied) return std::move(copied).error();
  return Chunk::End::kRead;
}

/// Its commit does not wait for standbys: see pin_session_settings().
Result<void> ChunkReader::write(const std::string& watermark) {
  return catalog_.execute("SELECT pg_logical_emit_message(true, '" +
                          std::string(kOwnMessagePrefix) + "', '" + watermark + "')");
}

}  // namespace millrace
