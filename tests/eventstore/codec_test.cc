#include "eventstore/log/codec.h"

#include <zstd.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using namespace millrace::log;

namespace {

const Path kStore = "/store";
const Path kFirstSegment = "/store/log/00000000000000000000.log";

StoreOptions compressing(FaultFs& files) {
  StoreOptions options = small_options(files);
  options.compression = Compression::kZstd;
  return options;
}

void fill(FaultFs& files, const History& history) {
  const auto store = must(EventStore::open(kStore, compressing(files)));
  for (const StoredTransaction& transaction : history) must(append_durably(*store, transaction));
}

std::string text_of(std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += "line " + std::to_string(text.size()) + "\n";
  text.resize(bytes);
  return text;
}

std::string noise_of(std::size_t bytes) {
  std::mt19937_64 random(7);
  std::string noise(bytes, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  return noise;
}

/// A frame as zstd makes it with one setting changed.
std::string frame_of(std::string_view raw, ZSTD_cParameter parameter, int value) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, parameter, value);
  std::string frame(ZSTD_compressBound(raw.size()), '\0');
  const std::size_t size =
      ZSTD_compress2(context, frame.data(), frame.size(), raw.data(), raw.size());
  ZSTD_freeCCtx(context);
  REQUIRE(ZSTD_isError(size) == 0);
  frame.resize(size);
  return frame;
}

std::string frame_of(std::string_view raw) { return frame_of(raw, ZSTD_c_compressionLevel, 1); }

BatchHeader header_of(const std::string& segment) {
  StoreId id;
  std::memcpy(id.bytes.data(), segment.data() + 16, id.bytes.size());
  BatchHeader header;
  REQUIRE(decode_batch_header(segment.data() + kSegmentHeaderBytes,
                              HeaderSeal(id, 0).at(kSegmentHeaderBytes),
                              header) == BatchFault::kNone);
  return header;
}

/// The first batch of `segment` with its payload replaced, every checksum right.
std::string forged(std::string segment, std::string_view payload) {
  const BatchHeader header = header_of(segment);
  REQUIRE(payload.size() == header.payload_bytes);
  StoreId id;
  std::memcpy(id.bytes.data(), segment.data() + 16, id.bytes.size());
  char* const batch = segment.data() + kSegmentHeaderBytes;
  std::memcpy(batch + kBatchHeaderBytes, payload.data(), payload.size());
  set_payload_checksum(batch,
                       checksum({batch + kBatchHeaderBytes, header.length - kBatchHeaderBytes}));
  stamp_batch_header(batch, header.chain, header.synced_position,
                     HeaderSeal(id, 0).at(kSegmentHeaderBytes));
  return segment;
}

}  // namespace

