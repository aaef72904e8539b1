#include "eventstore/log/segment_rewriter.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "base/check.h"
#include "eventstore/log/batch_file.h"
#include "eventstore/log/generation_file.h"
#include "eventstore/log/record_writer.h"
#include "eventstore/log/segment_index.h"

namespace millrace::log {
namespace {

/// A batch of the new generation that waits until it is known whether it is the last one of its
/// transaction.
struct KeptBatch {
  BatchHeader header;
  ByteBuffer payload;
  bool stored = false;  // as it was: nothing of it went
};

/// One run over a segment. Told batch by batch; what it gives goes to a GenerationFile.
class Rewriter {
 public:
  Rewriter(SegmentReader& reader, const Judge& judge, const RewriteOptions& options,
           GenerationFile& out, RewriteReport& report)
      : reader_(reader),
        judge_(judge),
        options_(options),
        out_(out),
        report_(report),
        crosses_start_(reader.state().in_transaction()) {}

  Result<void> run();
  const std::vector<Removal>& removals() const { return removals_.all(); }

 private:
  Result<void> take(const SegmentReader::Found& found);
  Result<void> finish();
  Result<bool> filter(const SegmentReader::Found& found);
  void keep(const BatchHeader& header);
  Result<void> keep_stored(const BatchHeader& header, std::uint64_t position);
  Result<void> end_transaction(const BatchHeader& last);
  Result<void> write_kept();
  void leave_empty(const BatchHeader& of);

