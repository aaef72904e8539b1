#include "eventstore/log/log_writer.h"

#include <algorithm>

#include "base/check.h"

namespace millrace::log {
namespace {

constexpr std::uint64_t kReserveStep = 32 << 20;
constexpr std::uint64_t kPageBytes = 4096;
/// After so many bytes without a sync the disk begins with them, so that the sync of a full segment
/// is a short one.
constexpr std::uint64_t kWritebackStep = 4 << 20;

}  // namespace

Result<LogWriter> LogWriter::create(const StorePaths& paths, const Options& options) {
  LogWriter writer(paths, options);
  MILLRACE_RETURN_IF_ERROR(writer.start_segment({.store = options.store,
                                                 .segment = 0,
                                                 .created = options.clock->wall(),
                                                 .predecessor = std::nullopt,
                                                 .mark = {.end = {0},
                                                          .segment = 0,
                                                          .position = kSegmentHeaderBytes,
                                                          .source = {},
                                                          .commit_time = {}}}));
  return writer;
}

Result<LogWriter> LogWriter::resume(const StorePaths& paths, const Options& options,
                                    const LogState& state) {
  MILLRACE_CHECK(!state.in_transaction());
  LogWriter writer(paths, options);
  MILLRACE_ASSIGN_OR_RETURN(
      writer.file_, options.files->open(paths.segment(state.segment()), OpenMode::kReadWrite));
  writer.state_ = state;
  writer.seal_ = HeaderSeal(options.store, state.segment());
  writer.reserved_ = writer.synced_position_ = state.position();
  writer.synced_mark_ = state.mark();
  writer.mark_chain_ = state.chain();
  return writer;
}

Result<void> LogWriter::write(std::span<char> batches) {
  char* run = batches.data();
  char* const end = run + batches.size();
  std::uint64_t run_position = state_.position();
  for (char* batch = run; batch != end;) {
    const std::uint32_t length = batch_length(batch);
    MILLRACE_CHECK(length >= kBatchHeaderBytes && length <= static_cast<std::size_t>(end - batch));
    if (is_full_for(length)) {
      MILLRACE_RETURN_IF_ERROR(
          write_run({run, static_cast<std::size_t>(batch - run)}, run_position));
      MILLRACE_RETURN_IF_ERROR(roll());
      run = batch;
      run_position = state_.position();
    }
    stamp(batch);
    batch += length;
  }
  return write_run({run, static_cast<std::size_t>(end - run)}, run_position);
}

/// A segment is named by its first offset, so one without events can't be followed by another.
bool LogWriter::is_full_for(std::uint32_t batch_bytes) const {
  const std::uint64_t events = state_.next().value - state_.segment();
  return events != 0 && (events >= options_.segment_events ||
                         state_.position() + batch_bytes > options_.segment_bytes);
}

void LogWriter::stamp(char* batch) {
  const std::uint64_t seal = seal_.at(state_.position());
  stamp_batch_header(batch, state_.chain(), synced_position_, seal);
  BatchHeader header;
  MILLRACE_CHECK(decode_batch_header(batch, seal, header) == BatchFault::kNone);
  MILLRACE_CHECK(state_.check(header) == BatchFault::kNone);
  state_.advance(header, chain_after_batch(batch));
  if (!state_.in_transaction()) {
    mark_chain_ = state_.chain();
    transaction_segments_.clear();
  }
}

Result<void> LogWriter::write_run(std::string_view bytes, std::uint64_t position) {
  if (bytes.empty()) return {};
  MILLRACE_RETURN_IF_ERROR(reserve(position + bytes.size()));
  MILLRACE_RETURN_IF_ERROR(file_->write_at(position, bytes));
  writeback_begun_ = std::max(writeback_begun_, synced_position_);
  const std::uint64_t waiting = position + bytes.size() - writeback_begun_;
  if (waiting >= kWritebackStep) {
    file_->start_writeback(writeback_begun_, waiting);
    writeback_begun_ += waiting;
  }
  return {};
}

Result<void> LogWriter::reserve(std::uint64_t end) {
  if (end <= reserved_) return {};
  const std::uint64_t wanted =
      std::max(end, std::min(reserved_ + kReserveStep, options_.segment_bytes));
  Result<void> reserved = file_->allocate(reserved_, wanted - reserved_);
  if (reserved) {
    reserved_ = wanted;
    return {};
  }
  if (reserved.error().code() != ErrorCode::kNoSpace || wanted == end) return reserved;
  // The disk is nearly full: what is really needed may still fit.
  MILLRACE_RETURN_IF_ERROR(file_->allocate(reserved_, end - reserved_));
  reserved_ = end;
  return {};
}

Result<void> LogWriter::sync() {
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  synced_position_ = state_.position();
  synced_mark_ = state_.mark();
  return {};
}

Result<void> LogWriter::close() {
  MILLRACE_CHECK(is_synced());
  if (reserved_ == state_.position()) return {};
  MILLRACE_RETURN_IF_ERROR(file_->truncate(state_.position()));
  reserved_ = state_.position();
  return file_->sync();
}

Result<void> LogWriter::check_place() const {
  const Path path = paths_.segment(state_.segment());
  const auto there = options_.files->open(path, OpenMode::kRead);
  if (there) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t found, (*there)->identity());
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t written, file_->identity());
    if (found == written) return {};
  } else if (there.error().code() != ErrorCode::kNotFound) {
    return {};
  }
  return Error(ErrorCode::kFailedPrecondition,
               path.string() +
                   " is not the file that is being written: the store was moved, "
                   "removed or replaced while it was open")
      .hint(
          "What was acknowledged is in the files of then. Stop this program, see where they are, "
          "and start it anew.");
}

