#include "eventstore/log/segment_index.h"

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/index_builder.h"

namespace millrace::log {
namespace {

/// True if `header` is of the very bytes that are in `segment`.
Result<bool> describes(const IndexHeader& header, SegmentReader& segment) {
  if (header.store != segment.header().store || header.segment != segment.header().segment ||
      header.page_chain != segment.state().chain())
    return false;
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, segment.file_size());
  if (header.used_bytes != size) return false;
  if (header.last_batch == 0) return header.chain == header.page_chain;
  MILLRACE_ASSIGN_OR_RETURN(const auto last, segment.fetch(header.last_batch, kBatchHeaderBytes,
                                                           header.last_batch + kBatchHeaderBytes));
  return last.size() == kBatchHeaderBytes && chain_after_batch(last.data()) == header.chain;
}

}  // namespace

Result<std::string> SegmentIndex::build(SegmentReader& segment, const std::stop_token& stop) {
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, segment.file_size());
  if (size > kIndexedSegmentBytesMax)
    return Error(ErrorCode::kUnsupported, StorePaths::segment_name(segment.header().segment) +
                                              ": a segment of " + std::to_string(size) +
                                              " bytes is too large for an index");
  IndexBuilder builder(segment);
  while (segment.state().position() < size) {
    if (stop.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
    MILLRACE_ASSIGN_OR_RETURN(auto found, segment.peek());
    if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(segment.load(found));
    if (found.fault != BatchFault::kNone)
      return Error(found.fault == BatchFault::kUnsupported ? ErrorCode::kUnsupported
                                                           : ErrorCode::kCorruption,
                   "log/" + StorePaths::segment_name(segment.header().segment) + " at byte " +
                       std::to_string(found.position) + ": " + std::string(describe(found.fault)));
    MILLRACE_RETURN_IF_ERROR(builder.add(found));
    segment.advance(found);
  }
  MILLRACE_ASSIGN_OR_RETURN(const bool ends, segment.at_end());
  if (!ends)
    return Error(ErrorCode::kCorruption, "log/" +
                                             StorePaths::segment_name(segment.header().segment) +
                                             " is not as long as its header says");
  return std::move(builder).finish(segment);
}

std::optional<SegmentIndex> SegmentIndex::open(FileSystem& files, const StorePaths& paths,
                                               SegmentReader& segment) {
  auto file = files.open(paths.index(segment.header().segment), OpenMode::kRead);
  if (!file) return std::nullopt;
  auto index = open_file(*std::move(file));
  if (!index) return std::nullopt;
  const auto right = describes(index->header_, segment);
  if (!right || !*right) return std::nullopt;
  return index;
}

std::optional<SegmentIndex> SegmentIndex::open_file(std::unique_ptr<File> file) {
  char bytes[kIndexHeaderBytes];
  const auto read = file->read_at(0, bytes);
  if (!read) return std::nullopt;
  const auto header = decode_index_header({bytes, *read});
  if (!header) return std::nullopt;
  const auto size = file->size();
  if (!size || *size != header->file_bytes()) return std::nullopt;
  return SegmentIndex(std::move(file), *header);
}

Error SegmentIndex::damaged() const {
  return Error(ErrorCode::kCorruption,
               "log/" + StorePaths::index_name(header_.segment) + " is damaged");
}

/// Without the checksum at its end, which was right.
Result<std::string> SegmentIndex::read_part(std::uint64_t position, std::uint64_t bytes) const {
  std::string part(bytes, '\0');
  MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file_->read_at(position, part));
  if (count != bytes) return damaged();
  const std::size_t checked = bytes - kIndexChecksumBytes;
  if (load_le<std::uint64_t>(part.data() + checked) !=
      index_checksum(std::string_view(part).substr(0, checked), header_, position))
    return damaged();
  part.resize(checked);
  return part;
}

bool SegmentIndex::is_batch_position(std::uint64_t position) const {
  return position >= kSegmentHeaderBytes && position <= header_.last_batch &&
         position % kBatchAlignment == 0;
}

