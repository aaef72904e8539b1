#include "eventstore/log/index_format.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

constexpr std::string_view kIndexMagic("\x89MRIDX\r\n", 8);
constexpr std::size_t kChecksumAt = kIndexHeaderBytes - 8;
constexpr std::uint64_t kIdempotencySeed = 0x6d72'6964'656d'706f;  // any but 0
constexpr int kFilterBits = 6;

void put_time(char* to, UnixMicros time) {
  store_le<std::uint64_t>(to, static_cast<std::uint64_t>(time.value));
}

UnixMicros get_time(const char* from) {
  return {static_cast<std::int64_t>(load_le<std::uint64_t>(from))};
}

/// Calls `visit` with each of the hash's bits in the filter: byte and mask.
template <typename Visit>
bool each_bit(std::uint64_t hash, std::uint64_t blocks, Visit visit) {
  const std::uint64_t block = ((hash >> 32) * blocks) >> 32;
  std::uint32_t bits = static_cast<std::uint32_t>(hash);
  for (int i = 0; i < kFilterBits; ++i) {
    bits *= 0x9e3779b9;
    const std::uint32_t bit = bits >> 23;
    if (!visit(block * kIndexFilterBlockBytes + bit / 8, 1u << bit % 8)) return false;
  }
  return true;
}

/// What a header can't say, whoever wrote it. Decompressed, a segment may hold far more than its
/// size.
bool is_possible(const IndexHeader& header) {
  constexpr std::uint64_t kCountMax = std::uint64_t{1} << 48;
  const std::uint64_t used = header.used_bytes;
  if (used < kSegmentHeaderBytes || used > kIndexedSegmentBytesMax) return false;
  if (header.batches > used / kBatchHeaderBytes || header.last_batch >= used) return false;
  if (header.end.value < header.segment || header.end.value - header.segment > kCountMax)
    return false;
  if (header.events > header.end.value - header.segment) return false;
  // An entry for each event at most, and one more for each append.
  if (header.entries > header.events + header.batches || header.hashes > header.entries)
    return false;
  return header.places <= header.batches && header.directory_bytes >= kIndexChecksumBytes &&
         header.directory_bytes <= kCountMax;
}

}  // namespace

std::uint64_t stream_hash(std::string_view category, std::string_view key) {
  thread_local std::string name;
  name.assign(category);
  name += '\0';
  name += key;
  return checksum(name);
}

std::uint64_t idempotency_hash(std::string_view key) { return checksum(key, kIdempotencySeed); }

std::string erased_key(std::string_view key) {
  std::string erased;
  append_le<std::uint64_t>(erased, idempotency_hash(key));
  append_le<std::uint64_t>(erased, checksum(key, ~kIdempotencySeed));
  return erased;
}

std::optional<std::uint64_t> hash_of_erased(std::string_view erased) {
  if (erased.size() != 16) return std::nullopt;
  return load_le<std::uint64_t>(erased.data());
}

void encode_index_header(const IndexHeader& header, char* to) {
  std::memset(to, 0, kIndexHeaderBytes);
  std::memcpy(to, kIndexMagic.data(), kIndexMagic.size());
  store_le<std::uint32_t>(to + 8, kFormatVersion);
  store_le<std::uint32_t>(to + 12, kFormatVersion);
  std::memcpy(to + 16, header.store.bytes.data(), header.store.bytes.size());
  store_le<std::uint64_t>(to + 32, header.segment);
  store_le<std::uint64_t>(to + 40, header.page_chain);
  store_le<std::uint64_t>(to + 48, header.used_bytes);
  store_le<std::uint64_t>(to + 56, header.last_batch);
  store_le<std::uint64_t>(to + 64, header.chain);
  store_le<std::uint64_t>(to + 72, header.end.value);
  store_le<std::uint64_t>(to + 80, header.batches);
  store_le<std::uint64_t>(to + 88, header.events);
  put_time(to + 96, header.commit_min);
  put_time(to + 104, header.commit_max);
  put_time(to + 112, header.append_min);
  put_time(to + 120, header.append_max);
  store_le<std::uint64_t>(to + 128, header.entries);
  store_le<std::uint64_t>(to + 136, header.hashes);
  store_le<std::uint64_t>(to + 144, header.places);
  store_le<std::uint64_t>(to + 152, header.directory_bytes);
  store_le<std::uint64_t>(to + kChecksumAt, checksum({to, kChecksumAt}));
}

std::optional<IndexHeader> decode_index_header(std::string_view bytes) {
  if (bytes.size() != kIndexHeaderBytes) return std::nullopt;
  if (bytes.substr(0, kIndexMagic.size()) != kIndexMagic) return std::nullopt;
  const char* from = bytes.data();
  if (load_le<std::uint64_t>(from + kChecksumAt) != checksum({from, kChecksumAt}))
    return std::nullopt;
  if (load_le<std::uint32_t>(from + 12) > kFormatVersion) return std::nullopt;
  IndexHeader header;
  std::memcpy(header.store.bytes.data(), from + 16, header.store.bytes.size());
  header.segment = load_le<std::uint64_t>(from + 32);
  header.page_chain = load_le<std::uint64_t>(from + 40);
  header.used_bytes = load_le<std::uint64_t>(from + 48);
  header.last_batch = load_le<std::uint64_t>(from + 56);
  header.chain = load_le<std::uint64_t>(from + 64);
  header.end = {load_le<std::uint64_t>(from + 72)};
  header.batches = load_le<std::uint64_t>(from + 80);
  header.events = load_le<std::uint64_t>(from + 88);
  header.commit_min = get_time(from + 96);
  header.commit_max = get_time(from + 104);
  header.append_min = get_time(from + 112);
  header.append_max = get_time(from + 120);
  header.entries = load_le<std::uint64_t>(from + 128);
  header.hashes = load_le<std::uint64_t>(from + 136);
  header.places = load_le<std::uint64_t>(from + 144);
  header.directory_bytes = load_le<std::uint64_t>(from + 152);
  if (!is_possible(header)) return std::nullopt;
  return header;
}

std::uint64_t index_checksum(std::string_view part, const IndexHeader& header,
                             std::uint64_t position) {
  return checksum(part, header.chain + position);
}

void add_to_filter(std::uint64_t hash, char* filter, std::uint64_t blocks) {
  each_bit(hash, blocks, [filter](std::uint64_t byte, unsigned mask) {
    filter[byte] = static_cast<char>(static_cast<unsigned char>(filter[byte]) | mask);
    return true;
  });
}

bool may_hold(std::uint64_t hash, const char* filter, std::uint64_t blocks) {
  if (blocks == 0) return false;
  return each_bit(hash, blocks, [filter](std::uint64_t byte, unsigned mask) {
    return (static_cast<unsigned char>(filter[byte]) & mask) != 0;
  });
}

}  // namespace millrace::log
