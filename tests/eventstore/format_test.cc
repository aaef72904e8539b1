#include "eventstore/log/format.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <optional>

#include "base/bytes.h"
#include "base/checksum.h"
#include "eventstore/log/batch_builder.h"
#include "eventstore/log/batch_packer.h"
#include "eventstore/log/codec.h"
#include "eventstore/log_reader.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using millrace::test::must;

namespace {

class FixedClock final : public Clock {
 public:
  Monotonic monotonic() override { return {}; }
  UnixMicros wall() override { return {1'767'225'600'000'000}; }  // 2026-01-01
};

constexpr std::uint64_t kSegment = 1000;

StoreId sample_id() {
  StoreId id;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<char>(i + 1);
  return id;
}

SegmentHeader sample_segment() {
  return {.store = sample_id(),
          .segment = kSegment,
          .created = {1'767'225'600'000'001},
          .predecessor =
              SegmentHeader::Predecessor{
                  .segment = 10, .bytes_used = 8192, .chain = 0x1122334455667788},
          .mark = {.end = {990},
                   .segment = 10,
                   .position = 4352,
                   .source = {.epoch = 2, .commit = 0x1c0ed598, .end = 0x1c0ed5f8},
                   .commit_time = {1'767'225'600'000'002}}};
}

std::string sample_page() {
  std::string page(kSegmentHeaderBytes, '\0');
  encode_segment_header(sample_segment(), page.data());
  return page;
}

/// One batch with each part that a record can have, as it lies behind sample_page.
std::string sample_batch() {
  FixedClock clock;
  ByteBuffer buffer;
  BatchBuilder builder(buffer, clock);
  builder.begin({.source = {.epoch = 2, .commit = 0x1c0ed600, .end = 0},
                 .source_xid = 771,
                 .commit_time = {1'767'225'600'000'003},
                 .snapshot = false},
                {kSegment}, 1 << 20);
  builder.add(
      {.category = "public.orders", .key = "42", .type = "", .payload = "new row", .metadata = ""});
  builder.add(
      {.category = "cart", .key = "9f3a", .type = "ItemAdded", .payload = "data", .metadata = "m"});
  builder.add({.category = "public.orders",
               .key = "42",
               .type = "",
               .payload = "",
               .metadata = "",
               .flags = EventFlags::kTombstone});
  builder.commit(0x1c0ed660);
  BatchPacker(Compression::kNone).pack(buffer.span());
  std::string batch(buffer.view());
  stamp_batch_header(batch.data(), chain_after_page(sample_page()), kSegmentHeaderBytes,
                     HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes));
  return batch;
}

/// A hundred changes of one table, compressed; it follows sample_page too.
std::string sample_compressed_batch() {
  FixedClock clock;
  ByteBuffer buffer;
  BatchBuilder builder(buffer, clock);
  builder.begin({.source = {.epoch = 2, .commit = 0x1c0ed600, .end = 0},
                 .source_xid = 771,
                 .commit_time = {1'767'225'600'000'003},
                 .snapshot = false},
                {kSegment}, 1 << 20);
  for (int i = 0; i < 100; ++i) {
    const std::string key = std::to_string(i), payload = "row number " + key;
    builder.add(
        {.category = "public.orders", .key = key, .type = "", .payload = payload, .metadata = ""});
  }
  builder.commit(0x1c0ed660);
  const auto packed = BatchPacker(Compression::kZstd).pack(buffer.span());
  std::string batch(packed.begin(), packed.end());
  stamp_batch_header(batch.data(), chain_after_page(sample_page()), kSegmentHeaderBytes,
                     HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes));
  return batch;
}

std::string golden(const std::string& name) {
  std::ifstream file(std::string(MILLRACE_SOURCE_DIR "/tests/golden/") + name);
  std::string hex;
  for (std::istreambuf_iterator<char> byte(file), end; byte != end; ++byte)
    if (std::isxdigit(static_cast<unsigned char>(*byte)) != 0) hex += *byte;
  return must(from_hex(hex));
}

BatchHeader decode(const std::string& batch) {
  BatchHeader header;
  REQUIRE(decode_batch_header(batch.data(),
                              HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes),
                              header) == BatchFault::kNone);
  return header;
}

/// A batch with `records` and `tail` as payload, to be decoded.
Batch batch_of(std::string_view payload, std::uint32_t names_at, std::uint32_t count,
               std::uint32_t span) {
  Batch batch;
  BatchHeader header;
  header.base = 100;
  header.span = span;
  header.count = count;
  header.names_at = names_at;
  batch.load(header, payload, Offset{0});
  return batch;
}

std::vector<std::uint64_t> offsets_of(Batch& batch) {
  std::vector<std::uint64_t> offsets;
  while (const EventView* event = batch.next()) offsets.push_back(event->offset.value);
  return offsets;
}

}  // namespace

TEST_CASE("the bytes of a segment header are those of version 1 for ever", "[eventstore][format]") {
  const std::string page = sample_page();
  CHECK(to_hex(std::string_view(page).substr(0, 136)) + to_hex(page.substr(4088)) ==
        to_hex(golden("log_segment_header.hex")));
  CHECK(page.substr(136, 4088 - 136) == std::string(4088 - 136, '\0'));
  const SegmentHeader header = must(decode_segment_header(page)), expected = sample_segment();
  CHECK(header.store == expected.store);
  CHECK(header.segment == expected.segment);
  CHECK(header.created == expected.created);
  CHECK(header.predecessor == expected.predecessor);
  CHECK(header.mark == expected.mark);
}

TEST_CASE("the bytes of a batch are those of version 1 for ever", "[eventstore][format]") {
  const std::string batch = sample_batch();
  CHECK(to_hex(batch) == to_hex(golden("log_batch.hex")));
}

TEST_CASE("a batch from another hand is read as its bytes say", "[eventstore][format]") {
  const std::string bytes = golden("log_batch.hex");
  const BatchHeader header = decode(bytes);
  CHECK(header.length == bytes.size());
  CHECK(header.base == kSegment);
  CHECK(header.count == 3);
  CHECK(header.flags == (kFirstOfTransaction | kLastOfTransaction));
  CHECK(header.synced_position == kSegmentHeaderBytes);
  CHECK(header.payload_checksum == checksum(std::string_view(bytes).substr(kBatchHeaderBytes)));
  Batch batch;
  batch.load(header, std::string_view(bytes).substr(kBatchHeaderBytes, header.payload_bytes), {});
  CHECK(batch.info.source == SourcePosition{.epoch = 2, .commit = 0x1c0ed600, .end = 0x1c0ed660});
  CHECK(batch.info.source_xid == 771);
  CHECK(batch.info.commit_time.value == 1'767'225'600'000'003);
  CHECK(batch.append_time.value == 1'767'225'600'000'000);
  const EventView* event = batch.next();
  CHECK((event->category == "public.orders" && event->key == "42" && event->payload == "new row"));
  event = batch.next();
  CHECK((event->category == "cart" && event->type == "ItemAdded" && event->metadata == "m"));
  event = batch.next();
  CHECK((event->flags == EventFlags::kTombstone && event->payload.empty()));
  CHECK(batch.next() == nullptr);
  CHECK(batch.status());
}

TEST_CASE("a compressed batch from another hand is read as its bytes say", "[eventstore][format]") {
  // What zstd writes may change with its version; what it has written must be read for ever.
  for (const std::string& bytes : {golden("log_batch_zstd.hex"), sample_compressed_batch()}) {
    const BatchHeader header = decode(bytes);
    CHECK(header.length == bytes.size());
    CHECK(header.codec == Codec::kZstd);
    CHECK(header.count == 100);
    CHECK(header.payload_bytes < header.raw_bytes / 2);
    CHECK(header.payload_checksum == checksum(std::string_view(bytes).substr(kBatchHeaderBytes)));
    Decompressor decompressor;
    const auto payload = decompressor.decompress(
        std::string_view(bytes).substr(kBatchHeaderBytes, header.payload_bytes), header.raw_bytes);
    REQUIRE(payload);
    Batch batch;
    batch.load(header, *payload, {});
    for (int i = 0; i < 100; ++i) {
      const EventView* event = batch.next();
      REQUIRE(event != nullptr);
      CHECK((event->category == "public.orders" && event->key == std::to_string(i) &&
             event->payload == "row number " + std::to_string(i)));
    }
    CHECK(batch.next() == nullptr);
    CHECK(batch.status());
  }
}

TEST_CASE("a header counts only in its own place, segment and store", "[eventstore][format]") {
  const std::string batch = sample_batch();
  BatchHeader header;
  const auto fault = [&](const HeaderSeal& seal, std::uint64_t position) {
    return decode_batch_header(batch.data(), seal.at(position), header);
  };
  StoreId other = sample_id();
  other.bytes[3] = 0;
  CHECK(fault(HeaderSeal(sample_id(), kSegment), kSegmentHeaderBytes) == BatchFault::kNone);
  CHECK(fault(HeaderSeal(sample_id(), kSegment), kSegmentHeaderBytes + 8) ==
        BatchFault::kHeaderChecksum);
  CHECK(fault(HeaderSeal(sample_id(), kSegment + 1), kSegmentHeaderBytes) ==
        BatchFault::kHeaderChecksum);
  CHECK(fault(HeaderSeal(other, kSegment), kSegmentHeaderBytes) == BatchFault::kHeaderChecksum);
}

TEST_CASE("B21: a segment or batch that needs a newer version is refused as such",
          "[eventstore][format]") {
  std::string page = sample_page();
  const auto seal_page = [&] {
    store_le<std::uint64_t>(page.data() + 4088, checksum({page.data(), 4088}));
  };
  store_le<std::uint32_t>(page.data() + 12, 2);
  CHECK(decode_segment_header(page).error().code() ==
        ErrorCode::kCorruption);  // a flipped bit, perhaps
  seal_page();
  CHECK(decode_segment_header(page).error().code() == ErrorCode::kUnsupported);
  page = sample_page();
  store_le<std::uint32_t>(page.data() + 128, 1);  // rewritten, and ends nowhere
  seal_page();
  CHECK(decode_segment_header(page).error().code() == ErrorCode::kCorruption);

  const std::uint64_t seal = HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes);
  BatchHeader header;
  for (const std::size_t at : {std::size_t{33}, std::size_t{34}}) {  // a flag, a codec
    std::string batch = sample_batch();
    batch[at] = 2;
    stamp_batch_header(batch.data(), 0, 0, seal);
    CHECK(decode_batch_header(batch.data(), seal, header) == BatchFault::kUnsupported);
  }
}

TEST_CASE("B22: header fields that can't be are refused before they are used",
          "[eventstore][format]") {
  const std::uint64_t seal = HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes);
  const auto fault_with = [&](std::size_t at, std::uint32_t value) {
    std::string batch = sample_batch();
    store_le<std::uint32_t>(batch.data() + at, value);
    stamp_batch_header(batch.data(), 0, 0, seal);
    BatchHeader header;
    return decode_batch_header(batch.data(), seal, header);
  };
  for (const std::uint32_t value : {0u, 8u, 127u, 1u << 31, 0xffffffffu}) {
    CHECK(fault_with(4, value) == BatchFault::kFields);   // length
    CHECK(fault_with(36, value) == BatchFault::kFields);  // payload bytes
  }
  CHECK(fault_with(44, 0xffffffffu) == BatchFault::kFields);  // tail beyond the payload
  CHECK(fault_with(20, 4) == BatchFault::kFields);            // more events than offsets
  CHECK(fault_with(40, 0xffffffffu) == BatchFault::kFields);  // raw bytes, without a codec
  CHECK(fault_with(112, 1) == BatchFault::kFields);           // reserved
}

TEST_CASE("B23: records that make no sense end the batch, whatever its checksum",
          "[eventstore][format]") {
  const std::string bytes = sample_batch();
  const BatchHeader header = decode(bytes);
  const std::string payload = bytes.substr(kBatchHeaderBytes, header.payload_bytes);
  std::mt19937_64 random(5);
  for (int round = 0; round < 100'000; ++round) {
    std::string damaged = payload;
    for (std::uint64_t changes = 1 + random() % 3; changes != 0; --changes)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    Batch batch;
    batch.load(header, damaged, {});
    std::uint32_t events = 0;
    while (const EventView* event = batch.next()) {
      ++events;
      // Every view lies in the payload.
      for (const std::string_view part :
           {event->category, event->key, event->type, event->payload, event->metadata})
        REQUIRE((part.empty() || (part.data() >= damaged.data() &&
                                  part.data() + part.size() <= damaged.data() + damaged.size())));
    }
    REQUIRE(events <= 3);
    if (events < 3) REQUIRE_FALSE(batch.status());
    REQUIRE(batch.next() == nullptr);
  }
}

TEST_CASE("records may leave offsets out, carry a version, and a tail may have properties",
          "[eventstore][format]") {
  // What compaction, streams and idempotency keys will write can be read already.
  std::string payload;
  payload += std::string(
      "\x00\x00\x01"
      "a"
      "\x00",
      5);  // offset 100
  payload += std::string(
      "\x40\x03\x00\x01"
      "b"
      "\x00",
      6);  // three offsets left out: 104
  payload += std::string(
      "\x60\x01\x00\x96\x01\x01"
      "c"
      "\x00",
      8);  // one left out, version 150: 106
  const auto names_at = static_cast<std::uint32_t>(payload.size());
  payload += std::string(
                 "\x01\x07\x03"
                 "key",
                 6) +
             std::string(
                 "\x01\x03"
                 "cat",
                 5) +
             std::string(1, '\0');
  Batch batch = batch_of(payload, names_at, 3, 8);
  CHECK(offsets_of(batch) == std::vector<std::uint64_t>{100, 104, 106});
  CHECK(batch.status());
  CHECK(batch.mentions({"cat"}));
  CHECK(batch.mentions({"a", "cat", "d"}));
  CHECK_FALSE(batch.mentions({"a", "ca", "cats"}));
  batch.rewind();
  std::vector<std::optional<std::uint64_t>> versions;
  while (const EventView* event = batch.next()) versions.push_back(event->version);
  CHECK(versions == std::vector<std::optional<std::uint64_t>>{std::nullopt, std::nullopt, 150});
  batch = batch_of(payload, names_at, 3, 6);  // beyond its span
  CHECK(offsets_of(batch) == std::vector<std::uint64_t>{100, 104});
  CHECK_FALSE(batch.status());
  batch = batch_of(payload, names_at, 2, 8);  // records that nobody counted
  CHECK(offsets_of(batch).size() == 2);
  CHECK_FALSE(batch.status());
}

TEST_CASE("the largest event fits into the lengths of a batch", "[eventstore][format]") {
  // Nothing of that size is made: the numbers alone.
  const std::uint64_t seal = HeaderSeal(sample_id(), kSegment).at(kSegmentHeaderBytes);
  const std::uint64_t payload_bytes = kEventBytesMax + 4096;
  const std::uint64_t length = align_up(kBatchHeaderBytes + payload_bytes, kBatchAlignment);
  REQUIRE(kEventBytesMax > std::size_t{2} << 30);
  REQUIRE(length <= std::numeric_limits<std::uint32_t>::max());
  const BatchHeader header{.length = static_cast<std::uint32_t>(length),
                           .span = 1,
                           .count = 1,
                           .flags = kFirstOfTransaction | kLastOfTransaction,
                           .payload_bytes = static_cast<std::uint32_t>(payload_bytes),
                           .raw_bytes = static_cast<std::uint32_t>(payload_bytes),
                           .names_at = static_cast<std::uint32_t>(kEventBytesMax),
                           .source = {},
                           .commit_time = {},
                           .append_time = {}};
  char bytes[kBatchHeaderBytes];
  encode_batch_header(header, bytes);
  stamp_batch_header(bytes, 0, 0, seal);
  BatchHeader decoded;
  REQUIRE(decode_batch_header(bytes, seal, decoded) == BatchFault::kNone);
  CHECK(decoded.length == length);
  CHECK(decoded.payload_bytes == payload_bytes);
  LogState state;
  state.advance(decoded, 0);
  CHECK(state.position() == length);
}

TEST_CASE("a batch is cut before the event that would make it too large", "[eventstore][format]") {
  FixedClock clock;
  ByteBuffer buffer;
  BatchBuilder builder(buffer, clock);
  builder.begin({}, {0}, 4096);
  const std::string payload(1000, 'p');
  for (int i = 0; i < 10; ++i)
    builder.add({.category = "c", .key = "k", .type = "", .payload = payload, .metadata = ""});
  builder.commit(0);
  std::vector<std::uint32_t> counts;
  for (std::size_t at = 0; at < buffer.size(); at += batch_length(buffer.data() + at))
    counts.push_back(load_le<std::uint32_t>(buffer.data() + at + 20));
  CHECK(counts == std::vector<std::uint32_t>{3, 3, 3, 1});
}
