#include "eventstore/log/index_builder.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::log {
namespace {

void append_bytes(std::string& out, std::string_view bytes) {
  append_varint(out, bytes.size());
  out += bytes;
}

}  // namespace

void IndexBuilder::Postings::add(std::uint64_t position) {
  append_varint(bytes, (position - last) / kBatchAlignment);
  last = position;
  ++count;
}

IndexBuilder::IndexBuilder(const SegmentReader& segment) {
  header_.store = segment.header().store;
  header_.segment = segment.header().segment;
  header_.page_chain = segment.state().chain();
}

Result<void> IndexBuilder::add(const SegmentReader::Found& found) {
  const BatchHeader& header = found.header;
  if (header.has(kControl)) {
    header_.last_batch = found.position;  // it has no events, and no time of its own
    return {};
  }
  const bool is_place =
      places_.empty() || found.position >= places_.back().position + kIndexPlaceStep;
  if (is_place)
    places_.push_back({header.base, found.position,
                       places_.empty() ? UnixMicros{std::numeric_limits<std::int64_t>::min()}
                                       : header_.commit_max});
  add_times(header);
  ++header_.batches;
  header_.last_batch = found.position;
  if (header.has(kLastOfTransaction) && !header.has(kFirstOfTransaction)) ends_.add(found.position);

  batch_.load(header, found.payload, Offset{0});
  batch_.segment = header_.segment;
  batch_.position = found.position;
  while (const EventView* event = batch_.next()) add_event(*event, found.position);
  MILLRACE_RETURN_IF_ERROR(batch_.status());
  add_properties(found.payload.substr(header.names_at), found.position);
  return {};
}

void IndexBuilder::add_times(const BatchHeader& header) {
  const bool first = header_.batches == 0;
  const auto widen = [first](UnixMicros time, UnixMicros& least, UnixMicros& greatest) {
    least = first ? time : std::min(least, time);
    greatest = first ? time : std::max(greatest, time);
  };
  widen(header.commit_time, header_.commit_min, header_.commit_max);
  widen(header.append_time, header_.append_min, header_.append_max);
}

void IndexBuilder::add_event(const EventView& event, std::uint64_t position) {
  const std::uint32_t number = names_.index_of(event.category);
  if (number == categories_.size()) categories_.emplace_back();
  Category& category = categories_[number];
  if (category.events++ == 0) category.first = event.offset.value;
  category.last = event.offset.value;
  category.bytes += event.key.size() + event.payload.size() + event.metadata.size();
  category.tombstones += has(event.flags, EventFlags::kTombstone) ? 1 : 0;
  category.category_tombstones += has(event.flags, EventFlags::kCategoryTombstone) ? 1 : 0;
  category.partials += has(event.flags, EventFlags::kPartial) ? 1 : 0;
  if (!category.postings.ends_with(position)) category.postings.add(position);
  ++header_.events;
  add_entry({stream_hash(event.category, event.key),
             static_cast<std::uint32_t>(position / kBatchAlignment), number});
}

void IndexBuilder::add_properties(std::string_view tail, std::uint64_t position) {
  ByteReader in(tail);  // which Batch has found to be right
  for (std::uint64_t left = in.varint(); left != 0 && !in.failed(); --left) {
    const std::uint64_t tag = in.varint();
    const std::string_view value = in.bytes(in.varint());
    const auto hash = tag == kIdempotencyKeyTag ? std::optional(idempotency_hash(value))
                      : tag == kErasedKeyTag    ? hash_of_erased(value)
                                                : std::nullopt;
    if (hash)
      add_entry({*hash, static_cast<std::uint32_t>(position / kBatchAlignment), kNoCategory});
  }
}

void IndexBuilder::add_entry(const Entry& entry) {
  auto& bucket = entries_[entry.hash >> 56];
  const bool repeated = !bucket.empty() && bucket.back().hash == entry.hash &&
                        bucket.back().position == entry.position &&
                        bucket.back().category == entry.category;
  if (repeated) return;
  // All buckets together are most of the memory that this takes: what they keep in reserve counts.
  if (bucket.size() == bucket.capacity()) bucket.reserve(bucket.size() + bucket.size() / 8 + 16);
  bucket.push_back(entry);
}

