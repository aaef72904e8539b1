#include "capture/daemon/table_snapshots.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/counted.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/store_out.h"
#include "capture/pipeline/emptied_table.h"
#include "capture/snapshot_requests.h"
#include "eventstore/log_reader.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

/// Of the server's file and the large values beside it, in one chunk. Smaller: the stream is held
/// up for less long while a chunk is encoded.
constexpr std::uint64_t kChunkBytes = 1 << 20;
constexpr std::uint64_t kPage = RowPlace::page(1).value;
/// A page has no line beyond.
constexpr std::uint64_t kLinesMax = 2048;
/// Incomplete rows that are read at once, and from how many on that comes first.
constexpr std::size_t kKeysAtOnce = 500;
constexpr std::size_t kKeysFirst = 500;
constexpr milliseconds kSoon{50};
constexpr milliseconds kRetryMax{30'000};
constexpr int kFailuresMax = 5;
constexpr std::chrono::seconds kRequestInterval{1};
/// Transactions that keep a chunk from being used are told of after so long.
constexpr std::chrono::seconds kTellAfter{10};

std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }

Result<void> add_event(EventOut& out, const TableSnapshot& snapshot, const SnapshotEvent& event) {
  return out.add({.category = kCaptureCategory,
                  .key = snapshot.table,
                  .type = event.type,
                  .payload = event.payload,
                  .metadata = {}});
}

}  // namespace

TableSnapshots::TableSnapshots(EventStore& store, EventOut& out, SchemaRegistry& schemas,
                               Catalog& catalog, SourceState& state, Options options)
    : store_(store),
      out_(out),
      schemas_(schemas),
      catalog_(catalog),
      state_(state),
      options_(std::move(options)) {}

TableSnapshots::~TableSnapshots() = default;

Result<void> TableSnapshots::resume() {
  if (!state_.unfinished_snapshots) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto log,
                            LogReader::open(options_.store, {.from = {*state_.unfinished_snapshots},
                                                             .accepts_gaps = true,
                                                             .files = options_.files}));
  std::map<std::string, IncompleteRows, std::less<>> incomplete;
  for (;;) {
    if (options_.stop.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, log->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      if (event->category == kCaptureCategory) {
        MILLRACE_RETURN_IF_ERROR(told_.apply(event->type, event->key, event->payload));
        // (That a table was complete once is no reason to forget it: another may have begun.)
        IncompleteRows& rows = incomplete[std::string(event->key)];
        if (event->type == "snapshot_restarted") rows.clear();
      } else if (event->type.empty()) {
        const auto table = incomplete.find(event->category);
        if (table != incomplete.end()) table->second.saw(event->key, event->flags);
      }
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
  }
  for (const TableSnapshot& snapshot : told_.unfinished()) {
    spdlog::info("the snapshot of {} is not complete: it is gone on with beside the stream",
                 printable(snapshot.table));
    Job& job = jobs_.emplace_back();
    job.snapshot = snapshot;
    if (snapshot.reason != SnapshotReason::kRequested)
      job.incomplete = std::move(incomplete[snapshot.table]);
  }
  return {};
}

