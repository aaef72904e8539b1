#include "eventstore/inspect.h"

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/head.h"
#include "eventstore/log/index_builder.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"

namespace millrace {
namespace {

using log::BatchFault;
using log::LogMark;
using log::SegmentReader;
using log::StorePaths;

Result<std::uint64_t> size_of(FileSystem& files, const Path& path) {
  MILLRACE_ASSIGN_OR_RETURN(const auto file, files.open(path, OpenMode::kRead));
  return file->size();
}

/// One run over a store: each segment alone, then that it follows the one before.
class Verifier {
 public:
  Verifier(FileSystem& files, StorePaths paths, const StoreId& id,
           const std::function<void(std::uint64_t, std::uint64_t)>& progress)
      : files_(files), paths_(std::move(paths)), id_(id), progress_(progress) {}

  Result<VerifyReport> run();

 private:
  /// How far to walk in a segment.
  struct Extent {
    std::uint64_t limit = 0;
    /// In the last segment nobody knows the end if it is damaged: it is then where batches cease
    /// ...
    bool open_ended = false;
    std::uint64_t damaged_at = 0;  ///< ... but not here.
  };

  Result<void> check_segment(std::uint64_t segment);
  Result<Extent> extent_of(std::uint64_t segment, std::uint64_t file_bytes, bool rewritten);
  Result<Extent> extent_of_tail(std::uint64_t segment);
  Result<void> walk(SegmentReader& reader, const Extent& extent);
  Result<void> check_end(SegmentReader& reader, std::uint64_t file_bytes);
  Result<void> begin_index(const SegmentReader& reader, std::uint64_t file_bytes);
  Result<void> check_index(const SegmentReader& reader);
  void check_link(const log::SegmentHeader& header);
  void check_records(const SegmentReader::Found& found, std::uint64_t segment);
  void add_fault(std::uint64_t segment, std::uint64_t position, std::string_view kind,
                 std::string detail);
  void count_bytes(std::uint64_t bytes);

  FileSystem& files_;
  StorePaths paths_;
  StoreId id_;
  const std::function<void(std::uint64_t, std::uint64_t)>& progress_;
  std::vector<std::uint64_t> segments_;
  std::optional<LogMark> durable_, at_least_;  // as HEAD says
  bool writer_runs_ = false;
  std::uint64_t bytes_in_all_ = 0, bytes_told_ = 0;
  /// How the segment before ended; nothing if that can't be told.
  std::optional<log::SegmentHeader::Predecessor> before_;
  std::uint64_t before_next_ = 0;
  /// What the index of the present segment must be; nothing if it has none.
  std::optional<log::IndexBuilder> index_;
  Batch batch_;
  VerifyReport report_;
};

void Verifier::add_fault(std::uint64_t segment, std::uint64_t position, std::string_view kind,
                         std::string detail) {
  report_.faults.push_back({.file = "log/" + StorePaths::segment_name(segment),
                            .position = position,
                            .kind = std::string(kind),
                            .detail = std::move(detail)});
}

void Verifier::count_bytes(std::uint64_t bytes) {
  constexpr std::uint64_t kProgressBytes = 1 << 20;
  report_.bytes += bytes;
  if (!progress_ || report_.bytes - bytes_told_ < kProgressBytes) return;
  bytes_told_ = report_.bytes;
  progress_(report_.bytes, bytes_in_all_);
}

Result<VerifyReport> Verifier::run() {
  MILLRACE_ASSIGN_OR_RETURN(const std::string writer, files_.lock_holder(paths_.lock()));
  writer_runs_ = !writer.empty();
  MILLRACE_ASSIGN_OR_RETURN(const auto head, log::HeadReader(files_, paths_, id_).read());
  durable_ = head.durable;
  at_least_ = head.at_least;
  MILLRACE_ASSIGN_OR_RETURN(segments_, log::list_segments(files_, paths_));
  if (segments_.empty()) return log::no_segments(paths_);
  if (at_least_ && at_least_->segment > segments_.back())
    add_fault(at_least_->segment, 0, "missing segment", "HEAD says that the log goes on in it");
  // What a running writer has not published yet changes under our eyes.
  if (writer_runs_ && durable_)
    std::erase_if(segments_, [&](std::uint64_t first) { return first > durable_->segment; });
  for (const std::uint64_t segment : segments_) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, size_of(files_, paths_.segment(segment)));
    bytes_in_all_ += size;
  }
  for (const std::uint64_t segment : segments_) MILLRACE_RETURN_IF_ERROR(check_segment(segment));
  if (progress_) progress_(report_.bytes, bytes_in_all_);
  return std::move(report_);
}

