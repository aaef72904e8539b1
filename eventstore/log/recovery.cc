#include "eventstore/log/recovery.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <tuple>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::log {
namespace {

constexpr std::uint64_t kCopyBytes = 1 << 20;

bool is_before(const LogMark& mark, const LogMark& other) {
  return std::tie(mark.segment, mark.position) < std::tie(other.segment, other.position);
}

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

/// Up to the end of the sector that `position` is in.
Result<std::string_view> rest_of_sector(SegmentReader& reader, std::uint64_t position) {
  return reader.fetch(position, align_up(position + 1, kSectorBytes) - position);
}

/// True if a sector of the payload may be missing. Not one that it shares with the header, which is
/// there, nor what is behind the payload, which is zeros anyway.
Result<bool> payload_lacks_sector(SegmentReader& reader, const SegmentReader::Found& found) {
  const std::uint64_t start = found.position + kBatchHeaderBytes;
  const std::uint64_t end = start + found.header.payload_bytes;
  for (std::uint64_t at = align_up(start, kSectorBytes); at < end; at += kSectorBytes) {
    MILLRACE_ASSIGN_OR_RETURN(const auto sector, rest_of_sector(reader, at));
    if (all_zero(sector)) return true;
  }
  return false;
}

/// A header that is not whole lies in one or two sectors, each as it was written or missing.
Result<TailBytes> classify_header(SegmentReader& reader, std::uint64_t position,
                                  std::uint64_t file_bytes) {
  const std::uint64_t sector_end = align_up(position + 1, kSectorBytes);
  const std::uint64_t header_end = position + kBatchHeaderBytes;
  MILLRACE_ASSIGN_OR_RETURN(const auto start, rest_of_sector(reader, position));
  if (all_zero(start)) return TailBytes::kTorn;
  if (!reader.may_begin_next(start)) return TailBytes::kDamaged;
  if (file_bytes < header_end) return TailBytes::kTorn;
  if (sector_end >= header_end) return TailBytes::kDamaged;  // it is all there
  MILLRACE_ASSIGN_OR_RETURN(const auto second, rest_of_sector(reader, sector_end));
  return all_zero(second) ? TailBytes::kTorn : TailBytes::kDamaged;
}

Result<TailBytes> classify(SegmentReader& reader, const SegmentReader::Found& found,
                           std::uint64_t file_bytes) {
  switch (found.fault) {
    case BatchFault::kAbsent: {
      MILLRACE_ASSIGN_OR_RETURN(const auto start, rest_of_sector(reader, found.position));
      return all_zero(start) ? TailBytes::kNothing : TailBytes::kDamaged;
    }
    case BatchFault::kIncomplete:
      if (found.header.length != 0) return TailBytes::kTorn;  // in its payload
      [[fallthrough]];
    case BatchFault::kHeaderChecksum: return classify_header(reader, found.position, file_bytes);
    case BatchFault::kPayloadChecksum: {
      MILLRACE_ASSIGN_OR_RETURN(const bool torn, payload_lacks_sector(reader, found));
      return torn ? TailBytes::kTorn : TailBytes::kDamaged;
    }
    default: return TailBytes::kDamaged;
  }
}

/// True if some batch behind `position` was written when `position` had been synced already.
Result<bool> later_batch_knows(SegmentReader& reader, std::uint64_t position) {
  for (std::uint64_t at = position + kBatchAlignment;;) {
    MILLRACE_ASSIGN_OR_RETURN(const auto found, reader.find_header(at));
    if (found.fault == BatchFault::kAbsent) return false;
    if (found.header.synced_position > position) return true;
    at = found.position + kBatchAlignment;
  }
}

/// From `position` to the last byte of the file that is not zero.
Result<std::uint64_t> bytes_behind(SegmentReader& reader, std::uint64_t position) {
  constexpr std::uint64_t kStep = 64 << 10;
  std::uint64_t last = position;
  for (std::uint64_t at = position;;) {
    MILLRACE_ASSIGN_OR_RETURN(const auto bytes, reader.fetch(at, kStep));
    if (bytes.empty()) return last - position;
    const auto nonzero = std::find_if(bytes.rbegin(), bytes.rend(), [](char c) { return c != 0; });
    if (nonzero != bytes.rend()) last = at + static_cast<std::uint64_t>(bytes.rend() - nonzero);
    at += bytes.size();
  }
}

std::string file_name(std::uint64_t segment) { return "log/" + StorePaths::segment_name(segment); }

Error missing_segment(std::uint64_t from, std::uint64_t to) {
  return Error(ErrorCode::kCorruption, "a segment with the events " + std::to_string(from) +
                                           " to " + std::to_string(to) + " is missing")
      .hint("Put the file back from a backup; nothing was changed.");
}

/// The segment before `header`'s must be there, whole, as its successor remembers it.
Result<void> check_predecessor(FileSystem& files, const StorePaths& paths, const StoreId& store,
                               const SegmentHeader& header,
                               const std::vector<std::uint64_t>& segments) {
  const auto here = std::lower_bound(segments.begin(), segments.end(), header.segment);
  const bool is_first = here == segments.begin();
  const std::uint64_t before = is_first ? 0 : *(here - 1);
  if (!header.predecessor) {
    if (!is_first)
      return Error(ErrorCode::kCorruption, file_name(header.segment) +
                                               " calls itself the first segment, but there is " +
                                               file_name(before));
    return {};
  }
  if (is_first || before != header.predecessor->segment)
    return missing_segment(header.predecessor->segment, header.segment);
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, before));
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, reader.file_size());
  const auto wrong = [&](const std::string& what, std::uint64_t bytes, std::uint64_t remembered) {
    return Error(ErrorCode::kCorruption, file_name(before) + " has " + std::to_string(bytes) +
                                             " bytes, " + what + " remembers " +
                                             std::to_string(remembered))
        .hint("Put the file back from a backup; nothing was changed.");
  };
  // A rewritten one must be as its own header says, and come from the one that is remembered.
  const auto& rewritten = reader.header().rewritten;
  if (rewritten && size != rewritten->own.bytes_used)
    return wrong("its header", size, rewritten->own.bytes_used);
  const std::uint64_t original = rewritten ? rewritten->origin.bytes_used : size;
  if (original != header.predecessor->bytes_used ||
      (rewritten && rewritten->origin.chain != header.predecessor->chain))
    return wrong("the segment after it", original, header.predecessor->bytes_used);
  return {};
}

