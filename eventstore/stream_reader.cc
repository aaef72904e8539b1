#include "eventstore/stream_reader.h"

#include <vector>

#include "eventstore/log/index_format.h"
#include "eventstore/log/stream_lookup.h"

namespace millrace {
namespace {

using log::StreamLookup;

class Reader final : public StreamReader {
 public:
  explicit Reader(std::unique_ptr<StreamLookup> lookup) : lookup_(std::move(lookup)) {}

  Result<void> read(const StreamName& stream, const StreamRange& range,
                    const Visit& visit) override;
  Result<std::optional<std::uint64_t>> last_version(const StreamName& stream) override;
  Result<bool> wait(std::chrono::milliseconds timeout, const std::stop_token& stop) override {
    return lookup_->wait(timeout, stop);
  }
  const StoreId& store_id() const override { return lookup_->store_id(); }

 private:
  std::unique_ptr<StreamLookup> lookup_;
  std::vector<EventView> events_;  // of one batch, of the stream that is read
};

bool is_in(const EventView& event, const StreamRange& range) {
  if (!range.from) return true;
  if (!event.version) return false;
  return range.direction == ReadDirection::kForward ? *event.version >= *range.from
                                                    : *event.version <= *range.from;
}

/// Asked of every event of a batch. Keys that lie together have mostly the same length, and other
/// last digits.
bool is_of(const EventView& event, const StreamName& stream) {
  return event.key.size() == stream.key.size() &&
         (event.key.empty() || event.key.back() == stream.key.back()) && event.key == stream.key &&
         event.category == stream.category;
}

Result<void> Reader::read(const StreamName& stream, const StreamRange& range, const Visit& visit) {
  if (range.limit == 0) return {};
  MILLRACE_RETURN_IF_ERROR(lookup_->refresh());
  const bool backward = range.direction == ReadDirection::kBackward;
  std::uint64_t left = range.limit;
  Result<void> batches;
  const auto take = [&](Batch& batch) {
    events_.clear();
    while (const EventView* event = batch.next())
      if (is_of(*event, stream) && is_in(*event, range)) events_.push_back(*event);
    batches = batch.status();
    if (!batches) return false;
    if (backward) std::reverse(events_.begin(), events_.end());
    for (const EventView& event : events_)
      if (!visit(event, batch.info) || --left == 0) return false;
    return true;
  };
  // Versions ascend in the log: what lies before the first one wanted need not be read.
  const auto is_before = [&](Batch& batch) {
    std::optional<bool> before;
    while (const EventView* event = batch.next()) {
      if (!event->version || !is_of(*event, stream)) continue;
      before = !is_in(*event, range);
      if (!*before) break;
    }
    if (!batch.status()) before = false;  // taken, it tells
    return before;
  };
  MILLRACE_RETURN_IF_ERROR(
      lookup_->visit(log::stream_hash(stream.category, stream.key), backward, take,
                     range.from ? StreamLookup::IsBefore(is_before) : nullptr));
  return batches;
}

Result<std::optional<std::uint64_t>> Reader::last_version(const StreamName& stream) {
  std::optional<std::uint64_t> last;
  MILLRACE_RETURN_IF_ERROR(read(stream, {.direction = ReadDirection::kBackward},
                                [&](const EventView& event, const TransactionInfo&) {
                                  last = event.version;
                                  return !last;  // captured events have none
                                }));
  return last;
}

}  // namespace

Result<std::unique_ptr<StreamReader>> StreamReader::open(const Path& store, FileSystem& files) {
  auto lookup = StreamLookup::open(files, store);
  if (!lookup) return std::move(lookup).error().context("read store " + store.string());
  return std::make_unique<Reader>(*std::move(lookup));
}

}  // namespace millrace
