// A whole segment as the only one of a store, for everybody who walks over it: the reader, verify,
// whoever looks for the end, and repair. Most inputs fail a checksum at once, so the first byte may
// ask for all of them, and for the chain, to be made right; then the rest is what is not zero of
// the header page, and the batches.

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"
#include "eventstore/repair.h"
#include "tests/support/fault_fs.h"

namespace {

using namespace millrace;
using namespace millrace::log;

constexpr std::size_t kPageBytesUsed = 192;
const StorePaths kPaths{"/store"};
[[maybe_unused]] const bool is_quiet = (spdlog::set_level(spdlog::level::off), true);

StoreId id_in(std::string_view page) {
  StoreId id;
  std::copy_n(page.data() + 16, id.bytes.size(), id.bytes.begin());
  return id;
}

std::string mended(std::string_view bytes) {
  std::string segment(bytes.substr(0, kPageBytesUsed));
  segment.resize(kSegmentHeaderBytes);
  segment += bytes.substr(std::min(bytes.size(), kPageBytesUsed));
  constexpr std::size_t kAt = kSegmentHeaderBytes - 8;
  store_le<std::uint64_t>(segment.data() + kAt, checksum({segment.data(), kAt}));
  const HeaderSeal seal(id_in(segment), load_le<std::uint64_t>(segment.data() + 32));
  std::uint64_t chain = chain_after_page(std::string_view(segment).substr(0, kSegmentHeaderBytes));
  for (std::size_t at = kSegmentHeaderBytes; at + kBatchHeaderBytes <= segment.size();) {
    char* const header = segment.data() + at;
    const std::size_t length = batch_length(header);
    if (length < kBatchHeaderBytes || length % kBatchAlignment != 0 || length > segment.size() - at)
      break;
    set_payload_checksum(header,
                         checksum({header + kBatchHeaderBytes, length - kBatchHeaderBytes}));
    stamp_batch_header(header, chain, load_le<std::uint64_t>(header + 104), seal.at(at));
    chain = chain_after_batch(header);
    at += length;
  }
  return segment;
}

/// How many events it gives.
Result<std::uint64_t> read_all(FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                            LogReader::open(kPaths.directory, {.from = {}, .files = &files}));
  std::uint64_t events = 0, next = 0;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader->next());
    if (batch == nullptr) return events;
    while (const EventView* event = batch->next()) {
      MILLRACE_CHECK(event->offset.value >= next);
      next = event->offset.value + 1;
      ++events;
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
  }
}

void try_segment(const std::string& segment) {
  test::FaultFs files;
  MILLRACE_CHECK(files.make_directory(kPaths.directory).has_value());
  MILLRACE_CHECK(files.make_directory(kPaths.log()).has_value());
  MILLRACE_CHECK(write_description(files, kPaths, {.id = id_in(segment)}).has_value());
  files.set_content(kPaths.segment(load_le<std::uint64_t>(segment.data() + 32)), segment);
  const auto read = read_all(files);
  const auto report = verify_store(kPaths.directory, {}, files);
  // Verify looks at everything that a reader sees.
  if (report && report->faults.empty()) MILLRACE_CHECK(!read || *read <= report->events);
  static_cast<void>(summarize_store(kPaths.directory, files).has_value());
  const auto plan = plan_repair(kPaths.directory, files);
  if (!plan) return;
  const auto repaired = repair_store(kPaths.directory, files);
  if (!repaired) return;
  const auto again = plan_repair(kPaths.directory, files);
  MILLRACE_CHECK(again && !again->is_needed());
  MILLRACE_CHECK(again->end == repaired->plan.lost_end);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool mend = (data[0] & 1) != 0;
  const std::string segment = mend ? mended(rest) : std::string(rest);
  if (segment.size() >= kSegmentHeaderBytes) try_segment(segment);
  return 0;
}