Result<void> LogWriter::seal() {
  MILLRACE_CHECK(!state_.in_transaction());
  return state_.next().value > state_.segment() ? roll() : Result<void>{};
}

Result<void> LogWriter::roll() {
  MILLRACE_RETURN_IF_ERROR(check_place());  // else the next one gets into somebody else's folder
  const SegmentHeader::Predecessor before{
      .segment = state_.segment(), .bytes_used = state_.position(), .chain = state_.chain()};
  MILLRACE_RETURN_IF_ERROR(file_->truncate(state_.position()));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  SegmentHeader header{.store = options_.store,
                       .segment = state_.next().value,
                       .created = options_.clock->wall(),
                       .predecessor = before,
                       .mark = state_.mark()};
  if (state_.in_transaction()) {
    transaction_segments_.push_back(header.segment);
  } else {
    header.mark.segment = header.segment;
    header.mark.position = kSegmentHeaderBytes;
  }
  return start_segment(header);
}

Result<void> LogWriter::start_segment(const SegmentHeader& header) {
  FileSystem& files = *options_.files;
  const Path path = paths_.segment(header.segment), temporary = path.string() + ".tmp";
  char page[kSegmentHeaderBytes];
  encode_segment_header(header, page);
  MILLRACE_ASSIGN_OR_RETURN(file_, files.open(temporary, OpenMode::kCreate));
  MILLRACE_RETURN_IF_ERROR(file_->write_at(0, {page, sizeof page}));
  reserved_ = kSegmentHeaderBytes;
  MILLRACE_RETURN_IF_ERROR(reserve(align_up(kSegmentHeaderBytes + 1, kPageBytes)));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  MILLRACE_RETURN_IF_ERROR(files.rename(temporary, path));
  MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths_.log()));

  const bool continues = header.mark.segment != header.segment;
  const LogState before = state_;
  state_ = LogState(header, {page, sizeof page});
  if (continues)
    state_.continue_transaction_of(before);
  else
    mark_chain_ = state_.chain();
  seal_ = HeaderSeal(options_.store, header.segment);
  synced_position_ = writeback_begun_ = kSegmentHeaderBytes;
  synced_mark_ = state_.mark();  // the segment before it was synced when it was full
  return {};
}

Result<void> LogWriter::rewind() {
  if (!state_.in_transaction()) return {};
  FileSystem& files = *options_.files;
  const LogMark mark = state_.mark();
  if (!transaction_segments_.empty()) {
    file_.reset();
    // Newest first: a crash in between leaves a log that ends within this transaction, and recovery
    // goes on taking it back.
    for (; !transaction_segments_.empty(); transaction_segments_.pop_back()) {
      MILLRACE_RETURN_IF_ERROR(files.remove(paths_.segment(transaction_segments_.back())));
      MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths_.log()));
    }
    MILLRACE_ASSIGN_OR_RETURN(file_,
                              files.open(paths_.segment(mark.segment), OpenMode::kReadWrite));
    seal_ = HeaderSeal(options_.store, mark.segment);
  }
  MILLRACE_RETURN_IF_ERROR(file_->truncate(mark.position));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  state_.rewind(mark_chain_);
  reserved_ = synced_position_ = writeback_begun_ = mark.position;
  synced_mark_ = mark;
  return {};
}

}  // namespace millrace::log