Result<void> Verifier::check_segment(std::uint64_t segment) {
  auto reader = SegmentReader::open(files_, paths_, id_, segment);
  if (!reader) {
    const ErrorCode code = reader.error().code();
    if (code != ErrorCode::kCorruption && code != ErrorCode::kUnsupported)
      return std::move(reader).error();
    add_fault(segment, 0, "segment header", reader.error().message());
    before_.reset();
    return {};
  }
  count_bytes(log::kSegmentHeaderBytes);
  check_link(reader->header());
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t file_bytes, reader->file_size());
  MILLRACE_ASSIGN_OR_RETURN(const Extent extent,
                            extent_of(segment, file_bytes, reader->header().rewritten.has_value()));
  const std::size_t faults = report_.faults.size();
  MILLRACE_RETURN_IF_ERROR(begin_index(*reader, file_bytes));
  MILLRACE_RETURN_IF_ERROR(walk(*reader, extent));
  MILLRACE_RETURN_IF_ERROR(check_end(*reader, file_bytes));
  if (index_ && report_.faults.size() == faults) MILLRACE_RETURN_IF_ERROR(check_index(*reader));
  before_ = reader->link();
  before_next_ = reader->end().value;
  return {};
}

Result<void> Verifier::begin_index(const SegmentReader& reader, std::uint64_t file_bytes) {
  index_.reset();
  const std::uint64_t segment = reader.header().segment;
  const bool sealed = segment != segments_.back() || reader.header().rewritten;
  if (!sealed || file_bytes > log::kIndexedSegmentBytesMax) return {};
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(paths_.index(segment)));
  if (there) index_.emplace(reader);
  return {};
}

/// Compares what is there with what it must be. An intact index of other bytes than the segment's
/// is a leftover that nobody heeds.
Result<void> Verifier::check_index(const SegmentReader& reader) {
  const std::uint64_t segment = reader.header().segment;
  const std::string expected = std::move(*index_).finish(reader);
  // A byte more is enough to see that it is too long.
  const auto file = files_.open(paths_.index(segment), OpenMode::kRead);
  std::string bytes(expected.size() + 1, '\0');
  std::size_t count = 0;
  if (file) count = (*file)->read_at(0, bytes).value_or(0);  // unreadable: as good as damaged
  bytes.resize(count);
  if (bytes == expected) return {};
  const auto header = [](std::string_view of) {
    return log::decode_index_header(of.substr(0, log::kIndexHeaderBytes));
  };
  const auto found = header(bytes), wanted = header(expected);
  if (found && (found->page_chain != wanted->page_chain || found->chain != wanted->chain))
    return {};
  const auto differs = std::mismatch(bytes.begin(), bytes.end(), expected.begin(), expected.end());
  report_.faults.push_back(
      {.file = "log/" + StorePaths::index_name(segment),
       .position = static_cast<std::uint64_t>(differs.first - bytes.begin()),
       .kind = "index",
       .detail = "not what its segment says; readers do without it. Remove it: a writer makes it "
                 "again"});
  return {};
}

