// The bytes of a store: segment header, batch header, compressed payload, records, HEAD. Most
// inputs fail their checksum at once, so the first byte may ask for it to be made right; it also
// says what the rest is.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "eventstore/log/codec.h"
#include "eventstore/log/format.h"
#include "eventstore/log/head.h"
#include "eventstore/log_reader.h"

namespace {

using namespace millrace;

constexpr std::size_t kRawBytesMax = 1 << 20;

/// `bytes`, cut or filled with zeros to `size`, with the checksum at the end made right.
std::string sealed(std::string_view bytes, std::size_t size, bool mend) {
  std::string page(bytes.substr(0, size));
  page.resize(size);
  const std::size_t at = size - 8;
  if (mend) store_le<std::uint64_t>(page.data() + at, checksum({page.data(), at}));
  return page;
}

void try_segment_header(std::string_view bytes, bool mend) {
  const std::string page = sealed(bytes, log::kSegmentHeaderBytes, mend);
  const auto header = log::decode_segment_header(page);
  if (!header) return;
  char again[log::kSegmentHeaderBytes];
  log::encode_segment_header(*header, again);
  const auto back = log::decode_segment_header({again, sizeof again});
  MILLRACE_CHECK(back.has_value());
  MILLRACE_CHECK(back->segment == header->segment && back->mark == header->mark);
  MILLRACE_CHECK(back->predecessor == header->predecessor);
  MILLRACE_CHECK(log::LogState(*header, page).mark() == header->mark);
}

void try_head(std::string_view bytes, bool mend) {
  const auto head = log::decode_head(sealed(bytes, log::kHeadBytes, mend));
  if (!head) return;
  char again[log::kHeadBytes];
  log::encode_head(*head, again);
  MILLRACE_CHECK(log::decode_head({again, sizeof again}) == head);
}

std::vector<EventView> events_of(Batch& batch, std::string_view payload) {
  std::vector<EventView> events;
  while (const EventView* event = batch.next()) {
    for (const std::string_view part :
         {event->category, event->key, event->type, event->payload, event->metadata})
      MILLRACE_CHECK(part.empty() ||
                     (part.data() >= payload.data() &&
                      part.data() + part.size() <= payload.data() + payload.size()));
    events.push_back(*event);
  }
  return events;
}

void try_records(const log::BatchHeader& header, std::string_view payload) {
  Batch batch;
  batch.load(header, payload, Offset{0});
  const auto events = events_of(batch, payload);
  MILLRACE_CHECK(events.size() <= header.count);
  MILLRACE_CHECK(events.size() == header.count || !batch.status());
  for (std::size_t i = 0; i < events.size(); ++i) {
    const std::uint64_t place = events[i].offset.value - header.base;
    MILLRACE_CHECK(place < header.span);
    MILLRACE_CHECK(i == 0 || place > events[i - 1].offset.value - header.base);
    MILLRACE_CHECK(batch.mentions({std::string(events[i].category)}));
  }
  const bool good = batch.status().has_value();
  batch.rewind();
  MILLRACE_CHECK(!good || events_of(batch, payload).size() == events.size());
}

void try_batch(std::string_view bytes, bool mend) {
  std::string header_bytes(bytes.substr(0, log::kBatchHeaderBytes));
  header_bytes.resize(log::kBatchHeaderBytes);
  const std::string_view payload =
      bytes.substr(std::min<std::size_t>(bytes.size(), log::kBatchHeaderBytes));
  const std::uint64_t seal = log::HeaderSeal({}, 0).at(log::kSegmentHeaderBytes);
  if (mend) log::stamp_batch_header(header_bytes.data(), 0, 0, seal);
  log::BatchHeader header;
  if (log::decode_batch_header(header_bytes.data(), seal, header) == log::BatchFault::kNone) {
    char again[log::kBatchHeaderBytes];
    log::encode_batch_header(header, again);
    log::stamp_batch_header(again, header.chain, header.synced_position, seal);
    MILLRACE_CHECK(std::memcmp(again, header_bytes.data(), sizeof again) == 0);
    log::LogState state;
    if (state.check(header) == log::BatchFault::kNone) state.advance(header, 0);
  }
  // Records, whatever the header's checksum is.
  header = {.base = load_le<std::uint64_t>(header_bytes.data() + log::kBatchBaseAt),
            .span = load_le<std::uint32_t>(header_bytes.data() + 16),
            .count = load_le<std::uint32_t>(header_bytes.data() + 20),
            .names_at = load_le<std::uint32_t>(header_bytes.data() + 44),
            .source = {},
            .commit_time = {},
            .append_time = {}};
  try_records(header, payload);
  const std::size_t raw_bytes = load_le<std::uint32_t>(header_bytes.data() + 40) % kRawBytesMax;
  const std::uint32_t stored_bytes = load_le<std::uint32_t>(header_bytes.data() + 36);
  log::Decompressor decompressor;
  const auto raw = decompressor.decompress(payload.substr(0, stored_bytes), raw_bytes);
  if (!raw) return;
  MILLRACE_CHECK(raw->size() == raw_bytes);
  try_records(header, *raw);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool mend = (data[0] & 1) != 0;
  switch (data[0] >> 1 & 3) {
    case 0: try_segment_header(rest, mend); break;
    case 1: try_head(rest, mend); break;
    default: try_batch(rest, mend); break;
  }
  return 0;
}