  SegmentReader& reader_;
  const Judge& judge_;
  const RewriteOptions& options_;
  GenerationFile& out_;
  RewriteReport& report_;
  Batch batch_;
  RecordWriter records_;
  ByteBuffer payload_;  // of the batch at hand
  std::uint32_t names_at_ = 0, count_ = 0;
  bool unchanged_ = false;
  KeptBatch kept_;
  bool has_kept_ = false;
  bool first_is_due_ = false;        // the next batch that is kept is the first of its transaction
  bool crosses_start_;               // the transaction at hand began in an older segment
  std::optional<BatchHeader> open_;  // the last batch seen of a transaction that is not at its end
  RemovalList removals_;
};

/// Encodes what stays of a batch into payload_; false if nothing does.
Result<bool> Rewriter::filter(const SegmentReader::Found& found) {
  batch_.load(found.header, found.payload, Offset{0});
  batch_.segment = reader_.header().segment;
  batch_.position = found.position;
  payload_.resize(0);
  records_.begin(payload_, Offset{found.header.base});
  count_ = 0;
  bool completed = false;
  while (const EventView* event = batch_.next()) {
    MILLRACE_ASSIGN_OR_RETURN(const Verdict verdict, judge_(*event, batch_));
    switch (verdict.kind) {
      case Verdict::Kind::kSuperseded: ++report_.events_removed; continue;
      case Verdict::Kind::kRemoved:
        ++report_.events_removed;
        removals_.add(event->category, verdict.removal, event->offset);
        continue;
      case Verdict::Kind::kKeep: records_.add(*event); break;
      case Verdict::Kind::kCompleted: {
        EventView whole = *event;
        whole.payload = verdict.payload;
        whole.flags = without(event->flags, EventFlags::kPartial);
        records_.add(whole);
        ++report_.events_completed;
        completed = true;
      }
    }
    ++count_;
  }
  MILLRACE_RETURN_IF_ERROR(batch_.status());
  report_.events_kept += count_;
  unchanged_ = count_ == found.header.count && !completed;
  const auto properties = properties_of(found.payload.substr(found.header.names_at));
  const bool forgets_key =
      !batch_.idempotency_key.empty() && options_.forgets_key && options_.forgets_key(batch_);
  if (forgets_key && count_ != 0) {
    ++report_.keys_forgotten;
    unchanged_ = false;
    names_at_ = records_.finish(without_idempotency_key(properties));
  } else {
    names_at_ = records_.finish(properties);
  }
  return count_ != 0;
}

Result<void> Rewriter::take(const SegmentReader::Found& found) {
  const BatchHeader& header = found.header;
  if (header.has(kFirstOfTransaction)) {
    first_is_due_ = true;
    crosses_start_ = false;
  }
  MILLRACE_ASSIGN_OR_RETURN(const bool stays, filter(found));
  if (stays) {
    MILLRACE_RETURN_IF_ERROR(write_kept());
    keep(header);
    if (unchanged_) MILLRACE_RETURN_IF_ERROR(keep_stored(header, found.position));
  }
  open_ = header;
  return header.has(kLastOfTransaction) ? end_transaction(header) : Result<void>{};
}

void Rewriter::keep(const BatchHeader& header) {
  kept_.header = header;
  kept_.header.count = count_;
  kept_.header.codec = Codec::kNone;
  kept_.header.raw_bytes = static_cast<std::uint32_t>(payload_.size());
  kept_.header.names_at = names_at_;
  kept_.header.source.end = 0;
  kept_.header.flags &= static_cast<std::uint16_t>(~(kFirstOfTransaction | kLastOfTransaction));
  if (std::exchange(first_is_due_, false)) kept_.header.flags |= kFirstOfTransaction;
  kept_.payload.swap(payload_);
  kept_.stored = false;
  has_kept_ = true;
}

/// Takes the payload as it lies in the file: it need not be compressed again.
Result<void> Rewriter::keep_stored(const BatchHeader& header, std::uint64_t position) {
  MILLRACE_ASSIGN_OR_RETURN(const auto stored,
                            reader_.fetch(position + kBatchHeaderBytes, header.payload_bytes));
  MILLRACE_CHECK(stored.size() == header.payload_bytes);  // it was just loaded
  kept_.payload.resize(0);
  kept_.payload.append(stored);
  kept_.header.codec = header.codec;
  kept_.header.raw_bytes = header.raw_bytes;
  kept_.header.names_at = header.names_at;
  kept_.stored = true;
  return {};
}

/// A batch without events, at a border of the segment.
void Rewriter::leave_empty(const BatchHeader& of) {
  payload_.resize(0);
  records_.begin(payload_, Offset{of.base});
  count_ = 0;
  names_at_ = records_.finish(kNoProperties);
  keep(of);
}

Result<void> Rewriter::end_transaction(const BatchHeader& last) {
  open_.reset();
  if (!has_kept_ && crosses_start_) leave_empty(last);
  first_is_due_ = false;
  crosses_start_ = false;
  if (!has_kept_) return {};
  kept_.header.flags |= kLastOfTransaction;
  kept_.header.source.end = last.source.end;
  return write_kept();
}

Result<void> Rewriter::write_kept() {
  if (!std::exchange(has_kept_, false)) return {};
  return out_.add(kept_.header, kept_.payload.view(), kept_.stored);
}

Result<void> Rewriter::finish() {
  if (open_ && !has_kept_) leave_empty(*open_);
  return write_kept();
}

Result<void> Rewriter::run() {
  std::uint64_t paced = reader_.state().position();
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool ends, reader_.at_end());
    if (ends) break;
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader_.peek());
    if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader_.load(found));
    if (found.fault != BatchFault::kNone)
      return fault_error(reader_.header().segment, found.position, found.fault);
    if (!found.header.has(kControl)) MILLRACE_RETURN_IF_ERROR(take(found));
    reader_.advance(found);
    const std::uint64_t position = reader_.state().position();
    if (!options_.pace || position - paced < kPaceBytes) continue;
    MILLRACE_RETURN_IF_ERROR(options_.pace(position - std::exchange(paced, position)));
  }
  if (options_.pace) MILLRACE_RETURN_IF_ERROR(options_.pace(reader_.state().position() - paced));
  return finish();
}