/// A rewritten segment says itself how it ends, and that another one follows.
Result<void> Verifier::check_end(SegmentReader& reader, std::uint64_t file_bytes) {
  const auto& rewritten = reader.header().rewritten;
  if (!rewritten) return {};
  const std::uint64_t segment = reader.header().segment;
  MILLRACE_ASSIGN_OR_RETURN(const bool ends, reader.at_end());
  if (!ends || file_bytes != rewritten->own.bytes_used)
    add_fault(segment, reader.state().position(), "segment end",
              "its header says that it ends at byte " + std::to_string(rewritten->own.bytes_used));
  if (segment == segments_.back())
    add_fault(rewritten->end.value, 0, "missing segment",
              "the one before it was rewritten, so it was not the last");
  return {};
}

void Verifier::check_link(const log::SegmentHeader& header) {
  const bool first = header.segment == segments_.front();
  if (first && header.predecessor)
    return add_fault(header.segment, 0, "missing segment",
                     "the one before, from offset " + std::to_string(header.predecessor->segment));
  if (!first && !header.predecessor)
    return add_fault(header.segment, 0, "segment link", "it calls itself the first");
  if (first || !before_ || header.predecessor == before_) return;
  if (header.predecessor->segment != before_->segment)
    return add_fault(
        header.segment, 0, "missing segment",
        "events " + std::to_string(before_next_) + " to " + std::to_string(header.segment));
  add_fault(before_->segment, before_->bytes_used, "segment link",
            "the next segment remembers that this one ended at byte " +
                std::to_string(header.predecessor->bytes_used));
}

Result<Verifier::Extent> Verifier::extent_of(std::uint64_t segment, std::uint64_t file_bytes,
                                             bool rewritten) {
  if (writer_runs_ && durable_ && segment == durable_->segment)
    return Extent{.limit = durable_->position};
  if (segment != segments_.back() || rewritten) return Extent{.limit = file_bytes};
  return extent_of_tail(segment);
}

Result<Verifier::Extent> Verifier::extent_of_tail(std::uint64_t segment) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files_, paths_, id_, segment));
  auto tail = log::examine_tail(reader, at_least_);
  if (!tail && tail.error().code() != ErrorCode::kUnsupported) return std::move(tail).error();
  if (!tail || judge(tail->evidence) == log::TailVerdict::kRefuse)
    return Extent{.limit = SegmentReader::kNoLimit,
                  .open_ended = true,
                  .damaged_at = tail ? tail->state.position() : 0};
  if (judge(tail->evidence) == log::TailVerdict::kCut) report_.torn_tail_bytes += tail->torn_bytes;
  const LogMark& mark = tail->state.mark();
  if (mark.segment == segment) {
    report_.torn_tail_bytes += tail->state.position() - mark.position;
  } else {
    // The unfinished transaction began in an older one.
    report_.torn_tail_bytes += tail->state.position();
    for (const std::uint64_t older : segments_) {
      if (older < mark.segment || older == segment) continue;
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, size_of(files_, paths_.segment(older)));
      report_.torn_tail_bytes += older == mark.segment ? size - mark.position : size;
    }
  }
  return Extent{.limit = tail->state.position()};
}

Result<void> Verifier::walk(SegmentReader& reader, const Extent& extent) {
  const std::uint64_t segment = reader.header().segment;
  std::optional<std::uint64_t> resumed_at;
  while (reader.state().position() < extent.limit) {
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader.peek(extent.limit));
    if (found.fault == BatchFault::kNone)
      MILLRACE_RETURN_IF_ERROR(reader.load(found, extent.limit));
    if (found.fault == BatchFault::kNone || found.fault == BatchFault::kPayloadChecksum ||
        found.fault == BatchFault::kPayloadCodec) {
      if (found.fault == BatchFault::kNone) {
        check_records(found, segment);
        if (index_ && !index_->add(found)) index_.reset();  // which check_records has told
      } else {
        add_fault(segment, found.position, describe(found.fault),
                  "offset " + std::to_string(found.header.base));
      }
      ++report_.batches;
      count_bytes(found.header.length);
      reader.advance(found);
      continue;
    }
    // A header that is intact and only does not follow is a place to go on from; else find the
    // next.
    auto next = found;
    const bool tried = resumed_at == found.position;  // and what it says of itself can't be
    const bool intact =
        !tried && (found.fault == BatchFault::kChain || found.fault == BatchFault::kOffset ||
                   found.fault == BatchFault::kTransaction);
    if (!intact) {
      MILLRACE_ASSIGN_OR_RETURN(next, reader.find_header(found.position + log::kBatchAlignment));
    }
    const bool nothing_follows = next.fault == BatchFault::kAbsent;
    if (extent.open_ended && nothing_follows && found.fault == BatchFault::kAbsent &&
        found.position != extent.damaged_at)
      return {};
    add_fault(segment, found.position, describe(found.fault),
              "offset " + std::to_string(reader.state().next().value));
    if (nothing_follows) return {};
    resumed_at = next.position;
    reader.resume_at(next);
  }
  return {};
}