Result<const std::vector<SegmentIndex::Place>*> SegmentIndex::places() const {
  MutexLock lock(parts_->mutex);
  if (parts_->places) return &*parts_->places;
  MILLRACE_ASSIGN_OR_RETURN(const std::string bytes,
                            read_part(header_.places_at(), header_.places_bytes()));
  std::vector<Place> places;
  places.reserve(header_.places);
  for (ByteReader in(bytes); in.remaining() != 0;) {
    const Place place{in.u64_le(), in.u64_le(), static_cast<std::int64_t>(in.u64_le())};
    const bool ordered = places.empty() ? place.position == kSegmentHeaderBytes
                                        : place.position > places.back().position &&
                                              place.offset >= places.back().offset &&
                                              place.commit_max >= places.back().commit_max;
    if (!ordered || !is_batch_position(place.position)) return damaged();
    places.push_back(place);
  }
  return &parts_->places.emplace(std::move(places));
}

Result<const SegmentIndex::Directory*> SegmentIndex::directory() const {
  MutexLock lock(parts_->mutex);
  if (parts_->directory) return &*parts_->directory;
  MILLRACE_ASSIGN_OR_RETURN(std::string bytes,
                            read_part(header_.directory_at(), header_.directory_bytes));
  MILLRACE_ASSIGN_OR_RETURN(auto directory, parse_directory(std::move(bytes)));
  return &parts_->directory.emplace(std::move(directory));
}

Result<SegmentIndex::Directory> SegmentIndex::parse_directory(std::string bytes) const {
  Directory directory;
  directory.bytes = std::make_unique<const std::string>(std::move(bytes));
  ByteReader in(*directory.bytes);
  directory.ends_count = in.varint();
  directory.ends = in.bytes(in.varint());
  for (std::uint64_t left = in.varint(); left != 0 && !in.failed(); --left) {
    CategoryEntry entry;
    entry.name = in.bytes(in.varint());
    for (std::uint64_t* value : {&entry.events, &entry.bytes, &entry.tombstones,
                                 &entry.category_tombstones, &entry.partials, &entry.keys})
      *value = in.varint();
    entry.first.value = header_.segment + in.varint();
    entry.last.value = entry.first.value + in.varint();
    entry.batches = in.varint();
    entry.postings = in.bytes(in.varint());
    const bool ordered =
        directory.categories.empty() || directory.categories.back().name < entry.name;
    if (!ordered || entry.batches > entry.postings.size()) in.fail();
    directory.categories.push_back(entry);
  }
  if (in.failed() || in.remaining() != 0 || directory.ends_count > directory.ends.size())
    return damaged();
  return directory;
}

Result<const SegmentIndex::Lookup*> SegmentIndex::lookup() const {
  MutexLock lock(parts_->mutex);
  if (parts_->lookup) return &*parts_->lookup;
  MILLRACE_ASSIGN_OR_RETURN(std::string bytes,
                            read_part(header_.lookup_at(), header_.lookup_bytes()));
  Lookup lookup;
  lookup.fences.resize(header_.blocks());
  for (std::size_t i = 0; i < lookup.fences.size(); ++i)
    lookup.fences[i] = load_le<std::uint64_t>(bytes.data() + i * 8);
  if (!std::is_sorted(lookup.fences.begin(), lookup.fences.end())) return damaged();
  lookup.filter = bytes.substr(lookup.fences.size() * 8);
  return &parts_->lookup.emplace(std::move(lookup));
}

Result<void> SegmentIndex::find(std::uint64_t hash, std::vector<std::uint64_t>& positions) const {
  positions.clear();
  MILLRACE_ASSIGN_OR_RETURN(const Lookup* lookup, this->lookup());
  if (!may_hold(hash, lookup->filter.data(), header_.filter_blocks())) return {};
  // Its first entry is in the last block that begins below it, or begins the next one.
  const auto& fences = lookup->fences;
  auto fence = std::lower_bound(fences.begin(), fences.end(), hash);
  if (fence != fences.begin()) --fence;
  for (; fence != fences.end() && *fence <= hash; ++fence) {
    MILLRACE_ASSIGN_OR_RETURN(
        const bool goes_on,
        find_in_block(static_cast<std::uint64_t>(fence - fences.begin()), hash, positions));
    if (!goes_on) break;
  }
  return {};
}

