#include "capture/state/stored_rows.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace millrace {
namespace {

/// A row put together from its newest event back: nothing but what is still wanted is kept.
class BackwardFold {
 public:
  /// False once there is nothing more to find under this key.
  Result<bool> take(const EventView& event) {
    MILLRACE_ASSIGN_OR_RETURN(const RowChange change, read_row_change(event.payload));
    if (change.op == 'm') return true;
    if (change.op == 'd' || change.op == 't' || !change.after) return false;
    RowState older{.exists = true,
                   .schema = change.schema,
                   .row = std::string(*change.after),
                   .unknown = change.unchanged};
    if (!row_.exists) {
      row_ = std::move(older);
    } else {
      const std::vector<std::uint32_t> wanted = std::exchange(row_.unknown, {});
      MILLRACE_RETURN_IF_ERROR(older.apply({.op = 'u',
                                            .schema = row_.schema,
                                            .before = {},
                                            .after = row_.row,
                                            .before_is_key = false,
                                            .unchanged = wanted,
                                            .moved_from = {}}));
      row_ = std::move(older);
      // What this event neither tells nor calls unchanged it knows as null: then nobody knows it.
      std::erase_if(row_.unknown, [&](std::uint32_t field) {
        const bool goes_on = std::ranges::find(change.unchanged, field) != change.unchanged.end();
        if (!goes_on) lost_.push_back(field);
        return !goes_on;
      });
    }
    if (change.moved_from && !row_.unknown.empty())
      moved_ = {std::string(*change.moved_from), before_move(event.offset)};
    return !row_.unknown.empty() && !moved_;
  }

  /// The key that the row had before, and where it left it, once its events under the present one
  /// are through.
  std::optional<std::pair<std::string, Offset>> take_move() { return std::exchange(moved_, {}); }

  RowState result() && {
    row_.unknown.insert(row_.unknown.end(), lost_.begin(), lost_.end());
    std::ranges::sort(row_.unknown);
    return std::move(row_);
  }

 private:
  RowState row_;  // `unknown` is what is still looked for
  std::vector<std::uint32_t> lost_;
  std::optional<std::pair<std::string, Offset>> moved_;
};

}  // namespace

Offset before_move(Offset moved) { return Offset{moved.value == 0 ? 0 : moved.value - 1}; }

Result<std::unique_ptr<StoredRows>> StoredRows::open(const Path& store, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, StreamReader::open(store, files));
  return std::unique_ptr<StoredRows>(new StoredRows(std::move(reader)));
}

Result<Offset> StoredRows::truncated_end(std::string_view category, Offset before) {
  Offset end{0};
  MILLRACE_RETURN_IF_ERROR(reader_->read({category, {}}, {.direction = ReadDirection::kBackward},
                                         [&](const EventView& event, const TransactionInfo&) {
                                           if (event.offset >= before ||
                                               !has(event.flags, EventFlags::kCategoryTombstone))
                                             return true;
                                           end = Offset{event.offset.value + 1};
                                           return false;
                                         }));
  return end;
}

Result<RowState> StoredRows::find(std::string_view category, std::string_view key, Offset from,
                                  Offset before) {
  BackwardFold fold;
  Result<void> folded;
  std::string present(key);
  int left = kEventsMax;
  for (int moves = 0; moves <= kMovesMax; ++moves) {
    MILLRACE_RETURN_IF_ERROR(reader_->read({category, present},
                                           {.direction = ReadDirection::kBackward},
                                           [&](const EventView& event, const TransactionInfo&) {
                                             if (event.offset >= before) return true;
                                             if (event.offset < from || left-- == 0) return false;
                                             auto more = fold.take(event);
                                             if (!more) folded = std::move(more).error();
                                             return more && *more;
                                           }));
    MILLRACE_RETURN_IF_ERROR(folded);
    auto move = fold.take_move();
    if (!move || left <= 0) break;
    std::tie(present, before) = *std::move(move);
  }
  return std::move(fold).result();
}

}  // namespace millrace