Result<void> TableSnapshots::start(std::vector<TableSnapshot> snapshots) {
  if (snapshots.empty()) return {};
  all_done_at_.reset();
  if (!state_.unfinished_snapshots) {  // before the log has it: what is to be read after a crash
    SourceState noted = state_;
    noted.unfinished_snapshots = store_.appended_end().value;
    MILLRACE_RETURN_IF_ERROR(save_source_state(options_.store, noted, *options_.files));
    state_ = std::move(noted);
  }
  if (jobs_.empty()) visibility_.reset();  // nothing was noted while nobody needed it
  std::vector<SnapshotEvent> began;
  std::vector<NewEvent> events;
  for (const TableSnapshot& snapshot : snapshots) began.push_back(snapshot_began(snapshot));
  for (std::size_t i = 0; i < snapshots.size(); ++i)
    events.push_back({.category = kCaptureCategory,
                      .key = snapshots[i].table,
                      .type = began[i].type,
                      .payload = began[i].payload,
                      .metadata = {}});
  MILLRACE_RETURN_IF_ERROR(store_.append(
      {.source = {}, .source_xid = 0, .commit_time = Clock::system().wall()}, events));
  // So that a request whose file could not be removed is not begun again.
  for (std::size_t i = 0; i < snapshots.size(); ++i)
    MILLRACE_RETURN_IF_ERROR(told_.apply(began[i].type, snapshots[i].table, began[i].payload));
  for (TableSnapshot& snapshot : snapshots) {
    spdlog::info("the rows of {} are read beside the stream", printable(snapshot.table));
    jobs_.emplace_back().snapshot = std::move(snapshot);
  }
  return wait_until_durable(store_, store_.appended_end(), 0, options_.stop);
}

Result<void> TableSnapshots::publication_changed(const std::vector<SourceTable>& published,
                                                 const std::vector<SourceTable>& joined,
                                                 bool read) {
  // One that left and came back may have changed unseen, also where it was read already.
  const auto among = [](const std::vector<SourceTable>& tables, const Job& job) {
    return std::any_of(tables.begin(), tables.end(),
                       [&](const SourceTable& table) { return table.oid == job.snapshot.oid; });
  };
  const auto goes_on = [&](const Job& job) { return among(published, job) && !among(joined, job); };
  for (;;) {
    const auto ends = std::find_if_not(jobs_.begin(), jobs_.end(), goes_on);
    if (ends == jobs_.end()) break;
    std::rotate(jobs_.begin(), ends, ends + 1);
    spdlog::warn("the snapshot of {} is given up: the publication is another one",
                 printable(jobs_.front().snapshot.table));
    window_.drop();
    const SnapshotEvent abandoned =
        snapshot_abandoned(jobs_.front().snapshot, "the publication is another one");
    MILLRACE_RETURN_IF_ERROR(append_alone(abandoned));
    MILLRACE_RETURN_IF_ERROR(end_job(abandoned));
  }
  if (!read || joined.empty()) return {};
  MILLRACE_ASSIGN_OR_RETURN(const ServerInfo server, catalog_.server());
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog_.publication(state_.publication));
  const bool possible = server.version >= kWatermarksSince && publication && publication->updates;
  std::vector<TableSnapshot> snapshots;
  const std::string id = "added at " + std::to_string(store_.appended_end().value);
  for (const SourceTable& table : joined) {
    if (possible && table.has_identity)
      snapshots.push_back({.id = id,
                           .reason = SnapshotReason::kAdded,
                           .table = table.name(),
                           .oid = table.oid,
                           .where = {},
                           .parts = {}});
    else
      spdlog::warn("the rows that {} has now are not read: {}", printable(table.name()),
                   possible ? "it has no replica identity"
                            : "the stream does not tell of all that happens to them");
  }
  return start(std::move(snapshots));
}

/// A request is removed once the log has its beginning; one that is in the log already was kept by
/// a crash.
Result<void> TableSnapshots::look_for_requests() {
  if (now() - looked_for_requests_ < kRequestInterval) return {};
  looked_for_requests_ = now();
  MILLRACE_ASSIGN_OR_RETURN(const auto requests,
                            list_snapshot_requests(options_.store, *options_.files));
  for (const SnapshotRequest& request : requests) {
    std::vector<TableSnapshot> snapshots;
    for (const SnapshotRequest::Table& table : request.tables)
      snapshots.push_back({.id = request.id,
                           .reason = SnapshotReason::kRequested,
                           .table = table.category,
                           .oid = table.oid,
                           .where = request.where,
                           .parts = {}});
    if (!told_.knows(request.id)) MILLRACE_RETURN_IF_ERROR(start(std::move(snapshots)));
    MILLRACE_RETURN_IF_ERROR(remove_snapshot_request(options_.store, request.id, *options_.files));
  }
  return {};
}

