#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "capture/daemon/chunk_reader.h"
#include "capture/pipeline/own_messages.h"
#include "capture/pipeline/snapshot_progress.h"
#include "capture/pipeline/snapshot_window.h"
#include "capture/pipeline/visibility.h"
#include "capture/postgres/catalog.h"
#include "capture/source_state.h"
#include "eventstore/event_store.h"

namespace millrace {

/// The stream has messages from here on, and a range of ctids is read without its surroundings.
inline constexpr int kWatermarksSince = 140'000;

/// Snapshots of tables that are taken beside the stream: what a start that was interrupted left
/// unread, tables that joined the publication, and what somebody asked for.
///
/// Stands between encoder and store, so that it sees each event that the stream brings. Rows are
/// read in chunks, each between two watermarks, and appended in the transaction of the second one
/// (snapshot_window.h tells why that is right), together with an event that tells how far the table
/// was read. So the log itself says what is left, a crash anywhere loses at most one chunk's
/// reading, and no chunk comes twice.
///
/// Rows are read in the order in which they lie in the table's files. One that an update moves from
/// what is still unread to what was read already is met by no chunk; but then the stream has
/// brought that update. All it may lack is a large value that the update left alone (unchanged
/// TOAST). The keys of such rows are kept (IncompleteRows), and the rows read by them before the
/// table counts as complete. After a restart they are found again by reading the log from where the
/// snapshot began.
///
/// Threads: that of the stream; the reading is done on another one within.
///
/// From PostgreSQL kWatermarksSince on, and where the publication has the updates: else rows move
/// about and the stream does not tell.
class TableSnapshots final : public EventOut, public OwnMessages {
 public:
  struct Options {
    Path store;
    FileSystem* files = &FileSystem::real();
    SourceAddress address;
    /// A table that can't be read ends capture; else it is logged and tried again.
    bool give_up_early = false;
    std::stop_token stop{};
  };
  TableSnapshots(EventStore& store, EventOut& out, SchemaRegistry& schemas, Catalog& catalog,
                 SourceState& state, Options options);
  ~TableSnapshots() override;

  /// Finds in the log what is unfinished. To be called once, before the stream begins.
  Result<void> resume();
  /// Begins snapshots of tables that `joined` a publication, if they are to be read, and gives up
  /// those of tables that are not `published` any more. On return that is durable in the log.
  /// Between transactions only.
  Result<void> publication_changed(const std::vector<SourceTable>& published,
                                   const std::vector<SourceTable>& joined, bool read);
  /// A new connection begins to stream: what waited for a watermark is done again.
  Result<void> begin_session();
  /// Whether anything is left to be read.
  bool busy() const { return !jobs_.empty() || appending_ || taken_back_; }
  /// True while the stream must not go on: it has come to a watermark before the rows are here.
  Result<bool> hold();
  /// Waits a moment for that to end.
  void wait_held(std::chrono::milliseconds timeout) const;
  /// Whatever is next to be done; to be called often, between transactions.
  Result<void> tend();

  Result<void> begin(const TransactionInfo& info) override;
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;

  Result<bool> heard(std::string_view content) override;
  Result<void> append() override;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Job {
    TableSnapshot snapshot;
    IncompleteRows incomplete;
    std::uint64_t span = 0;  ///< Of places; how much is read at once. 0: to be found out.
    bool looked_at = false;  ///< Its parts are as they are now.
    bool emptied = false;    ///< What the log had of the table before it joined is gone.
    std::uint64_t page_bytes = 0;
    std::unique_ptr<Progress> progress;
    std::uint64_t rows_expected = 0;
  };
  enum class Step : std::uint8_t { kAsked, kAtLow, kOpen };

  Result<void> ask();
  Result<void> on_chunk();
  Result<void> on_failure(const Error& error);
  Result<void> open_window(Chunk chunk);
  Result<SchemaRegistry::Schema> to_be_emptied();
  Result<void> take_parts(const std::vector<TablePart>& parts);
  Result<void> end_job(const SnapshotEvent& event);
  Result<void> start(std::vector<TableSnapshot> snapshots);
  Result<void> look_for_requests();
  Result<void> restart(std::string_view why);
  Result<void> append_alone(const SnapshotEvent& event);
  Result<void> note_all_done();
  void look_again(std::chrono::milliseconds pause);
  bool nothing_left() const;

  EventStore& store_;
  EventOut& out_;
  SchemaRegistry& schemas_;
  Catalog& catalog_;
  SourceState& state_;
  const Options options_;

  std::vector<Job> jobs_;  ///< The first is at work.
  std::unique_ptr<ChunkReader> reader_;
  VisibilityCheck visibility_;
  SnapshotWindow window_;
  std::optional<ChunkRequest> request_;  ///< That is under way.
  Step step_ = Step::kAsked;
  std::optional<Chunk> chunk_;
  SchemaRegistry::Schema emptying_;  ///< At the low watermark: of the table that is emptied.
  bool appending_ = false;           ///< The transaction that is open is a high watermark's.
  bool taken_back_ = false;          ///< One was rolled back: only the log knows how far all is.
  bool missed_ = false;  ///< Something was streamed between the low watermark and the chunk.
  std::uint64_t number_ = 0;
  std::uint32_t xid_ = 0;  ///< Of the transaction that is handed on.
  Time next_at_{}, waiting_since_{}, looked_for_requests_{}, looked_at_slot_{};
  SnapshotProgress told_;  ///< What the log had to say when it was read.
  int failures_ = 0;
  std::optional<std::uint64_t> all_done_at_;  ///< Source position by which nothing was left.
};

}  // namespace millrace