TEST_CASE("a payload that was compressed comes back, and one that would not shrink stays",
          "[eventstore][codec]") {
  Compressor compressor;
  Decompressor decompressor;
  // Twice, for the memory is used again.
  for (int round = 0; round < 2; ++round) {
    for (const std::size_t bytes : {1536u, 2000u, 65'536u, 1'000'000u, 9'000'000u}) {
      const std::string text = text_of(bytes);
      const auto frame = compressor.compress(text);
      REQUIRE(frame);
      CHECK(frame->size() <= bytes - bytes / 8);
      const auto back = decompressor.decompress(*frame, bytes);
      REQUIRE(back);
      CHECK(*back == text);
      CHECK_FALSE(compressor.compress(noise_of(bytes)));
    }
    CHECK_FALSE(compressor.compress(text_of(200)));
    CHECK_FALSE(compressor.compress({}));
  }
  CHECK_FALSE(compressor.compress(std::string(kCompressedRawBytesMax + 1, 'x')));
}

TEST_CASE("B27: a frame that is cut, too long, of another size or needs a dictionary is refused",
          "[eventstore][codec]") {
  const std::string text = text_of(3000);
  const std::string frame = frame_of(text);
  Decompressor decompressor;
  for (std::size_t cut = 0; cut < frame.size(); ++cut)
    CHECK_FALSE(decompressor.decompress(frame.substr(0, cut), text.size()));
  CHECK_FALSE(decompressor.decompress(frame + '\0', text.size()));
  CHECK_FALSE(decompressor.decompress(frame + frame, text.size()));
  CHECK_FALSE(decompressor.decompress(frame + frame, 2 * text.size()));
  for (const std::size_t size :
       {std::size_t{0}, text.size() - 1, text.size() + 1, std::size_t{0xffffffff}})
    CHECK_FALSE(decompressor.decompress(frame, size));
  CHECK_FALSE(decompressor.decompress(frame_of(text, ZSTD_c_contentSizeFlag, 0), text.size()));
  const std::string dictionary = text_of(2000);
  std::string with_dictionary(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  with_dictionary.resize(ZSTD_compress_usingDict(context, with_dictionary.data(),
                                                 with_dictionary.size(), text.data(), text.size(),
                                                 dictionary.data(), dictionary.size(), 1));
  ZSTD_freeCCtx(context);
  CHECK_FALSE(decompressor.decompress(with_dictionary, text.size()));
  CHECK_FALSE(decompressor.decompress(noise_of(3000), text.size()));
  CHECK(decompressor.decompress(frame, text.size()) == text);  // and after all that it works
}

TEST_CASE("B27: random bytes in a frame never give other than the size that was asked for",
          "[eventstore][codec]") {
  const std::string frame = frame_of(text_of(3000));
  Decompressor decompressor;
  std::mt19937_64 random(11);
  for (int round = 0; round < 50'000; ++round) {
    std::string damaged = frame;
    for (std::uint64_t changes = 1 + random() % 4; changes != 0; --changes)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto raw = decompressor.decompress(damaged, 3000);
    if (raw) REQUIRE(raw->size() == 3000);
  }
}

TEST_CASE("B27: a bomb is refused by what its header says, before there is room for it",
          "[eventstore][codec]") {
  Decompressor decompressor;
  // 64 MiB of zeros in a few kilobytes is the most that is ever unpacked.
  const std::string zeros(kCompressedRawBytesMax, '\0');
  const std::string bomb = frame_of(zeros);
  CHECK(bomb.size() < zeros.size() / 1000);
  CHECK(decompressor.decompress(bomb, zeros.size()));
  CHECK_FALSE(decompressor.decompress(frame_of(zeros + '\0'), zeros.size() + 1));
  // One in a million: no real frame can be that, so its first bytes are enough.
  std::string header_only = bomb.substr(0, 60);
  CHECK_FALSE(decompressor.decompress(header_only, zeros.size()));

  // The batch header has the same bound.
  char bytes[kBatchHeaderBytes];
  const auto fault_of = [&](std::uint32_t payload_bytes, std::uint64_t raw_bytes) {
    encode_batch_header(
        {.length = static_cast<std::uint32_t>(align_up(kBatchHeaderBytes + payload_bytes, 8)),
         .span = 1,
         .count = 1,
         .flags = kFirstOfTransaction | kLastOfTransaction,
         .codec = Codec::kZstd,
         .payload_bytes = payload_bytes,
         .raw_bytes = static_cast<std::uint32_t>(raw_bytes),
         .source = {},
         .commit_time = {},
         .append_time = {}},
        bytes);
    stamp_batch_header(bytes, 0, 0, 1);
    BatchHeader header;
    return decode_batch_header(bytes, 1, header);
  };
  CHECK(fault_of(1000, kCompressedRawBytesMax) == BatchFault::kNone);
  CHECK(fault_of(1000, kCompressedRawBytesMax + 1) == BatchFault::kFields);
  CHECK(fault_of(1000, 1'000'000'000) == BatchFault::kFields);
  CHECK(fault_of(1000, 0xffffffff) == BatchFault::kFields);
  CHECK(fault_of(1000, 1000) == BatchFault::kFields);  // never written: nothing was saved
  CHECK(fault_of(1000, 0) == BatchFault::kFields);
}

TEST_CASE("B27: a good checksum over bytes that can't be decompressed is damage, and named",
          "[eventstore][codec]") {
  FaultFs files;
  fill(files, {sample_transaction(1, 10, 150)});
  const std::string segment = files.content(kFirstSegment);
  const std::uint32_t bytes = header_of(segment).payload_bytes;
  REQUIRE(header_of(segment).codec == Codec::kZstd);
  std::string frame = segment.substr(kSegmentHeaderBytes + kBatchHeaderBytes, bytes);
  std::string wrong_size = frame;
  wrong_size[5] = static_cast<char>(wrong_size[5] + 1);
  for (const std::string& payload : {noise_of(bytes), std::string(bytes, '\0'), wrong_size}) {
    files.set_content(kFirstSegment, forged(segment, payload));
    std::optional<Error> error;
    CHECK(read_history(kStore, files, &error).empty());
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::kCorruption);
    CHECK(error->message().find("batch payload compression") != std::string::npos);
    const auto report = must(verify_store(kStore, {}, files));
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].kind == "batch payload compression");
    CHECK(report.faults[0].position == kSegmentHeaderBytes);
    CHECK(EventStore::open(kStore, compressing(files)).error().code() == ErrorCode::kCorruption);
    CHECK(files.content(kFirstSegment) == forged(segment, payload));
  }
}

TEST_CASE("a log may be compressed in parts, and segments hold more of what is",
          "[eventstore][codec]") {
  History written;
  for (std::uint64_t number = 1; number <= 40; ++number)
    written.push_back(sample_transaction(number, number % 9 == 0 ? 1 : 20, 100));
  const auto fill_with = [&](FaultFs& files, bool even, bool odd) {
    for (std::size_t i = 0; i < written.size(); ++i) {
      StoreOptions options = small_options(files);
      if ((i / 5) % 2 == 0 ? even : odd) options.compression = Compression::kZstd;
      const auto store = must(EventStore::open(kStore, options));
      must(append_durably(*store, written[i]));
    }
    CHECK(read_history(kStore, files) == written);
    CHECK(must(verify_store(kStore, {}, files)).faults.empty());
    return files.names(kStore / "log").size();
  };
  FaultFs none, some, all;
  const std::size_t segments = fill_with(none, false, false);
  const std::size_t fewer = fill_with(some, true, false);
  const std::size_t fewest = fill_with(all, true, true);
  CHECK(fewest < fewer);
  CHECK(fewer < segments);
}

TEST_CASE("F29, F30: a compressed batch cut or damaged anywhere is found, and nothing of it served",
          "[eventstore][codec]") {
  const History written{sample_transaction(1, 20, 100), sample_transaction(2, 20, 100)};
  FaultFs files;
  fill(files, written);
  files.lose_power();
  files.erase(kStore / "HEAD");
  const std::string segment = files.content(kFirstSegment);
  REQUIRE(header_of(segment).codec == Codec::kZstd);
  const std::size_t second = kSegmentHeaderBytes + header_of(segment).length;
  const auto check = [&](const std::string& bytes) {
    const auto disk = files.clone();
    disk->set_content(kFirstSegment, bytes);
    std::optional<Error> error;
    const History read = read_history(kStore, *disk, &error);
    REQUIRE(is_prefix(read, written));
    REQUIRE(read.size() < 2);
    const auto store = EventStore::open(kStore, compressing(*disk));
    if (store) REQUIRE(is_prefix(read_history(kStore, *disk), written));
  };
  for (std::size_t cut = second; cut < segment.size(); ++cut) check(segment.substr(0, cut));
  for (std::size_t bit = kSegmentHeaderBytes * 8; bit < segment.size() * 8; ++bit) {
    std::string damaged = segment;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    check(damaged);
  }
}