Result<void> TableSnapshots::begin_session() {
  visibility_.reset();
  window_.drop();
  request_.reset();
  chunk_.reset();
  missed_ = false;
  for (Job& job : jobs_) job.emptied = false;  // that may have been taken back
  if (!taken_back_) return {};
  MILLRACE_RETURN_IF_ERROR(wait_until_durable(store_, store_.appended_end(), 0, options_.stop));
  jobs_.clear();
  told_ = {};
  MILLRACE_RETURN_IF_ERROR(resume());
  taken_back_ = false;
  return {};
}

// ---- What the stream brings

Result<void> TableSnapshots::begin(const TransactionInfo& info) {
  xid_ = info.source_xid;
  return out_.begin(info);
}

Result<void> TableSnapshots::add(const NewEvent& event) {
  if (!jobs_.empty() && event.type.empty()) [[unlikely]] {
    window_.saw(event);
    if (request_ && step_ == Step::kAtLow) missed_ = true;
    for (Job& job : jobs_)
      if (job.snapshot.reason != SnapshotReason::kRequested && event.category == job.snapshot.table)
        job.incomplete.saw(event.key, event.flags);
  }
  return out_.add(event);
}

Result<void> TableSnapshots::commit(std::uint64_t source_end) {
  appending_ = false;
  if (!jobs_.empty()) visibility_.streamed(xid_);
  return out_.commit(source_end);
}

/// The connection is gone in the middle of a transaction. A high watermark comes again, but nobody
/// has its rows any more, and what was noted of them is wrong.
Result<void> TableSnapshots::rollback() {
  taken_back_ = taken_back_ || std::exchange(appending_, false);
  return out_.rollback();
}

Result<bool> TableSnapshots::heard(std::string_view content) {
  if (!request_ || reader_ == nullptr) return false;
  if (step_ == Step::kAsked && content == reader_->low_watermark(request_->number)) {
    step_ = Step::kAtLow;
    missed_ = false;
    MILLRACE_ASSIGN_OR_RETURN(emptying_, to_be_emptied());
    MILLRACE_RETURN_IF_ERROR(hold());  // mostly the rows have been here for long
    return emptying_ != nullptr;
  }
  return step_ == Step::kOpen && window_.is_open() &&
         content == reader_->high_watermark(request_->number);
}

Result<bool> TableSnapshots::hold() {
  if (!request_ || step_ != Step::kAtLow) return false;
  if (!chunk_) chunk_ = reader_->take();
  if (!chunk_) return true;
  MILLRACE_RETURN_IF_ERROR(on_chunk());
  return false;
}

void TableSnapshots::wait_held(milliseconds timeout) const { reader_->wait(timeout); }

/// A table that joins may have been captured before, or another one of its name: rows of then that
/// are gone would stay for ever. Everything that the stream has of then came before the low
/// watermark; whatever it brought since is read once more. So this may be done again, until
/// something was read.
Result<SchemaRegistry::Schema> TableSnapshots::to_be_emptied() {
  Job& job = jobs_.front();
  if (job.emptied || job.snapshot.reason != SnapshotReason::kAdded ||
      request_->what != ChunkRequest::What::kRange ||
      std::any_of(job.snapshot.parts.begin(), job.snapshot.parts.end(),
                  [](const SnapshotPart& part) { return part.next != RowPlace{}; }))
    return SchemaRegistry::Schema();
  auto schema = schemas_.latest(job.snapshot.table);
  if (!schema && schema.error().code() == ErrorCode::kNotFound) return SchemaRegistry::Schema();
  job.emptied = schema.has_value();
  return schema;
}