/// Writes the new generation to `temporary`; false if everything stays.
Result<bool> write_generation(const Path& temporary, SegmentReader& reader,
                              const SegmentHeader& successor, const StoreId& store,
                              const Judge& judge, const RewriteOptions& options,
                              RewriteReport& report) {
  MILLRACE_ASSIGN_OR_RETURN(auto removed_before, removals_of(reader));
  MILLRACE_ASSIGN_OR_RETURN(auto file, options.files->open(temporary, OpenMode::kCreate));
  GenerationFile out(std::move(file), store,
                     next_generation(reader.header(), {successor.segment},
                                     {.bytes_used = successor.predecessor->bytes_used,
                                      .chain = successor.predecessor->chain},
                                     options.clock->wall()),
                     options.compression);
  Rewriter rewriter(reader, judge, options, out, report);
  MILLRACE_RETURN_IF_ERROR(rewriter.run());
  if (reader.link() != successor.predecessor)
    return Error(ErrorCode::kCorruption, "log/" +
                                             StorePaths::segment_name(reader.header().segment) +
                                             " did not end as the segment after it remembers")
        .hint("`millrace log verify` lists every fault; put the file back from a backup.");
  if (!report.changes()) return false;
  report.removed = rewriter.removals();
  RemovalList removals(std::move(removed_before));
  for (const Removal& removal : report.removed) removals.add(removal);
  MILLRACE_RETURN_IF_ERROR(out.finish(removals.all()));
  report.bytes_after = out.position();
  return true;
}

/// It is of the old generation, so nobody believes it; but it tells of keys that may be gone.
Result<void> remove_index(FileSystem& files, const StorePaths& paths, std::uint64_t segment) {
  const Path index = paths.index(segment);
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(index));
  if (!there) return {};
  MILLRACE_RETURN_IF_ERROR(files.remove(index));
  return files.sync_directory(paths.log());
}

Result<void> write_index(FileSystem& files, const StorePaths& paths, const StoreId& store,
                         std::uint64_t segment) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, segment));
  MILLRACE_ASSIGN_OR_RETURN(const std::string index, SegmentIndex::build(reader));
  return write_file_atomically(files, paths.index(segment), index);
}

}  // namespace

Result<RewriteReport> rewrite_segment(const StorePaths& paths, const StoreId& store,
                                      std::uint64_t segment, std::uint64_t next, const Judge& judge,
                                      const RewriteOptions& options) {
  FileSystem& files = *options.files;
  const Path path = paths.segment(segment), temporary = path.string() + ".tmp";
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, segment));
  MILLRACE_ASSIGN_OR_RETURN(auto after, SegmentReader::open(files, paths, store, next));
  if (!after.header().predecessor || after.header().predecessor->segment != segment)
    return Error(ErrorCode::kCorruption, "log/" + StorePaths::segment_name(next) +
                                             " does not follow log/" +
                                             StorePaths::segment_name(segment))
        .hint("`millrace log verify` lists every fault; put what is missing back from a backup.");
  RewriteReport report;
  MILLRACE_ASSIGN_OR_RETURN(report.bytes_before, reader.file_size());
  report.bytes_after = report.bytes_before;
  // What a run left that failed and could not clean up.
  MILLRACE_ASSIGN_OR_RETURN(const bool leftover, files.exists(temporary));
  if (leftover) MILLRACE_RETURN_IF_ERROR(files.remove(temporary));

  const auto written =
      write_generation(temporary, reader, after.header(), store, judge, options, report);
  if (!written || !*written) {
    auto removed =
        files.exists(temporary).value_or(false) ? files.remove(temporary) : Result<void>{};
    if (!written) return written.error();
    MILLRACE_RETURN_IF_ERROR(removed);
    return report;
  }
  const auto swap = [&]() -> Result<void> {
    MILLRACE_RETURN_IF_ERROR(files.rename(temporary, path));
    MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths.log()));
    MILLRACE_RETURN_IF_ERROR(remove_index(files, paths, segment));
    // Before anybody is told of the swap: who opens the new one needs it.
    Result<void> indexed = write_index(files, paths, store, segment);
    // The maintenance writes its own under the same temporary name and may have taken ours.
    if (!indexed && indexed.error().code() == ErrorCode::kNotFound)
      indexed = write_index(files, paths, store, segment);
    if (!indexed)
      spdlog::warn("log/{} has no index until the store is opened again: {}",
                   StorePaths::segment_name(segment), indexed.error().message());
    return {};
  };
  if (auto swapped = options.around_swap ? options.around_swap(report.removed, swap) : swap();
      !swapped) {
    if (files.exists(temporary).value_or(false)) static_cast<void>(files.remove(temporary));
    return std::move(swapped).error();
  }
  return report;
}

}  // namespace millrace::log
