#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "eventstore/log/format.h"
#include "eventstore/types.h"

// The bytes of a sealed segment's index, little-endian; docs/log-format.md says the same at more
// length.
//
// clang-format off
// INDEX = header places directory lookup block*
//
// header, 256 bytes:
//     0  8 bytes 89 4D 52 49 44 58 0D 0A
//     8  u32 format version               12  u32 oldest version that can read it
//    16  16 bytes store id                32  u64 first offset of the segment
//    40  u64 chain value behind the segment's header page
//    48  u64 size of the segment          56  u64 where its last batch starts
//    64  u64 chain value behind its last batch
//    72  u64 first offset of the segment after it
//    80  u64 batches                      88  u64 events
//    96  i64 least commit time           104  i64 greatest
//   112  i64 least append time           120  i64 greatest
//   128  u64 entries of the key index    136  u64 distinct hashes in it
//   144  u64 places                      152  u64 size of the directory, its checksum included
//   160  zeros                           248  u64 XXH3-64 of all before
//
// places    = place(24 bytes)* checksum
// place     = u64 offset, u64 position, i64 greatest commit time of all batches before it
//             (of the first place: the least that there is)
// directory = varint count, bytes postings     of batches that end a transaction of several
//             varint count, of each: category; checksum
// category  = bytes name, varint events, varint bytes of them, varint tombstones, varint category tombstones,
//             varint partial ones, varint distinct keys, varint first offset - segment, varint last - first,
//             varint count, bytes postings
// postings  = varint*                          position / 8, less the one before (for the first: less 512)
// lookup    = u64(first hash of a block)* filter checksum
// block     = u64(hash)[84] u32(position / 8)[84] zeros(8) checksum: 1024 bytes
//
// checksum  = u64, XXH3-64 of the part before it, seeded with the chain value + where the part starts
// clang-format on
namespace millrace::log {

inline constexpr std::size_t kIndexHeaderBytes = 256;
inline constexpr std::size_t kIndexPlaceBytes = 24;
inline constexpr std::size_t kIndexBlockBytes = 1024;
inline constexpr std::size_t kIndexBlockEntries = 84;
inline constexpr std::size_t kIndexFilterBlockBytes = 64;
inline constexpr std::size_t kIndexChecksumBytes = 8;
/// So much of a segment lies between two places.
inline constexpr std::uint64_t kIndexPlaceStep = 32 << 10;
/// Positions are kept as eighths in 32 bits. A larger segment has no index.
inline constexpr std::uint64_t kIndexedSegmentBytesMax = std::uint64_t{8} << 32;

/// What identifies a stream in the key index.
std::uint64_t stream_hash(std::string_view category, std::string_view key);
/// What identifies the idempotency key of an append there.
std::uint64_t idempotency_hash(std::string_view key);
/// What stays in a batch of a key that is erased: 16 bytes, the first 8 of them its hash in the
/// index.
std::string erased_key(std::string_view key);
/// idempotency_hash() of the key that `erased` is of; nothing if it is none.
std::optional<std::uint64_t> hash_of_erased(std::string_view erased);

struct IndexHeader {
  StoreId store;
  std::uint64_t segment = 0;
  std::uint64_t page_chain = 0;  ///< chain_after_page: also tells one generation from another.
  std::uint64_t used_bytes = 0;
  std::uint64_t last_batch = 0;
  std::uint64_t chain = 0;
  Offset end;
  std::uint64_t batches = 0, events = 0;
  /// Of all batches, also those without events. All zero if the segment holds none.
  UnixMicros commit_min, commit_max, append_min, append_max;
  std::uint64_t entries = 0, hashes = 0;
  std::uint64_t places = 0;
  std::uint64_t directory_bytes = 0;

  bool operator==(const IndexHeader&) const = default;

  std::uint64_t blocks() const { return (entries + kIndexBlockEntries - 1) / kIndexBlockEntries; }
  /// About ten bits for each distinct hash.
  std::uint64_t filter_blocks() const { return (hashes * 10 + 511) / 512; }
  std::uint64_t places_at() const { return kIndexHeaderBytes; }
  std::uint64_t places_bytes() const { return places * kIndexPlaceBytes + kIndexChecksumBytes; }
  std::uint64_t directory_at() const { return places_at() + places_bytes(); }
  std::uint64_t lookup_at() const { return directory_at() + directory_bytes; }
  std::uint64_t lookup_bytes() const {
    return blocks() * 8 + filter_blocks() * kIndexFilterBlockBytes + kIndexChecksumBytes;
  }
  std::uint64_t blocks_at() const { return lookup_at() + lookup_bytes(); }
  std::uint64_t file_bytes() const { return blocks_at() + blocks() * kIndexBlockBytes; }
};

/// Fills `kIndexHeaderBytes` at `to`.
void encode_index_header(const IndexHeader& header, char* to);
/// Nothing if it is torn, of a newer format, or says what can't be: a header that passes here has
/// sizes that no arithmetic overflows on.
std::optional<IndexHeader> decode_index_header(std::string_view bytes);

/// The checksum of a part of the file that starts at `position`.
std::uint64_t index_checksum(std::string_view part, const IndexHeader& header,
                             std::uint64_t position);

/// A Bloom filter of 64-byte blocks (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient
/// Bloom Filters, 2007): all six bits of a hash lie in one of them.
void add_to_filter(std::uint64_t hash, char* filter, std::uint64_t blocks);
/// False if `hash` was never added.
bool may_hold(std::uint64_t hash, const char* filter, std::uint64_t blocks);

}  // namespace millrace::log