/// A watermark. Past add(), which is for what the stream brings.
Result<void> TableSnapshots::append() {
  if (const auto emptied = std::exchange(emptying_, nullptr)) {
    const std::string truncate = emptied_payload(emptied->version);
    return out_.add({.category = emptied->category,
                     .key = {},
                     .type = {},
                     .payload = truncate,
                     .metadata = {},
                     .flags = EventFlags::kCategoryTombstone});
  }
  appending_ = true;
  Job& job = jobs_.front();
  const ChunkRequest request = *std::exchange(request_, std::nullopt);
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t rows, window_.close(out_, job.incomplete));
  job.snapshot.rows += rows;
  if (job.progress) job.progress->update(job.snapshot.rows);
  SnapshotPart done;
  for (SnapshotPart& part : job.snapshot.parts)
    if (request.what == ChunkRequest::What::kRange && part.oid == request.part) {
      part.next = request.to;
      done = part;
    }
  if (done.oid != 0)
    MILLRACE_RETURN_IF_ERROR(
        add_event(out_, job.snapshot, snapshot_chunk(job.snapshot, done, rows)));
  failures_ = 0;
  waiting_since_ = {};
  next_at_ = {};
  if (!nothing_left()) return {};
  const SnapshotEvent completed = snapshot_completed(job.snapshot);
  MILLRACE_RETURN_IF_ERROR(add_event(out_, job.snapshot, completed));
  return end_job(completed);
}

// ---- What is to be read next

/// Of the first job.
bool TableSnapshots::nothing_left() const {
  const Job& job = jobs_.front();
  return job.looked_at && job.incomplete.empty() && !job.incomplete.overflowed() &&
         std::none_of(
             job.snapshot.parts.begin(), job.snapshot.parts.end(),
             [](const SnapshotPart& part) { return part.next < RowPlace::page(part.pages); });
}

Result<void> TableSnapshots::tend() {
  MILLRACE_RETURN_IF_ERROR(look_for_requests());
  if (jobs_.empty()) return note_all_done();
  if (request_) {
    if (!chunk_ && reader_ != nullptr) chunk_ = reader_->take();
    // Rows wait for their watermark; whatever else became of the request needs none.
    const bool waits = chunk_ && chunk_->end && *chunk_->end == Chunk::End::kRead &&
                       request_->what != ChunkRequest::What::kParts;
    return chunk_ && (!waits || step_ == Step::kAtLow) ? on_chunk() : Result<void>{};
  }
  if (now() < next_at_) return {};
  if (reader_ != nullptr && !reader_->idle()) return {};
  return ask();
}

Result<void> TableSnapshots::ask() {
  Job& job = jobs_.front();
  if (job.incomplete.overflowed())
    return restart("more rows than can be remembered lack large values");
  if (nothing_left()) {  // nothing was there to be read: no watermark has a place for it
    const SnapshotEvent completed = snapshot_completed(job.snapshot);
    MILLRACE_RETURN_IF_ERROR(append_alone(completed));
    return end_job(completed);
  }
  if (reader_ == nullptr)
    reader_ = std::make_unique<ChunkReader>(options_.address, state_.publication);
  ChunkRequest request{.number = ++number_,
                       .table = job.snapshot.oid,
                       .from = {},
                       .to = {},
                       .where = job.snapshot.where,
                       .keys = {}};
  const auto part = std::find_if(
      job.snapshot.parts.begin(), job.snapshot.parts.end(),
      [](const SnapshotPart& other) { return other.next < RowPlace::page(other.pages); });
  if (!job.looked_at) {
    // What is open now may have changed the table before its changes were published.
    if (job.snapshot.reason == SnapshotReason::kAdded) visibility_.reset();
    request.what = ChunkRequest::What::kParts;
  } else if (part == job.snapshot.parts.end() || job.incomplete.size() >= kKeysFirst) {
    request.what = ChunkRequest::What::kKeys;
    request.keys = job.incomplete.some(std::clamp<std::size_t>(job.span, 1, kKeysAtOnce));
  } else {
    request.what = ChunkRequest::What::kRange;
    request.part = part->oid;
    request.file = part->file;
    request.from = part->next;
    request.to = {std::min(part->next.value + job.span, RowPlace::page(part->pages).value)};
  }
  step_ = Step::kAsked;
  request_ = request;
  reader_->ask(std::move(request));
  return {};
}

