#include <algorithm>
#include <map>

#include "base/bytes.h"
#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "eventstore/log/segment_rewriter.h"
#include "eventstore/log/store_files.h"
#include "eventstore/repair.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
const StorePaths kPaths{kStore};

using Contents = std::map<std::uint64_t, std::string>;  // payloads by offset

Result<Contents> read_all(FaultFs& files, std::uint64_t from = 0) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                            LogReader::open(kStore, {.from = {from}, .files = &files}));
  Contents contents;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader->next());
    if (batch == nullptr) return contents;
    while (const EventView* event = batch->next())
      contents[event->offset.value] = std::string(event->payload);
    REQUIRE(batch->status());
  }
}

bool is_gone(FaultFs& files, std::uint64_t from) {
  const auto read = read_all(files, from);
  return !read && read.error().code() == ErrorCode::kGone;
}

std::vector<std::uint64_t> segments_of(FaultFs& files) {
  return must(list_segments(files, kPaths));
}

void rewrite(FaultFs& files, std::size_t index, const Judge& judge) {
  const auto segments = segments_of(files);
  must(rewrite_segment(kPaths, must(read_description(files, kPaths)).id, segments.at(index),
                       segments.at(index + 1), judge,
                       {.files = &files, .clock = &Clock::system()}));
}

/// Every third event has expired.
Result<Verdict> thin_out(const EventView& event, const Batch&) {
  return Verdict{.kind =
                     event.offset.value % 3 == 0 ? Verdict::Kind::kRemoved : Verdict::Kind::kKeep};
}

Result<Verdict> drop(const EventView&, const Batch&) {
  return Verdict{.kind = Verdict::Kind::kSuperseded};
}

void append(FaultFs& files, std::uint64_t first, std::uint64_t last) {
  StoreOptions options = small_options(files);
  options.background_maintenance = false;
  const auto store = must(EventStore::open(kStore, options));
  for (std::uint64_t number = first; number <= last; ++number)
    must(append_durably(*store, sample_transaction(number, 20, 100)));
}

void flip(FaultFs& files, std::uint64_t segment, std::size_t at) {
  std::string bytes = files.content(kPaths.segment(segment));
  bytes.at(at) = static_cast<char>(bytes.at(at) ^ 8);
  files.set_content(kPaths.segment(segment), bytes);
}

/// Repairs, and checks that what lies before the damage is as it was.
RepairPlan repair(FaultFs& files, const Contents& before) {
  const RepairPlan plan = must(plan_repair(kStore, files));
  REQUIRE(plan.is_needed());
  must(repair_store(kStore, files));
  REQUIRE(must(verify_store(kStore, {}, files)).faults.empty());
  REQUIRE_FALSE(must(plan_repair(kStore, files)).is_needed());
  Contents expected = before;
  expected.erase(expected.lower_bound(plan.end.value), expected.end());
  REQUIRE(must(read_all(files)) == expected);
  REQUIRE(is_gone(files, plan.lost_end.value - 1));
  REQUIRE(read_all(files, plan.lost_end.value));
  REQUIRE(must(summarize_store(kStore, files)).durable_end == plan.lost_end);
  return plan;
}

}  // namespace

TEST_CASE("F30: of a rewritten segment what lies before the damage stays, at the same offsets",
          "[eventstore][repair]") {
  FaultFs original;
  append(original, 1, 24);
  REQUIRE(segments_of(original).size() >= 4);
  rewrite(original, 1, thin_out);
  const Contents before = must(read_all(original));
  const auto segments = segments_of(original);
  const std::string bytes = original.content(kPaths.segment(segments[1]));
  std::size_t kept_some = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 61) {
    CAPTURE(at);
    const auto files = original.clone();
    flip(*files, segments[1], at);
    const RepairPlan plan = repair(*files, before);
    CHECK(plan.end.value <= segments[2]);
    CHECK(plan.lost_end.value == 480);
    if (plan.end.value > segments[1] + 20) {
      ++kept_some;
      // What had expired in it is still known to be missing, from its start on.
      CHECK(is_gone(*files, segments[1]));
    }
    append(*files, 25, 40);
    CHECK(must(read_all(*files)).rbegin()->first == 480 + 16 * 20 - 1);
    CHECK(must(verify_store(kStore, {}, *files)).faults.empty());
  }
  CHECK(kept_some > 10);
}

TEST_CASE("F34: behind a rewritten segment that has become the last one the log goes on",
          "[eventstore][repair]") {
  FaultFs files;
  append(files, 1, 24);
  rewrite(files, 1, thin_out);
  const Contents before = must(read_all(files));
  const auto segments = segments_of(files);
  for (std::size_t i = 2; i < segments.size(); ++i) files.erase(kPaths.segment(segments[i]));
  const RepairPlan plan = repair(files, before);
  CHECK(plan.end.value <= segments[2]);
  CHECK(plan.lost_end.value == 480);
  append(files, 25, 26);
  CHECK(must(read_all(files)).rbegin()->first == 519);
}