std::string IndexBuilder::finish(const SegmentReader& segment) && {
  header_.used_bytes = segment.state().position();
  header_.chain = segment.state().chain();
  header_.end = segment.end();
  header_.places = places_.size();
  sort_entries();

  std::string out(kIndexHeaderBytes, '\0');
  write_places(out);
  write_directory(out);
  header_.directory_bytes = out.size() - header_.directory_at();
  out.reserve(header_.file_bytes());
  write_lookup(out);
  write_blocks(out);
  MILLRACE_CHECK(out.size() == header_.file_bytes());
  encode_index_header(header_, out.data());
  MILLRACE_CHECK(decode_index_header(std::string_view(out).substr(0, kIndexHeaderBytes)) ==
                 header_);
  return out;
}

/// Sorts each bucket, counts what is in it, and leaves one entry for each (hash, batch).
void IndexBuilder::sort_entries() {
  for (auto& bucket : entries_) {
    std::sort(bucket.begin(), bucket.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.hash, a.position, a.category) < std::tie(b.hash, b.position, b.category);
    });
    count_keys(bucket);
    const auto same = [](const Entry& a, const Entry& b) {
      return a.hash == b.hash && a.position == b.position;
    };
    bucket.erase(std::unique(bucket.begin(), bucket.end(), same), bucket.end());
    header_.entries += bucket.size();
  }
}

/// Distinct hashes in all and for each category. Two keys of one category with one hash count once.
void IndexBuilder::count_keys(const std::vector<Entry>& bucket) {
  std::vector<std::uint32_t> seen;  // categories with this hash: nearly always one
  for (std::size_t i = 0; i < bucket.size(); ++i) {
    if (i == 0 || bucket[i].hash != bucket[i - 1].hash) {
      ++header_.hashes;
      seen.clear();
    }
    const std::uint32_t category = bucket[i].category;
    if (category == kNoCategory || std::find(seen.begin(), seen.end(), category) != seen.end())
      continue;
    seen.push_back(category);
    ++categories_[category].keys;
  }
}

void IndexBuilder::seal_part(std::string& out, std::size_t start) const {
  append_le(out, index_checksum(std::string_view(out).substr(start), header_, start));
}

void IndexBuilder::write_places(std::string& out) const {
  const std::size_t start = out.size();
  for (const Place& place : places_) {
    append_le(out, place.offset);
    append_le(out, place.position);
    append_le(out, static_cast<std::uint64_t>(place.commit_max.value));
  }
  seal_part(out, start);
}

void IndexBuilder::write_directory(std::string& out) const {
  const std::size_t start = out.size();
  append_varint(out, ends_.count);
  append_bytes(out, ends_.bytes);
  std::vector<std::uint32_t> by_name(categories_.size());
  std::iota(by_name.begin(), by_name.end(), 0);
  std::sort(by_name.begin(), by_name.end(),
            [this](std::uint32_t a, std::uint32_t b) { return names_.at(a) < names_.at(b); });
  append_varint(out, by_name.size());
  for (const std::uint32_t number : by_name) {
    const Category& category = categories_[number];
    append_bytes(out, names_.at(number));
    for (const std::uint64_t value :
         {category.events, category.bytes, category.tombstones, category.category_tombstones,
          category.partials, category.keys, category.first - header_.segment,
          category.last - category.first, category.postings.count})
      append_varint(out, value);
    append_bytes(out, category.postings.bytes);
  }
  seal_part(out, start);
}

void IndexBuilder::write_lookup(std::string& out) const {
  const std::size_t start = out.size();
  std::uint64_t number = 0;
  for (const auto& bucket : entries_)
    for (const Entry& entry : bucket)
      if (number++ % kIndexBlockEntries == 0) append_le(out, entry.hash);
  const std::size_t filter_at = out.size();
  out.resize(filter_at + header_.filter_blocks() * kIndexFilterBlockBytes);
  for (const auto& bucket : entries_)
    for (const Entry& entry : bucket)
      add_to_filter(entry.hash, out.data() + filter_at, header_.filter_blocks());
  seal_part(out, start);
}

void IndexBuilder::write_blocks(std::string& out) {
  constexpr std::size_t kPositionsAt = kIndexBlockEntries * 8;
  std::size_t filled = 0, start = out.size();
  const auto finish_block = [&] {
    seal_part(out, start);
    start = out.size();
    filled = 0;
  };
  for (auto& bucket : entries_) {
    for (const Entry& entry : bucket) {
      if (filled == 0) out.resize(start + kIndexBlockBytes - kIndexChecksumBytes);
      store_le<std::uint64_t>(out.data() + start + filled * 8, entry.hash);
      store_le<std::uint32_t>(out.data() + start + kPositionsAt + filled * 4, entry.position);
      if (++filled == kIndexBlockEntries) finish_block();
    }
    std::vector<Entry>().swap(bucket);  // the file grows as they go
  }
  if (filled != 0) finish_block();
}

}  // namespace millrace::log