void TableSnapshots::look_again(milliseconds pause) {
  request_.reset();
  chunk_.reset();
  next_at_ = now() + pause;
}

/// The request came to something, and the stream, where it needs that, to the low watermark.
Result<void> TableSnapshots::on_chunk() {
  Chunk chunk = *std::exchange(chunk_, std::nullopt);
  if (chunk.number != request_->number) return {};  // of an earlier connection
  if (!chunk.end) return on_failure(chunk.end.error());
  Job& job = jobs_.front();
  switch (*chunk.end) {
    case Chunk::End::kMoved:
      job.looked_at = false;
      look_again({});
      return {};
    case Chunk::End::kTooLarge:
      if (job.span <= kPage) job.span = std::min(job.span, kLinesMax);
      job.span = std::max<std::uint64_t>(job.span / 2, 1);
      look_again({});
      return {};
    case Chunk::End::kGone: {
      const SnapshotEvent abandoned = snapshot_abandoned(job.snapshot, "the table is gone");
      spdlog::warn("the snapshot of {} is given up: the table is gone",
                   printable(job.snapshot.table));
      MILLRACE_RETURN_IF_ERROR(append_alone(abandoned));
      return end_job(abandoned);
    }
    case Chunk::End::kRead: break;
  }
  if (request_->what == ChunkRequest::What::kParts) return take_parts(chunk.parts);
  return open_window(std::move(chunk));
}

Result<void> TableSnapshots::take_parts(const std::vector<TablePart>& parts) {
  Job& job = jobs_.front();
  const std::vector<SnapshotPart> known = std::exchange(job.snapshot.parts, {});
  job.rows_expected = 0;
  job.page_bytes = 1;
  for (const TablePart& part : parts) {
    const auto same = std::find_if(known.begin(), known.end(), [&](const SnapshotPart& other) {
      return other.oid == part.oid && other.file == part.file;
    });
    job.snapshot.parts.push_back(
        same != known.end()
            ? *same
            : SnapshotPart{.oid = part.oid, .file = part.file, .pages = part.pages, .next = {}});
    job.page_bytes = std::max(job.page_bytes, part.page_bytes);
    job.rows_expected += part.rows;
  }
  job.looked_at = true;
  // Where there is no page a table is emptied at a watermark all the same.
  if (job.snapshot.reason == SnapshotReason::kAdded && !job.emptied && !parts.empty() &&
      nothing_left() && schemas_.latest(job.snapshot.table))
    job.snapshot.parts.front().pages = 1;
  job.span = std::max<std::uint64_t>(kChunkBytes / job.page_bytes, 1) * kPage;
  if (!job.progress)
    job.progress = std::make_unique<Progress>("snapshot of " + job.snapshot.table,
                                              job.rows_expected, ProgressUnit::kEvents);
  look_again({});
  return {};
}

/// The stream has come to the low watermark, and what was read is here.
Result<void> TableSnapshots::open_window(Chunk chunk) {
  Job& job = jobs_.front();
  if (std::exchange(missed_, false)) {
    look_again({});
    return {};
  }
  if (!visibility_.sees_all(chunk.snapshot)) {
    if (waiting_since_ == Time{}) waiting_since_ = now();
    if (now() - waiting_since_ > kTellAfter) {
      spdlog::info(
          "the snapshot of {} waits for transactions to end that were running when it "
          "began: see pg_stat_activity, backend_xid",
          printable(job.snapshot.table));
      waiting_since_ = now();
    }
    look_again(kSoon);
    return {};
  }
  TableReader& table = *chunk.table;
  if (table.table().name() != job.snapshot.table) {
    job.snapshot.table = table.table().name();
    return restart("the table was renamed");
  }
  EncodedRows rows;
  ChangeEncoder encoder(schemas_, catalog_, rows);
  MILLRACE_RETURN_IF_ERROR(encoder.relation(table.relation(), Lsn{}));
  std::size_t from = 0;
  for (const std::size_t end : chunk.ends) {
    MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Tuple* row,
                              table.parse(std::string_view(chunk.rows).substr(from, end - from)));
    MILLRACE_RETURN_IF_ERROR(encoder.read(job.snapshot.oid, *row, Lsn{}));
    from = end;
  }
  window_.open(job.snapshot.table, std::move(rows), request_->keys);
  step_ = Step::kOpen;
  return {};
}