Result<Tail> start_of(SegmentReader& reader) {
  Tail tail{.header = reader.header(),
            .state = reader.state(),
            .evidence = {},
            .mark_chain = reader.state().chain(),
            .synced_position = kSegmentHeaderBytes};
  MILLRACE_ASSIGN_OR_RETURN(tail.file_bytes, reader.file_size());
  return tail;
}

/// Goes over the good batches that start below `limit`; gives what ended that, fault kNone if it
/// was the limit.
Result<SegmentReader::Found> walk(SegmentReader& reader, Tail& tail, std::uint64_t limit) {
  SegmentReader::Found found;
  while (reader.state().position() < limit) {
    MILLRACE_ASSIGN_OR_RETURN(found, reader.peek());
    if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader.load(found));
    if (found.fault != BatchFault::kNone) break;
    tail.synced_position = std::max(tail.synced_position, found.header.synced_position);
    reader.advance(found);
    if (!reader.state().in_transaction()) tail.mark_chain = reader.state().chain();
  }
  if (found.fault == BatchFault::kUnsupported)
    return Error(ErrorCode::kUnsupported, file_name(tail.header.segment) + " at byte " +
                                              std::to_string(found.position) +
                                              ": written by a newer millrace")
        .hint("Install that version, or a newer one.");
  tail.state = reader.state();
  tail.fault = found.fault;
  return found;
}

