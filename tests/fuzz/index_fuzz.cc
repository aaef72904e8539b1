// The index of a sealed segment, as a file: whatever its bytes are, each question gets an answer
// that is in bounds and in order, or an error. Most inputs fail a checksum at once, so the first
// byte may ask for all of them to be made right.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "eventstore/log/segment_index.h"

namespace {

using namespace millrace;
using namespace millrace::log;

class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::string bytes) : bytes_(std::move(bytes)) {}

  Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
    if (position >= bytes_.size()) return std::size_t{0};
    const std::size_t count = std::min(into.size(), bytes_.size() - position);
    std::memcpy(into.data(), bytes_.data() + position, count);
    return count;
  }
  Result<std::uint64_t> size() override { return std::uint64_t{bytes_.size()}; }
  Result<void> write_at(std::uint64_t, std::string_view) override { return refuse(); }
  Result<void> sync() override { return refuse(); }
  void start_writeback(std::uint64_t, std::uint64_t) override {}
  Result<void> truncate(std::uint64_t) override { return refuse(); }
  Result<void> allocate(std::uint64_t, std::uint64_t) override { return refuse(); }
  Result<std::uint64_t> identity() override { return std::uint64_t{1}; }

 private:
  static Error refuse() { return Error(ErrorCode::kIo, "read only"); }
  std::string bytes_;
};

void mend_part(std::string& bytes, const IndexHeader& header, std::uint64_t at,
               std::uint64_t size) {
  const std::string_view part = std::string_view(bytes).substr(at, size - kIndexChecksumBytes);
  store_le<std::uint64_t>(bytes.data() + at + part.size(), index_checksum(part, header, at));
}

/// Makes every checksum right, the header's first: it says where the parts are.
void mend(std::string& bytes) {
  if (bytes.size() < kIndexHeaderBytes) return;
  constexpr std::size_t kAt = kIndexHeaderBytes - 8;
  store_le<std::uint64_t>(bytes.data() + kAt, checksum({bytes.data(), kAt}));
  const auto header = decode_index_header(std::string_view(bytes).substr(0, kIndexHeaderBytes));
  if (!header || header->file_bytes() != bytes.size()) return;
  mend_part(bytes, *header, header->places_at(), header->places_bytes());
  mend_part(bytes, *header, header->directory_at(), header->directory_bytes);
  mend_part(bytes, *header, header->lookup_at(), header->lookup_bytes());
  for (std::uint64_t block = 0; block < header->blocks(); ++block)
    mend_part(bytes, *header, header->blocks_at() + block * kIndexBlockBytes, kIndexBlockBytes);
}

void check_positions(const Result<std::vector<std::uint64_t>>& positions,
                     const IndexHeader& header) {
  if (!positions) return;
  for (std::size_t i = 0; i < positions->size(); ++i) {
    const std::uint64_t position = (*positions)[i];
    MILLRACE_CHECK(position >= kSegmentHeaderBytes && position < header.used_bytes);
    MILLRACE_CHECK(position % kBatchAlignment == 0);
    MILLRACE_CHECK(i == 0 || position > (*positions)[i - 1]);
  }
}

void check_hash(const SegmentIndex& index, std::uint64_t hash) {
  std::vector<std::uint64_t> positions;
  if (index.find(hash, positions)) check_positions(positions, index.header());
}

void ask_everything(const SegmentIndex& index, std::string_view bytes) {
  const IndexHeader& header = index.header();
  if (const auto categories = index.categories()) {
    for (const CategoryEntry& entry : *categories)
      check_positions(index.postings(entry.name), header);
  }
  check_positions(index.postings("no such category"), header);
  check_positions(index.transaction_ends(), header);
  for (const std::uint64_t offset :
       {std::uint64_t{0}, header.segment, header.end.value, ~std::uint64_t{0}}) {
    for (const auto& position :
         {index.seek({offset}), index.seek_time({static_cast<std::int64_t>(offset)})})
      MILLRACE_CHECK(!position || (*position >= kSegmentHeaderBytes &&
                                   *position < std::max<std::uint64_t>(header.used_bytes,
                                                                       kSegmentHeaderBytes + 1)));
  }
  for (std::uint64_t block = 0; block < header.blocks(); ++block)
    for (std::size_t i = 0; i < kIndexBlockEntries; ++i)
      check_hash(index, load_le<std::uint64_t>(bytes.data() + header.blocks_at() +
                                               block * kIndexBlockBytes + i * 8));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) != 0) mend(bytes);
  if (bytes.size() >= kIndexHeaderBytes) {
    const auto header = decode_index_header(std::string_view(bytes).substr(0, kIndexHeaderBytes));
    if (header) {
      char again[kIndexHeaderBytes];
      encode_index_header(*header, again);
      MILLRACE_CHECK(decode_index_header({again, sizeof again}) == header);
    }
  }
  const auto index = SegmentIndex::open_file(std::make_unique<MemoryFile>(bytes));
  if (index) ask_everything(*index, bytes);
  return 0;
}
