#include "eventstore/log/removal.h"

#include <algorithm>

#include "base/bytes.h"

namespace millrace::log {
namespace {

constexpr std::uint64_t kRemovalTag = 3;

std::string encode(const Removal& removal) {
  std::string value;
  value += static_cast<char>(removal.kind);
  append_varint(value, removal.first.value);
  append_varint(value, removal.last.value - removal.first.value);
  append_varint(value, removal.count);
  return value += removal.category;
}

Result<Removal> decode(std::string_view value) {
  ByteReader in(value);
  Removal removal;
  const std::uint8_t kind = in.u8();
  removal.kind = static_cast<RemovalKind>(kind);
  removal.first = {in.varint()};
  const std::uint64_t width = in.varint();
  removal.last = {removal.first.value + width};
  removal.count = in.varint();
  if (kind < 1 || kind > 4 || removal.last < removal.first || removal.count == 0 ||
      removal.count - 1 > width)
    in.fail();
  removal.category = in.bytes(in.remaining());
  return in.finish("what a segment lacks", std::move(removal));
}

}  // namespace

std::string_view name_of(RemovalKind kind) {
  switch (kind) {
    case RemovalKind::kExpired: return "expired";
    case RemovalKind::kErased: return "erased";
    case RemovalKind::kTombstone: return "tombstone";
    case RemovalKind::kLost: return "lost";
  }
  return "unknown";
}

Removal& RemovalList::find(std::string_view category, RemovalKind kind, Offset offset) {
  const auto is_it = [&](const Removal& removal) {
    return removal.kind == kind && removal.category == category;
  };
  if (last_ >= removals_.size() || !is_it(removals_[last_]))
    last_ = static_cast<std::size_t>(std::find_if(removals_.begin(), removals_.end(), is_it) -
                                     removals_.begin());
  if (last_ == removals_.size())
    removals_.push_back(
        {.category = std::string(category), .kind = kind, .first = offset, .last = offset});
  return removals_[last_];
}

void RemovalList::add(std::string_view category, RemovalKind kind, Offset offset) {
  Removal& removal = find(category, kind, offset);
  removal.first = std::min(removal.first, offset);
  removal.last = std::max(removal.last, offset);
  ++removal.count;
}

void RemovalList::add(const Removal& more) {
  Removal& removal = find(more.category, more.kind, more.first);
  removal.first = std::min(removal.first, more.first);
  removal.last = std::max(removal.last, more.last);
  removal.count += more.count;
}

// PAYLOAD of a control batch = the tail of a batch without records: properties, no names
// property 3 = u8 kind, varint first offset, varint last offset - first, varint count of events,
//              the rest: category
std::string encode_removals(const std::vector<Removal>& removals) {
  std::string payload;
  append_varint(payload, removals.size());
  for (const Removal& removal : removals) {
    const std::string value = encode(removal);
    append_varint(payload, kRemovalTag);
    append_varint(payload, value.size());
    payload += value;
  }
  append_varint(payload, 0);  // categories
  append_varint(payload, 0);  // types
  return payload;
}

Result<std::vector<Removal>> decode_removals(std::string_view payload) {
  ByteReader in(payload);
  std::vector<Removal> removals;
  for (std::uint64_t left = in.varint(); left != 0 && !in.failed(); --left) {
    const std::uint64_t tag = in.varint();
    const std::string_view value = in.bytes(in.varint());
    if (tag != kRemovalTag || in.failed()) continue;
    MILLRACE_ASSIGN_OR_RETURN(Removal removal, decode(value));
    removals.push_back(std::move(removal));
  }
  if (in.varint() != 0 || in.varint() != 0) in.fail();
  return in.finish("control batch", std::move(removals));
}

}  // namespace millrace::log