/// Writes again what may have been acknowledged by the kernel and yet never have reached the disk:
/// after a failed sync the page cache holds bytes that are called clean and are lost.
Result<void> write_again(File& file, std::uint64_t from, std::uint64_t to) {
  std::string bytes;
  for (; from < to; from += bytes.size()) {
    bytes.resize(static_cast<std::size_t>(std::min(kCopyBytes, to - from)));
    MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file.read_at(from, bytes));
    MILLRACE_CHECK(count == bytes.size());  // examine_tail has just read it
    MILLRACE_RETURN_IF_ERROR(file.write_at(from, bytes));
  }
  return {};
}

Result<void> settle(FileSystem& files, const StorePaths& paths, const Tail& tail) {
  const std::uint64_t end = tail.state.mark().position;
  MILLRACE_ASSIGN_OR_RETURN(const auto file,
                            files.open(paths.segment(tail.header.segment), OpenMode::kReadWrite));
  if (tail.file_bytes > end) MILLRACE_RETURN_IF_ERROR(file->truncate(end));
  MILLRACE_RETURN_IF_ERROR(write_again(*file, std::min(tail.synced_position, end), end));
  return file->sync();
}

/// Reads the segment in which `mark` lies up to there: the log has to be what the mark says.
Result<Tail> examine_start(FileSystem& files, const StorePaths& paths, const StoreId& store,
                           const LogMark& mark, const std::vector<std::uint64_t>& segments) {
  if (!std::binary_search(segments.begin(), segments.end(), mark.segment))
    return missing_segment(mark.segment, mark.end.value);
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, mark.segment));
  MILLRACE_RETURN_IF_ERROR(check_predecessor(files, paths, store, reader.header(), segments));
  MILLRACE_ASSIGN_OR_RETURN(Tail tail, start_of(reader));
  MILLRACE_RETURN_IF_ERROR(walk(reader, tail, mark.position));
  if (tail.state.in_transaction() || tail.state.mark() != mark) {
    tail.evidence.synced_before = true;  // the segments behind it were made later
    return refusal(paths, tail);
  }
  return tail;
}

/// Only sealed segments are rewritten, so another one follows.
Result<void> check_is_last(const SegmentReader& reader) {
  const auto& rewritten = reader.header().rewritten;
  if (!rewritten) return {};
  return Error(ErrorCode::kCorruption, file_name(reader.header().segment) +
                                           " was rewritten, so it is not the last segment: the "
                                           "events from " +
                                           std::to_string(rewritten->end.value) + " on are missing")
      .hint("Put the segments behind it back from a backup; nothing was changed.");
}

/// Newest first, so that a crash in between leaves the same question to the next start.
Result<void> remove_behind(FileSystem& files, const StorePaths& paths, std::uint64_t segment,
                           const std::vector<std::uint64_t>& segments) {
  for (auto last = segments.rbegin(); last != segments.rend() && *last > segment; ++last) {
    MILLRACE_RETURN_IF_ERROR(files.remove(paths.segment(*last)));
    MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths.log()));
  }
  return {};
}

void log_cut(const StorePaths& paths, const Tail& tail) {
  const std::uint64_t whole = tail.state.mark().position, good = tail.state.position();
  if (tail.fault != BatchFault::kAbsent)
    spdlog::warn("store {}: {} at byte {}: {}; {} bytes that a crash tore are cut off",
                 paths.directory.string(), file_name(tail.header.segment), good,
                 describe(tail.fault), tail.torn_bytes);
  if (tail.state.in_transaction())
    spdlog::warn("store {}: an unfinished transaction from offset {} on is dropped ({} at byte {})",
                 paths.directory.string(), tail.state.mark().end.value,
                 file_name(tail.state.mark().segment), whole);
}

}  // namespace

TailVerdict judge(const TailEvidence& evidence) {
  if (evidence.below_durable || evidence.synced_before) return TailVerdict::kRefuse;
  switch (evidence.bytes) {
    case TailBytes::kNothing: return TailVerdict::kClean;
    case TailBytes::kTorn: return TailVerdict::kCut;
    case TailBytes::kDamaged: return TailVerdict::kRefuse;
  }
  return TailVerdict::kRefuse;
}

