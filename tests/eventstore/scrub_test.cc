#include <thread>

#include "base/clock.h"
#include "eventstore/event_store.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "eventstore/log/scrubber.h"
#include "eventstore/log/segment_rewriter.h"
#include "eventstore/repair.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
const StorePaths kPaths{kStore};
constexpr std::uint64_t kRate = 1 << 20;

class DayClock final : public Clock {
 public:
  Monotonic monotonic() override { return {}; }
  UnixMicros wall() override { return {day * 86'400'000'000}; }
  std::int64_t day = 20'000;
};

struct Disk {
  explicit Disk(std::size_t payload_bytes = 100) {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    for (std::uint64_t number = 1; number <= 24; ++number)
      must(append_durably(*store, sample_transaction(number, 20, payload_bytes)));
    id = store->id();
  }

  std::vector<std::uint64_t> segments() { return must(list_segments(files, kPaths)); }
  std::uint64_t active() { return segments().back(); }
  void flip(std::uint64_t segment, std::size_t at) {
    std::string bytes = files.content(kPaths.segment(segment));
    bytes.at(at) = static_cast<char>(bytes.at(at) ^ 1);
    files.set_content(kPaths.segment(segment), bytes);
  }
  Scrubber scrubber() {
    return {kPaths, {.store = id, .files = &files, .clock = &clock, .bytes_per_second = kRate}};
  }

  FaultFs files;
  DayClock clock;
  StoreId id;
};

/// To the end of the pass.
ScrubReport scrub(Disk& disk, Scrubber scrubber) {
  const std::uint64_t active = disk.active();
  for (int step = 0; step < 1000; ++step) {
    scrubber.step(active);
    if (scrubber.report().completed && scrubber.report().next.value == 0) {
      // Whoever asks is told the same.
      const auto told = must(read_scrub_report(kStore, disk.files));
      REQUIRE(told);
      CHECK(told->faults.size() == scrubber.report().faults.size());
      return scrubber.report();
    }
  }
  FAIL("the pass has no end");
  return {};
}
ScrubReport scrub(Disk& disk) { return scrub(disk, disk.scrubber()); }

}  // namespace

TEST_CASE("F46: a bit that flips anywhere in a cold segment is found in one pass",
          "[eventstore][scrub]") {
  Disk disk;
  const auto segments = disk.segments();
  REQUIRE(segments.size() >= 4);
  CHECK(scrub(disk).faults.empty());
  for (std::size_t index = 0; index + 1 < segments.size(); ++index) {
    const std::size_t size = disk.files.content(kPaths.segment(segments[index])).size();
    for (std::size_t at = 0; at < size; at += 331) {
      CAPTURE(segments[index], at);
      disk.clock.day += 7;
      disk.flip(segments[index], at);
      const ScrubReport report = scrub(disk);
      REQUIRE(report.faults.size() == 1);
      CHECK(report.faults[0].file == "log/" + StorePaths::segment_name(segments[index]));
      CHECK(report.faults[0].position <= at);
      CHECK_FALSE(report.faults[0].what.empty());
      CHECK(report.faults[0].found.value > 0);
      disk.flip(segments[index], at);
    }
  }
  disk.clock.day += 7;
  CHECK(scrub(disk).faults.empty());  // of what was put back nothing is said any more
}

TEST_CASE("F46: a scrub finds segments that are cut, missing, unreadable or of another store",
          "[eventstore][scrub]") {
  Disk disk;
  const std::uint64_t second = disk.segments()[1];
  const std::string file = "log/" + StorePaths::segment_name(second);
  const std::string bytes = disk.files.content(kPaths.segment(second));
  SECTION("cut at any place") {
    for (std::size_t size = 0; size < bytes.size(); size += 509) {
      CAPTURE(size);
      disk.clock.day += 7;
      disk.files.set_content(kPaths.segment(second), bytes.substr(0, size));
      const ScrubReport report = scrub(disk);
      REQUIRE(report.faults.size() == 1);
      CHECK(report.faults[0].file == file);
    }
  }
  SECTION("longer than it was") {
    disk.files.set_content(kPaths.segment(second), bytes + std::string(4096, '\0'));
    CHECK(scrub(disk).faults.size() == 1);
  }
  SECTION("missing") {
    disk.files.erase(kPaths.segment(second));
    const ScrubReport report = scrub(disk);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].what.find("missing") != std::string::npos);
  }
  SECTION("the first one missing") {
    disk.files.erase(kPaths.segment(0));
    const ScrubReport report = scrub(disk);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].what.find("missing") != std::string::npos);
  }
  SECTION("all of them missing") {
    const std::uint64_t active = disk.active();
    for (const std::uint64_t segment : disk.segments())
      if (segment != active) disk.files.erase(kPaths.segment(segment));
    const ScrubReport report = scrub(disk);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].file == "log/" + StorePaths::segment_name(active));
    CHECK(report.faults[0].what.find("missing") != std::string::npos);
  }
  SECTION("a read that fails") {
    disk.files.fail_read_at(5);
    CHECK(scrub(disk).faults.size() == 1);
  }
  SECTION("of another store") {
    Disk other;
    disk.files.set_content(kPaths.segment(second), other.files.content(kPaths.segment(second)));
    const ScrubReport report = scrub(disk);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].file == file);
  }
}

