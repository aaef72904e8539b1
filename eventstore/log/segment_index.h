#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "eventstore/log/index_format.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"

namespace millrace::log {

/// What a sealed segment holds of one category.
struct CategoryEntry {
  std::string_view name;
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;  ///< Of their keys, payloads and metadata.
  std::uint64_t tombstones = 0, category_tombstones = 0, partials = 0;
  std::uint64_t keys = 0;  ///< Distinct ones (by their hash).
  Offset first, last;      ///< Of its first and last event here.
  std::uint64_t batches = 0;
  std::string_view postings;  ///< As they are stored; SegmentIndex::postings reads them.
};

/// The index of one sealed segment: which batches hold a stream, a category, an offset, a time.
///
/// A hint and never the truth: it is bound to the bytes of its segment, every part has a checksum,
/// and whoever uses it checks each batch that it leads to, and walks the segment where it fails.
/// Parts are read when they are first asked for and then stay in memory: about 10 bits for each
/// distinct key for find(), some bytes for each batch for the rest.
///
/// Errors: kCorruption (damaged: walk instead), kIo. Threads: any.
class SegmentIndex {
 public:
  /// The bytes of the index of `segment`, which was just opened and is sealed. Reads all of it.
  /// Errors: kCorruption (the segment is damaged, or is not sealed), kUnsupported (a newer format,
  /// or more than kIndexedSegmentBytesMax), kCancelled (`stop` was asked), kIo.
  static Result<std::string> build(SegmentReader& segment, const std::stop_token& stop = {});

  /// The index of `segment`, which was just opened; nothing if there is none, or none of exactly
  /// what is in the segment. Reads two headers.
  static std::optional<SegmentIndex> open(FileSystem& files, const StorePaths& paths,
                                          SegmentReader& segment);
  /// For tools: the index in `file`, whatever segment it is of; nothing if it is none.
  static std::optional<SegmentIndex> open_file(std::unique_ptr<File> file);

  /// Fills `positions` with those of the batches that hold `hash` (stream_hash, idempotency_hash),
  /// ascending. Other keys may have the same hash: the records tell.
  Result<void> find(std::uint64_t hash, std::vector<std::uint64_t>& positions) const;

  /// By name.
  Result<std::span<const CategoryEntry>> categories() const;
  /// Of the batches with an event of `category`, ascending; empty if there is none.
  Result<std::vector<std::uint64_t>> postings(std::string_view category) const;
  /// Of the batches that end a transaction which began in another batch, ascending.
  Result<std::vector<std::uint64_t>> transaction_ends() const;

  /// Position of a batch, at most kIndexPlaceStep and a batch before the one that holds `offset`.
  Result<std::uint64_t> seek(Offset offset) const;
  /// Position of a batch before which none was committed at `time` or later, and close to the first
  /// that was.
  Result<std::uint64_t> seek_time(UnixMicros time) const;

  const IndexHeader& header() const { return header_; }

 private:
  struct Place {
    std::uint64_t offset, position;
    std::int64_t commit_max;
  };
  struct Directory {
    std::unique_ptr<const std::string> bytes;  // what the views below are of
    std::string_view ends;
    std::uint64_t ends_count = 0;
    std::vector<CategoryEntry> categories;
  };
  struct Lookup {
    std::vector<std::uint64_t> fences;
    std::string filter;
  };
  /// Once a part is there it does not change.
  struct Parts {
    Mutex mutex;
    std::optional<std::vector<Place>> places MILLRACE_GUARDED_BY(mutex);
    std::optional<Directory> directory MILLRACE_GUARDED_BY(mutex);
    std::optional<Lookup> lookup MILLRACE_GUARDED_BY(mutex);
  };

  SegmentIndex(std::unique_ptr<File> file, const IndexHeader& header)
      : file_(std::move(file)), header_(header), parts_(std::make_unique<Parts>()) {}

  Result<std::string> read_part(std::uint64_t position, std::uint64_t bytes) const;
  Result<const std::vector<Place>*> places() const;
  Result<const Directory*> directory() const;
  Result<const Lookup*> lookup() const;
  Result<Directory> parse_directory(std::string bytes) const;
  Result<bool> find_in_block(std::uint64_t block, std::uint64_t hash,
                             std::vector<std::uint64_t>& positions) const;
  Result<std::vector<std::uint64_t>> decode_postings(std::string_view bytes,
                                                     std::uint64_t count) const;
  bool is_batch_position(std::uint64_t position) const;
  Error damaged() const;

  std::unique_ptr<File> file_;
  IndexHeader header_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace millrace::log
