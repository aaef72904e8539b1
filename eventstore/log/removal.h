#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "eventstore/types.h"

namespace millrace::log {

/// Why events are gone that no newer event stands for.
enum class RemovalKind : std::uint8_t {
  kExpired = 1,    ///< By the retention of their category or stream.
  kErased = 2,     ///< With their key; a tombstone at the log's end tells readers of it.
  kTombstone = 3,  ///< A deletion past its grace: who had not read it by then can't know of it.
  kLost = 4,       ///< To damage that was repaired: `category` is empty, `count` offsets of any.
};

/// "expired", "erased", "tombstone", "lost".
std::string_view name_of(RemovalKind kind);

/// What a rewritten segment lacks for good, of one category and one kind.
struct Removal {
  std::string category;
  RemovalKind kind = RemovalKind::kExpired;
  Offset first, last;
  std::uint64_t count = 0;
  bool operator==(const Removal&) const = default;
};

/// Sums up removals by category and kind; there are never more of them than that.
class RemovalList {
 public:
  RemovalList() = default;
  explicit RemovalList(std::vector<Removal> removals) : removals_(std::move(removals)) {}

  void add(std::string_view category, RemovalKind kind, Offset offset);
  void add(const Removal& removal);
  const std::vector<Removal>& all() const { return removals_; }

 private:
  Removal& find(std::string_view category, RemovalKind kind, Offset offset);

  std::vector<Removal> removals_;
  std::size_t last_ = 0;  // the one that was added to last
};

/// The payload of a control batch.
std::string encode_removals(const std::vector<Removal>& removals);
/// Errors: kCorruption.
Result<std::vector<Removal>> decode_removals(std::string_view payload);

}  // namespace millrace::log
