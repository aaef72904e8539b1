#include "capture/pipeline/visibility.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace millrace {
namespace {

/// More are not remembered: then all that is known is forgotten, and found out anew.
constexpr std::size_t kStreamedMax = 1 << 18;

bool parse(std::string_view text, std::uint64_t& number) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

}  // namespace

Result<SourceSnapshot> parse_source_snapshot(std::string_view xmax, std::string_view open) {
  SourceSnapshot snapshot;
  bool good = parse(xmax, snapshot.xmax);
  while (good && !open.empty()) {
    const std::size_t comma = open.find(',');
    std::uint64_t xid = 0;
    good = parse(open.substr(0, comma), xid);
    snapshot.open.push_back(xid);
    open.remove_prefix(comma == std::string_view::npos ? open.size() : comma + 1);
  }
  if (!good) return Error(ErrorCode::kCorruption, "this is no snapshot of PostgreSQL's");
  std::sort(snapshot.open.begin(), snapshot.open.end());
  return snapshot;
}

void VisibilityCheck::reset() {
  begun_ = false;
  unknown_.clear();
  streamed_.clear();
}

void VisibilityCheck::streamed(std::uint32_t xid) {
  if (streamed_.size() >= kStreamedMax) reset();
  streamed_.insert(xid);
}

bool VisibilityCheck::sees_all(const SourceSnapshot& snapshot) {
  if (!begun_) unknown_ = {snapshot.open.begin(), snapshot.open.end()};
  begun_ = true;
  std::erase_if(unknown_, [&](std::uint64_t xid) {
    return !std::binary_search(snapshot.open.begin(), snapshot.open.end(), xid);
  });
  // What the stream had brought and this snapshot sees, every later one sees too.
  std::set<std::uint32_t> unseen;
  for (const std::uint64_t xid : snapshot.open)
    if (streamed_.contains(static_cast<std::uint32_t>(xid)))
      unseen.insert(static_cast<std::uint32_t>(xid));
  streamed_ = std::move(unseen);
  return unknown_.empty() && streamed_.empty();
}

}  // namespace millrace
