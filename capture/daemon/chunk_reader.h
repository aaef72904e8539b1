#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "capture/pipeline/visibility.h"
#include "capture/postgres/connection.h"
#include "capture/postgres/source_address.h"
#include "capture/postgres/table_reader.h"

namespace millrace {

/// Rows that are to be read between two watermarks.
struct ChunkRequest {
  enum class What : std::uint8_t {
    kParts,  ///< Nothing but what parts the table has; without watermarks.
    kRange,  ///< Rows of a part that lie in a range of places.
    kKeys,   ///< Rows with these keys, wherever they are.
  };
  std::uint64_t number = 0;
  What what = What::kParts;
  std::uint32_t table = 0;  ///< Its OID.
  std::uint32_t part = 0, file = 0;
  RowPlace from, to;
  std::string where;
  std::vector<std::string> keys;
};

/// What became of a request.
struct Chunk {
  enum class End : std::uint8_t {
    kRead,
    kMoved,     ///< The part is gone or has other files: ask for the parts.
    kTooLarge,  ///< Ask for fewer rows.
    kGone,      ///< There is no such table.
  };
  std::uint64_t number = 0;
  Result<End> end = End::kRead;
  std::vector<TablePart> parts;
  std::optional<TableReader> table;
  SourceSnapshot snapshot;  ///< That the rows were read with.
  std::string rows;         ///< As the server wrote them, one behind the other.
  std::vector<std::size_t> ends;
};

/// Reads chunks of tables on a thread of its own, between watermarks that it writes into
/// PostgreSQL's log: messages of kOwnMessagePrefix. The table is locked as for reading from before
/// the first until after the second; each chunk is one short transaction. Threads: one asks.
class ChunkReader {
 public:
  ChunkReader(const SourceAddress& address, std::string publication);
  ~ChunkReader();
  ChunkReader(const ChunkReader&) = delete;
  ChunkReader& operator=(const ChunkReader&) = delete;

  /// What the watermarks of request `number` say. No two runs of capture have the same.
  std::string low_watermark(std::uint64_t number) const;
  std::string high_watermark(std::uint64_t number) const;

  /// Only while idle().
  void ask(ChunkRequest request);
  bool idle() const;
  /// What the last request came to; once.
  std::optional<Chunk> take();
  /// Waits until there is something to take.
  void wait(std::chrono::milliseconds timeout) const;

 private:
  void work(const std::stop_token& stop);
  Chunk read(const ChunkRequest& request, const std::stop_token& stop);
  Result<Chunk::End> read_between(const ChunkRequest& request, const SourceTable& found,
                                  Chunk& chunk);
  Result<Chunk::End> copy(const ChunkRequest& request, const TablePart& part, Chunk& chunk);
  Result<SourceSnapshot> current_snapshot();
  Result<void> write(const std::string& watermark);

  const SourceAddress address_;
  const std::string publication_;
  const std::string run_;
  Catalog catalog_;                                 // of the thread
  std::unique_ptr<PostgresConnection> connection_;  // of the thread

  mutable std::mutex mutex_;  // guards what follows
  mutable std::condition_variable_any changed_;
  std::optional<ChunkRequest> request_;
  std::optional<Chunk> chunk_;
  bool working_ = false;

  std::jthread thread_;
};

}  // namespace millrace