Result<void> TableSnapshots::on_failure(const Error& error) {
  const milliseconds pause =
      std::min<milliseconds>(milliseconds(200) * (1 << std::min(failures_, 8)), kRetryMax);
  ++failures_;
  const std::string text = "the snapshot of " + printable(jobs_.front().snapshot.table) +
                           " can't go on: " + printable(error.message(), 1000);
  if (options_.give_up_early && failures_ >= kFailuresMax &&
      error.code() != ErrorCode::kUnavailable)
    return halted("SNAPSHOT_FAILED", text,
                  "Mend the cause and start again: it goes on from there. Nothing is lost.");
  spdlog::log(failures_ >= kFailuresMax ? spdlog::level::err : spdlog::level::warn,
              "{}; trying again in {} ms", text, pause.count());
  look_again(pause);
  return {};
}

/// From the beginning, but what is in the log stays right: rows that come once more come as they
/// are then.
Result<void> TableSnapshots::restart(std::string_view why) {
  Job& job = jobs_.front();
  const SnapshotEvent event = snapshot_restarted(job.snapshot, why);
  spdlog::warn("the snapshot of {} begins anew: {}", printable(job.snapshot.table), why);
  MILLRACE_RETURN_IF_ERROR(append_alone(event));
  job.incomplete.clear();
  job.snapshot.parts.clear();
  job.looked_at = job.emptied = false;
  look_again({});
  return {};
}

/// In a transaction of its own, that no position of the source belongs to.
Result<void> TableSnapshots::append_alone(const SnapshotEvent& event) {
  const NewEvent alone{.category = kCaptureCategory,
                       .key = jobs_.front().snapshot.table,
                       .type = event.type,
                       .payload = event.payload,
                       .metadata = {}};
  MILLRACE_RETURN_IF_ERROR(store_.append(
      {.source = {}, .source_xid = 0, .commit_time = Clock::system().wall()}, {&alone, 1}));
  return {};
}

Result<void> TableSnapshots::end_job(const SnapshotEvent& event) {
  Job& job = jobs_.front();
  if (job.progress) job.progress->finish();
  if (event.type == "snapshot_completed")
    spdlog::info("snapshot of {}: {}", printable(job.snapshot.table),
                 counted(job.snapshot.rows, "row"));
  jobs_.erase(jobs_.begin());
  request_.reset();
  chunk_.reset();
  if (jobs_.empty()) reader_.reset();
  return {};
}

/// What source.json says follows the log: only once PostgreSQL was told that the last end is safe.
/// Before that a repair of the log could take it back, and nothing would notice.
Result<void> TableSnapshots::note_all_done() {
  if (!state_.unfinished_snapshots || busy()) return {};
  if (now() - looked_at_slot_ < kRequestInterval) return {};
  looked_at_slot_ = now();
  const auto source = store_.durable_source();
  if (!source) return {};
  if (!all_done_at_ && store_.durable_end() < store_.appended_end()) return {};
  if (!all_done_at_) all_done_at_ = source->end;
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(state_.slot));
  if (!slot || !slot->confirmed_flush || slot->confirmed_flush->value < *all_done_at_) return {};
  all_done_at_.reset();
  state_.unfinished_snapshots.reset();
  return save_source_state(options_.store, state_, *options_.files);
}

}  // namespace millrace