Result<Tail> examine_tail(SegmentReader& reader, const std::optional<LogMark>& known_durable) {
  MILLRACE_ASSIGN_OR_RETURN(Tail tail, start_of(reader));
  MILLRACE_ASSIGN_OR_RETURN(const auto found, walk(reader, tail, SegmentReader::kNoLimit));
  MILLRACE_ASSIGN_OR_RETURN(tail.evidence.bytes, classify(reader, found, tail.file_bytes));
  MILLRACE_ASSIGN_OR_RETURN(tail.evidence.synced_before, later_batch_knows(reader, found.position));
  MILLRACE_ASSIGN_OR_RETURN(tail.torn_bytes, bytes_behind(reader, found.position));
  tail.evidence.below_durable = known_durable && is_before(tail.state.mark(), *known_durable);
  return tail;
}

Error refusal(const StorePaths& paths, const Tail& tail) {
  std::string text = paths.segment(tail.header.segment).string() + " is damaged at byte " +
                     std::to_string(tail.state.position()) + " (offset " +
                     std::to_string(tail.state.next().value) +
                     "): " + std::string(describe(tail.fault));
  if (tail.evidence.below_durable || tail.evidence.synced_before)
    text += "; it had been synced, so no crash explains that";
  if (tail.evidence.below_durable)
    return Error(ErrorCode::kCorruption, std::move(text))
        .hint(
            "Nothing was changed. Put the whole store back from a backup, its HEAD included, and "
            "have a look at the disk. If there is none, `millrace log repair` says what is lost, "
            "and makes the store end there.");
  return Error(ErrorCode::kCorruption, std::move(text))
      .hint(
          "Nothing was changed. `millrace log verify` lists every fault; put the file back from a "
          "backup, and have a look at the disk. If there is none, see `millrace log repair`.");
}

Error no_segments(const StorePaths& paths) {
  return Error(ErrorCode::kCorruption, paths.log().string() + " holds no segment")
      .hint("The log of this store is gone; put it back from a backup.");
}

Result<LogMark> find_end(FileSystem& files, const StorePaths& paths, const StoreId& store,
                         const std::optional<LogMark>& known_durable) {
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, list_segments(files, paths));
  if (segments.empty()) return no_segments(paths);
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, segments.back()));
  MILLRACE_RETURN_IF_ERROR(check_is_last(reader));
  MILLRACE_ASSIGN_OR_RETURN(const Tail tail, examine_tail(reader, known_durable));
  if (judge(tail.evidence) == TailVerdict::kRefuse) return refusal(paths, tail);
  return tail.state.mark();
}

Result<LogState> recover(FileSystem& files, const StorePaths& paths, const StoreId& store,
                         const std::optional<LogMark>& known_durable) {
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, list_segments(files, paths));
  if (segments.empty()) return no_segments(paths);
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files, paths, store, segments.back()));
  MILLRACE_RETURN_IF_ERROR(check_is_last(reader));
  MILLRACE_ASSIGN_OR_RETURN(Tail tail, examine_tail(reader, known_durable));
  const LogMark mark = tail.state.mark();
  const bool ends_before = mark.segment != segments.back();
  if (!ends_before)
    MILLRACE_RETURN_IF_ERROR(check_predecessor(files, paths, store, reader.header(), segments));
  if (judge(tail.evidence) == TailVerdict::kRefuse) return refusal(paths, tail);
  log_cut(paths, tail);
  if (ends_before) {
    // The transaction that was being written began in an older segment. Nothing behind its start
    // was ever committed, so it goes without a look at it.
    MILLRACE_ASSIGN_OR_RETURN(tail, examine_start(files, paths, store, mark, segments));
    MILLRACE_RETURN_IF_ERROR(remove_behind(files, paths, mark.segment, segments));
  }
  MILLRACE_RETURN_IF_ERROR(settle(files, paths, tail));
  MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths.log()));
  LogState state = tail.state;
  if (state.in_transaction()) state.rewind(tail.mark_chain);
  return state;
}

}  // namespace millrace::log