/// True if more of `hash` may be in the next block.
Result<bool> SegmentIndex::find_in_block(std::uint64_t block, std::uint64_t hash,
                                         std::vector<std::uint64_t>& positions) const {
  constexpr std::size_t kPositionsAt = kIndexBlockEntries * 8;
  const std::uint64_t block_at = header_.blocks_at() + block * kIndexBlockBytes;
  char bytes[kIndexBlockBytes];
  MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file_->read_at(block_at, bytes));
  constexpr std::size_t kChecked = kIndexBlockBytes - kIndexChecksumBytes;
  if (count != sizeof bytes || load_le<std::uint64_t>(bytes + kChecked) !=
                                   index_checksum({bytes, kChecked}, header_, block_at))
    return damaged();
  const std::size_t entries = static_cast<std::size_t>(
      std::min<std::uint64_t>(kIndexBlockEntries, header_.entries - block * kIndexBlockEntries));
  const auto hash_at = [&](std::size_t i) { return load_le<std::uint64_t>(bytes + i * 8); };
  std::size_t low = 0, high = entries;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    hash_at(middle) < hash ? low = middle + 1 : high = middle;
  }
  for (; low < entries && hash_at(low) == hash; ++low) {
    const std::uint64_t position =
        std::uint64_t{load_le<std::uint32_t>(bytes + kPositionsAt + low * 4)} * kBatchAlignment;
    if (!is_batch_position(position) || (!positions.empty() && position <= positions.back()))
      return damaged();
    positions.push_back(position);
  }
  return low == entries;
}

Result<std::span<const CategoryEntry>> SegmentIndex::categories() const {
  MILLRACE_ASSIGN_OR_RETURN(const Directory* directory, this->directory());
  return std::span<const CategoryEntry>(directory->categories);
}

Result<std::vector<std::uint64_t>> SegmentIndex::decode_postings(std::string_view bytes,
                                                                 std::uint64_t count) const {
  std::vector<std::uint64_t> positions;
  positions.reserve(count);
  std::uint64_t last = kSegmentHeaderBytes;
  for (ByteReader in(bytes); in.remaining() != 0;) {
    const std::uint64_t step = in.varint();
    if (step > header_.used_bytes / kBatchAlignment || (step == 0 && !positions.empty()))
      return damaged();
    last += step * kBatchAlignment;
    if (in.failed() || !is_batch_position(last)) return damaged();
    positions.push_back(last);
  }
  if (positions.size() != count) return damaged();
  return positions;
}

Result<std::vector<std::uint64_t>> SegmentIndex::postings(std::string_view category) const {
  MILLRACE_ASSIGN_OR_RETURN(const auto all, categories());
  const auto entry =
      std::lower_bound(all.begin(), all.end(), category,
                       [](const CategoryEntry& a, std::string_view name) { return a.name < name; });
  if (entry == all.end() || entry->name != category) return std::vector<std::uint64_t>();
  return decode_postings(entry->postings, entry->batches);
}

Result<std::vector<std::uint64_t>> SegmentIndex::transaction_ends() const {
  MILLRACE_ASSIGN_OR_RETURN(const Directory* directory, this->directory());
  return decode_postings(directory->ends, directory->ends_count);
}

Result<std::uint64_t> SegmentIndex::seek(Offset offset) const {
  MILLRACE_ASSIGN_OR_RETURN(const auto* places, this->places());
  const auto behind = std::upper_bound(
      places->begin(), places->end(), offset.value,
      [](std::uint64_t value, const Place& place) { return value < place.offset; });
  return behind == places->begin() ? kSegmentHeaderBytes : (behind - 1)->position;
}

Result<std::uint64_t> SegmentIndex::seek_time(UnixMicros time) const {
  MILLRACE_ASSIGN_OR_RETURN(const auto* places, this->places());
  const auto behind = std::lower_bound(
      places->begin(), places->end(), time.value,
      [](const Place& place, std::int64_t value) { return place.commit_max < value; });
  return behind == places->begin() ? kSegmentHeaderBytes : (behind - 1)->position;
}

}  // namespace millrace::log