TEST_CASE("a store that was repaired can be damaged, compacted and repaired again",
          "[eventstore][repair]") {
  FaultFs files;
  append(files, 1, 24);
  const Contents at_first = must(read_all(files));
  flip(files, segments_of(files)[2], kSegmentHeaderBytes + 500);
  const RepairPlan first = repair(files, at_first);
  append(files, 25, 48);
  auto segments = segments_of(files);
  const auto lost = std::find_if(segments.begin(), segments.end(),
                                 [&](std::uint64_t segment) { return segment > first.end.value; }) -
                    1;
  REQUIRE(*lost <= first.end.value);

  // Compaction of the segment that says so does not forget what is lost.
  rewrite(files, static_cast<std::size_t>(lost - segments.begin()), drop);
  CHECK(is_gone(files, first.end.value));
  CHECK(is_gone(files, first.lost_end.value - 1));
  CHECK(read_all(files, first.lost_end.value));
  const Contents before = must(read_all(files));

  SECTION("damage behind it") {
    const std::uint64_t last = segments.back();
    flip(files, last, files.content(kPaths.segment(last)).size() - 300);
    const RepairPlan second = repair(files, before);
    CHECK(second.end > first.lost_end);
    CHECK(is_gone(files, first.end.value));
    CHECK(is_gone(files, second.end.value));
  }
  SECTION("damage before it") {
    flip(files, segments[0], kSegmentHeaderBytes + 3000);
    const RepairPlan second = repair(files, before);
    CHECK(second.end < first.end);
    CHECK(second.lost_end.value == 480 + 24 * 20);
  }
  SECTION("damage in what says what is lost") {
    flip(files, *lost, files.content(kPaths.segment(*lost)).size() - 20);
    repair(files, before);
    CHECK(is_gone(files, first.end.value));
  }
}

TEST_CASE(
    "F16, F19: a repair that meets an error changes nothing that the next one can't go on "
    "from",
    "[eventstore][repair]") {
  FaultFs damaged;
  append(damaged, 1, 24);
  rewrite(damaged, 1, thin_out);
  const Contents before = must(read_all(damaged));
  const std::uint64_t second = segments_of(damaged)[1];
  flip(damaged, second, damaged.content(kPaths.segment(second)).size() / 2);
  const RepairPlan plan = must(plan_repair(kStore, damaged));
  Contents expected = before;
  expected.erase(expected.lower_bound(plan.end.value), expected.end());
  REQUIRE_FALSE(expected.empty());
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(number, name_of(code));
      const auto files = damaged.clone();
      files->fail_at(number, code);
      const auto repaired = repair_store(kStore, *files);
      if (!files->fault_was_hit()) {
        REQUIRE(repaired);
        break;
      }
      files->clear_faults();
      if (!repaired) {
        CHECK(repaired.error().code() == code);
        must(repair_store(kStore, *files));
      }
      REQUIRE(must(read_all(*files)) == expected);
      REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
      append(*files, 25, 25);
      REQUIRE(must(read_all(*files)).rbegin()->first == plan.lost_end.value + 19);
      REQUIRE(number < 200);
    }
  }
}

TEST_CASE("F17: a repair that can't read a file does not judge it", "[eventstore][repair]") {
  FaultFs damaged;
  append(damaged, 1, 24);
  const std::uint64_t second = segments_of(damaged)[1];
  flip(damaged, second, kSegmentHeaderBytes + 1000);
  const RepairPlan plan = must(plan_repair(kStore, damaged));
  for (std::uint64_t number = 1;; ++number) {
    CAPTURE(number);
    const auto files = damaged.clone();
    files->fail_read_at(number);
    const auto repaired = repair_store(kStore, *files);
    if (!repaired) CHECK(repaired.error().code() == ErrorCode::kIo);
    const bool hit = files->fault_was_hit();
    files->clear_faults();
    must(repair_store(kStore, *files));
    // HEAD only helps: what it would have told is told by the segments.
    const StoreSummary summary = must(summarize_store(kStore, *files));
    REQUIRE(summary.durable_end == plan.lost_end);
    REQUIRE(summary.source == plan.source);
    REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
    if (!hit) break;
    REQUIRE(number < 500);
  }
}

TEST_CASE("F34: HEAD that is damaged or of another store is nothing to repair",
          "[eventstore][repair]") {
  FaultFs sound;
  append(sound, 1, 24);
  const std::string head = sound.content(kPaths.head());
  for (std::size_t at = 0; at < head.size(); ++at) {
    CAPTURE(at);
    const auto files = sound.clone();
    std::string bytes = head;
    bytes[at] = static_cast<char>(bytes[at] ^ 2);
    files->set_content(kPaths.head(), bytes);
    const RepairPlan plan = must(plan_repair(kStore, *files));
    REQUIRE_FALSE(plan.is_needed());
    REQUIRE(plan.end.value == 480);
  }
  sound.erase(kPaths.head());
  CHECK_FALSE(must(plan_repair(kStore, sound)).is_needed());
  append(sound, 25, 25);
  CHECK(must(read_all(sound)).size() == 500);
}

TEST_CASE("B21: a store with something of a newer version is not repaired",
          "[eventstore][repair]") {
  FaultFs files;
  append(files, 1, 24);
  const std::uint64_t segment = segments_of(files)[1];
  std::string page = files.content(kPaths.segment(segment)).substr(0, kSegmentHeaderBytes);
  std::string bytes = files.content(kPaths.segment(segment));
  // Can't be read by ours, with a checksum that is right.
  store_le<std::uint32_t>(page.data() + 12, kFormatVersion + 1);
  store_le<std::uint64_t>(page.data() + kSegmentHeaderBytes - 8,
                          checksum(std::string_view(page).substr(0, kSegmentHeaderBytes - 8)));
  bytes.replace(0, kSegmentHeaderBytes, page);
  files.set_content(kPaths.segment(segment), bytes);
  const auto before = files.contents();
  CHECK(plan_repair(kStore, files).error().code() == ErrorCode::kUnsupported);
  CHECK(repair_store(kStore, files).error().code() == ErrorCode::kUnsupported);
  CHECK(files.contents() == before);
}
