#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "schemas/table_schema.h"

/// The bytes of the file `schemas`; no I/O here.
///
///     file   := header item*
///     header := "MILLSCHM" u32 version (1) u32 0 u64 XXH3-64 of the 16 bytes before
///     item   := u32 length u64 check length bytes
///
/// Numbers are little-endian. An item of length 0 is a mark: everything before it was on disk when
/// it was written. Any other holds a millrace.v1.TableSchema. `check` is XXH3-64 of the bytes,
/// seeded with the XXH3-64 of (u64 position of the item in the file, u32 length), so that an item
/// that lies elsewhere than where it was written is found.
///
/// A flush appends its records, syncs, appends a mark, syncs. So an item that fails its check was
/// torn by a crash if no mark follows it (nothing refers to it yet), and is damage if one does.
namespace millrace::registry_file {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 24;
inline constexpr std::size_t kItemHeaderBytes = 12;
/// 1600 columns with the longest names and some thousand retired ones stay far below.
inline constexpr std::uint32_t kRecordBytesMax = 16u << 20;
inline constexpr std::uint64_t kFileBytesMax = 1u << 30;

std::string encode_header();
/// Errors: kCorruption (no such header), kUnsupported (of a newer version).
Result<void> check_header(std::string_view bytes);

/// Appends `schema` as the item at `position`. Errors: kInvalidArgument (larger than
/// kRecordBytesMax).
Result<void> append_record(const TableSchema& schema, std::uint64_t position, std::string& out);
void append_mark(std::uint64_t position, std::string& out);

struct Record {
  std::uint64_t position = 0;
  TableSchema schema;
};
struct Scan {
  std::vector<Record> records;
  std::uint64_t end = 0;  ///< After the last whole item.
  /// The last mark; where there is none, where the items start. What is before it is on disk; it
  /// and what is behind it may not be.
  std::uint64_t mark = 0;
  bool marked = true;  ///< The last whole item is a mark, or there is none.
};

/// "byte 24: ..." as kCorruption, with what to do.
Error damage(std::uint64_t position, std::string_view what);

/// Reads the items in `bytes`, which lie at `position` in the file, up to the end or the torn tail.
/// Errors: kCorruption (an item that was durable is damaged, or can't be: names the byte),
/// kUnsupported (a kind of value that this version does not know).
Result<Scan> scan(std::string_view bytes, std::uint64_t position);

/// What must hold for any schema, from wherever it comes: names, numbers, kinds. The message says
/// what does not.
Result<void> check_schema(const TableSchema& schema);

}  // namespace millrace::registry_file