TEST_CASE("F46: a scrub keeps its rate, and begins a pass once a week", "[eventstore][scrub]") {
  Disk disk(700);
  Scrubber scrubber = disk.scrubber();
  const std::uint64_t active = disk.active();
  std::uint64_t sealed_bytes = 0;
  for (const std::uint64_t segment : disk.segments())
    if (segment != active) sealed_bytes += disk.files.content(kPaths.segment(segment)).size();
  std::chrono::milliseconds paused{0};
  while (!scrubber.report().completed) paused += scrubber.step(active);
  paused -= std::chrono::minutes(10);  // the last one found nothing more to read
  CHECK(paused.count() >= static_cast<std::int64_t>(sealed_bytes * 1000 / kRate));
  CHECK(paused.count() <= static_cast<std::int64_t>(sealed_bytes * 1000 / kRate + 2 * 24));
  const UnixMicros completed = *scrubber.report().completed;

  disk.flip(0, kSegmentHeaderBytes + 200);
  disk.clock.day += 6;
  for (int step = 0; step < 100; ++step) scrubber.step(active);
  CHECK(scrubber.report().faults.empty());
  CHECK(scrubber.report().completed == completed);
  CHECK(disk.scrubber().step(active) >= std::chrono::minutes(1));  // nor after a restart
  disk.clock.day += 1;
  CHECK(scrub(disk, disk.scrubber()).faults.size() == 1);
}

TEST_CASE("a scrub goes on after a restart with the segment that it was at",
          "[eventstore][scrub]") {
  Disk disk;
  const auto segments = disk.segments();
  {
    Scrubber scrubber = disk.scrubber();
    while (scrubber.report().next.value <= segments[1]) scrubber.step(disk.active());
  }
  disk.flip(0, kSegmentHeaderBytes + 200);  // behind its back
  disk.flip(segments[2], kSegmentHeaderBytes + 200);
  const ScrubReport report = scrub(disk);
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].file == "log/" + StorePaths::segment_name(segments[2]));

  // A note that can't be read is as none.
  disk.files.set_content(kStore / "scrub.json", "{\"next\": []}");
  CHECK(scrub(disk).faults.size() == 2);
}

TEST_CASE("a scrub reads rewritten segments, also while they are replaced", "[eventstore][scrub]") {
  Disk disk;
  const auto segments = disk.segments();
  const auto thin_out = [&](std::size_t index) {
    must(rewrite_segment(kPaths, disk.id, segments[index], segments[index + 1],
                         [](const EventView& event, const Batch&) -> Result<Verdict> {
                           return Verdict{.kind = event.offset.value % 3 == 0
                                                      ? Verdict::Kind::kSuperseded
                                                      : Verdict::Kind::kKeep};
                         },
                         {.files = &disk.files, .clock = &disk.clock}));
  };
  Scrubber scrubber = disk.scrubber();
  scrubber.step(disk.active());
  for (std::size_t index = 0; index + 1 < segments.size(); ++index) thin_out(index);
  CHECK(scrub(disk, std::move(scrubber)).faults.empty());
  disk.clock.day += 7;
  CHECK(scrub(disk).faults.empty());
  disk.clock.day += 7;
  disk.flip(segments[1], disk.files.content(kPaths.segment(segments[1])).size() - 30);
  CHECK(scrub(disk).faults.size() == 1);
  must(repair_store(kStore, disk.files));
  CHECK_FALSE(must(read_scrub_report(kStore, disk.files)));  // that was of another log
  CHECK(scrub(disk).faults.empty());
}

TEST_CASE("F46: a writer scrubs beside its work, tells what it finds, and goes on appending",
          "[eventstore][scrub]") {
  Disk disk;
  disk.flip(disk.segments()[1], kSegmentHeaderBytes + 300);
  StoreOptions options = small_options(disk.files);
  options.background_maintenance = true;
  options.scrub_bytes_per_second = 1 << 30;
  const auto store = must(EventStore::open(kStore, options));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  std::uint64_t number = 25;
  std::optional<ScrubReport> report;
  while (!(report && report->completed) && std::chrono::steady_clock::now() < deadline) {
    must(append_durably(*store, sample_transaction(number++, 1)));
    report = must(read_scrub_report(kStore, disk.files));
  }
  REQUIRE(report);
  CHECK(report->faults.size() == 1);
  CHECK(store->status());
  must(append_durably(*store, sample_transaction(number, 1)));
}