void Verifier::check_records(const SegmentReader::Found& found, std::uint64_t segment) {
  batch_.segment = segment;
  batch_.position = found.position;
  batch_.load(found.header, found.payload, Offset{0});
  std::uint64_t events = 0;
  while (batch_.next() != nullptr) ++events;
  report_.events += events;
  Result<void> status = batch_.status();
  if (found.header.has(log::kControl))
    if (auto removals = log::decode_removals(found.payload); !removals)
      status = std::move(removals).error();
  if (!status) add_fault(segment, found.position, "batch records", status.error().message());
}

/// From HEAD, else from the segments; a writer that starts meanwhile publishes HEAD before it
/// writes.
Result<LogMark> durable_mark(FileSystem& files, const StorePaths& paths, const StoreId& id) {
  log::HeadReader reader(files, paths, id);
  MILLRACE_ASSIGN_OR_RETURN(auto head, reader.read());
  if (head.durable) return *head.durable;
  auto found = log::find_end(files, paths, id, head.at_least);
  MILLRACE_ASSIGN_OR_RETURN(head, reader.read());
  if (head.durable) return *head.durable;
  return found;
}

}  // namespace

Result<StoreId> read_store_id(const Path& directory, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const auto description,
                            log::read_description(files, StorePaths(directory)));
  return description.id;
}

Result<StoreSummary> summarize_store(const Path& directory, FileSystem& files) {
  const StorePaths paths(directory);
  MILLRACE_ASSIGN_OR_RETURN(const auto description, log::read_description(files, paths));
  MILLRACE_ASSIGN_OR_RETURN(const LogMark durable, durable_mark(files, paths, description.id));
  StoreSummary summary{.id = description.id,
                       .format_version = description.version,
                       .created = description.created,
                       .first = {},
                       .durable_end = durable.end,
                       .source = {},
                       .last_commit_time = durable.commit_time,
                       .durability = {},
                       .segments = {},
                       .writer = {}};
  if (durable.source.epoch != 0) summary.source = durable.source;
  MILLRACE_ASSIGN_OR_RETURN(const auto head, log::HeadReader(files, paths, description.id).read());
  summary.durability = head.durability;
  MILLRACE_ASSIGN_OR_RETURN(summary.writer, files.lock_holder(paths.lock()));
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, log::list_segments(files, paths));
  if (segments.empty()) return log::no_segments(paths);
  summary.first = {segments.front()};
  for (std::size_t i = 0; i < segments.size(); ++i) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, size_of(files, paths.segment(segments[i])));
    const bool sealed = i + 1 < segments.size();
    summary.segments.push_back(
        {.file = StorePaths::segment_name(segments[i]),
         .first = {segments[i]},
         .end = sealed ? Offset{segments[i + 1]} : std::max(durable.end, Offset{segments[i]}),
         .bytes = size,
         .used_bytes = segments[i] == durable.segment && !sealed ? durable.position : size});
  }
  return summary;
}

Result<VerifyReport> verify_store(const Path& directory,
                                  const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                                  FileSystem& files) {
  const StorePaths paths(directory);
  MILLRACE_ASSIGN_OR_RETURN(const auto description, log::read_description(files, paths));
  return Verifier(files, paths, description.id, progress).run();
}

}  // namespace millrace
