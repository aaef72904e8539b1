#include "capture/daemon/parallel_copy.h"

#include <utility>

namespace millrace {
namespace {

/// A piece is handed on from here on. Larger: less often a lock is taken.
constexpr std::size_t kPieceBytes = 512 << 10;
constexpr std::size_t kPieceRoom = kPieceBytes + (16 << 10);  // the last row reaches over the end
/// Encoded and not yet appended, of all connections together but for the one whose rows are being
/// appended ...
constexpr std::size_t kBufferedBytesMax = 12 << 20;
/// ... and of that one.
constexpr std::size_t kPiecesMax = 16;

}  // namespace

Result<ColumnType> ParallelCopy::LockedLookup::type(std::uint32_t oid, std::int32_t modifier) {
  const std::scoped_lock lock(mutex_);
  return catalog_.type(oid, modifier);
}

Result<std::optional<std::vector<std::string>>> ParallelCopy::LockedLookup::primary_key(
    std::uint32_t oid) {
  const std::scoped_lock lock(mutex_);
  return catalog_.primary_key(oid);
}

ParallelCopy::ParallelCopy(std::vector<CopyJob> jobs, Lsn lsn, SchemaRegistry& schemas,
                           CatalogLookup& catalog,
                           std::vector<std::unique_ptr<PostgresConnection>> connections)
    : jobs_(std::move(jobs)),
      lsn_(lsn),
      schemas_(schemas),
      catalog_(catalog),
      connections_(std::move(connections)),
      outputs_(jobs_.size()) {
  for (const auto& connection : connections_)
    threads_.emplace_back([this, &connection] { work(*connection); });
}

ParallelCopy::~ParallelCopy() {
  {
    const std::scoped_lock lock(mutex_);
    if (!failure_) failure_ = Error(ErrorCode::kCancelled, "the copy was given up");
  }
  room_.notify_all();
  threads_.clear();  // joins
}

Result<std::optional<EncodedRows>> ParallelCopy::next(std::size_t job) {
  std::unique_lock lock(mutex_);
  wanted_ = job;
  room_.notify_all();
  Output& output = outputs_[job];
  rows_.wait(lock, [&] { return failure_ || output.whole || !output.pieces.empty(); });
  if (failure_) return *failure_;
  if (output.pieces.empty()) return std::optional<EncodedRows>();
  EncodedRows piece = std::move(output.pieces.front());
  output.pieces.pop_front();
  buffered_ -= piece.bytes();
  return std::optional(std::move(piece));
}

std::optional<std::size_t> ParallelCopy::take() {
  const std::scoped_lock lock(mutex_);
  if (failure_ || taken_ == jobs_.size()) return std::nullopt;
  return taken_++;
}

/// The job that is handed out waits for its own pieces only, never for what others hold.
Result<void> ParallelCopy::put(std::size_t job, EncodedRows piece, bool last) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] {
    return failure_ || (job == wanted_ ? outputs_[job].pieces.size() < kPiecesMax
                                       : buffered_ < kBufferedBytesMax);
  });
  if (failure_) return *failure_;
  buffered_ += piece.bytes();
  if (piece.count() != 0) outputs_[job].pieces.push_back(std::move(piece));
  outputs_[job].whole = last;
  rows_.notify_one();
  return {};
}

void ParallelCopy::work(PostgresConnection& connection) {
  while (const auto job = take()) {
    auto done = read(connection, *job);
    if (done) continue;
    const std::scoped_lock lock(mutex_);
    if (!failure_)
      failure_ = std::move(done).error().context("read the present rows of " +
                                                 jobs_[*job].table->table().name());
    rows_.notify_one();
    room_.notify_all();
    return;
  }
  static_cast<void>(connection.query("COMMIT"));  // it has changed nothing
}

Result<void> ParallelCopy::read(PostgresConnection& connection, std::size_t number) {
  const CopyJob& job = jobs_[number];
  TableReader table = *job.table;
  EncodedRows piece;  // of a small table there is nothing but this one
  ChangeEncoder encoder(schemas_, catalog_, piece);
  MILLRACE_RETURN_IF_ERROR(encoder.relation(table.relation(), lsn_));
  auto copied =
      table.copy(connection, job.part, job.rows,
                 [&](std::string_view, const pgoutput::Tuple& row) -> Result<void> {
                   MILLRACE_RETURN_IF_ERROR(encoder.read(
                       table.table().oid, row, Lsn{}));  // where it was changed is not known
                   if (piece.bytes() < kPieceBytes) return {};
                   return put(number, std::exchange(piece, EncodedRows(kPieceRoom)), false);
                 });
  if (!copied) return copied;
  return put(number, std::move(piece), true);
}

}  // namespace millrace
