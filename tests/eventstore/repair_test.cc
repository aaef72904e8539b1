#include "eventstore/repair.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "eventstore/log/head.h"
#include "eventstore/log/store_files.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using Kind = RepairStep::Kind;

namespace {

const Path kStore = "/store";
const Path kLog = "/store/log";

StoreOptions quiet_options(FaultFs& files) {
  StoreOptions options = small_options(files);
  options.background_maintenance = false;
  return options;
}

/// Twenty-four transactions of twenty events, in several segments, with the indexes of those that
/// are full.
struct Disk {
  Disk() {
    for (std::uint64_t number = 1; number <= 24; ++number)
      written.push_back(sample_transaction(number, 20, 100));
    {
      const auto store = must(EventStore::open(kStore, quiet_options(files)));
      for (const StoredTransaction& transaction : written)
        must(append_durably(*store, transaction));
      must(store->run_maintenance());
    }
    for (const std::string& name : files.names(kLog))
      if (name.ends_with(".log")) segments.push_back(name);
    REQUIRE(segments.size() >= 4);
  }

  std::string content(const std::string& segment) { return files.content(kLog / segment); }
  void change(const std::string& segment, const std::function<void(std::string&)>& how) {
    std::string bytes = content(segment);
    how(bytes);
    files.set_content(kLog / segment, bytes);
  }
  void flip(const std::string& segment, std::size_t at) {
    change(segment,
           [&](std::string& bytes) { bytes.at(at) = static_cast<char>(bytes.at(at) ^ 1); });
  }
  std::uint64_t first_of(std::size_t index) const {
    return *log::StorePaths::parse_segment_name(segments.at(index));
  }

  FaultFs files;
  History written;
  std::vector<std::string> segments;
};

/// All files of a store but those that a repair has put aside, LOCK and HEAD.
std::map<std::string, std::string> log_files(FaultFs& files) {
  std::map<std::string, std::string> all;
  for (const std::string& name : files.names(kLog)) all[name] = files.content(kLog / name);
  return all;
}

std::size_t kept_events(const History& read) {
  std::size_t count = 0;
  for (const StoredTransaction& transaction : read) count += transaction.events.size();
  return count;
}

/// Also of a log with offsets that are lost.
std::size_t count_transactions(FaultFs& files) {
  const auto reader = must(LogReader::open(kStore, {.from = {}, .files = &files}));
  std::size_t count = 0;
  while (Batch* batch = must(reader->next())) {
    while (batch->next() != nullptr) {
    }
    REQUIRE(batch->status());
    if (batch->last_of_transaction) ++count;
  }
  return count;
}

Result<void> read_from(FaultFs& files, Offset from) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                            LogReader::open(kStore, {.from = from, .files = &files}));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const Batch* batch, reader->next());
    if (batch == nullptr) return {};
  }
}

/// Who resumes among what is lost, or before it, is told so; nobody else.
void check_gone(FaultFs& files, Offset end, Offset lost_end) {
  for (const Offset from : {Offset{1}, end, Offset{end.value + 1}, Offset{lost_end.value - 1}}) {
    CAPTURE(from.value, end.value, lost_end.value);
    const auto read = read_from(files, from);
    REQUIRE(read.has_value() == (from.value == 0 || from >= lost_end));
    if (!read) CHECK(read.error().code() == ErrorCode::kGone);
    if (!read) CHECK(read.error().message().find("OFFSET_GONE") != std::string::npos);
  }
  CHECK(read_from(files, Offset{0}));
  CHECK(read_from(files, lost_end));
}

/// What is true of every repair: looking changes nothing, doing it does what was said, and
/// afterwards the store is verified clean, opens, holds a prefix, gives no offset twice and goes
/// on.
Repair check_repair(FaultFs& files, const History& written) {
  const auto before = log_files(files);
  const RepairPlan plan = must(plan_repair(kStore, files));
  CHECK(log_files(files) == before);
  const Repair repair = must(repair_store(kStore, files));
  CHECK(to_json(repair.plan) == to_json(plan));
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  CHECK_FALSE(must(plan_repair(kStore, files)).is_needed());
  const History read = read_history(kStore, files);
  REQUIRE(is_prefix(read, written));
  CHECK(plan.end.value == kept_events(read));
  CHECK(plan.lost_end >= plan.end);
  if (read.empty())
    CHECK_FALSE(plan.source);
  else
    CHECK(plan.source->commit == read.back().commit);
  const StoreSummary summary = must(summarize_store(kStore, files));
  CHECK(summary.durable_end == plan.lost_end);
  CHECK(summary.source.has_value() == plan.source.has_value());
  if (plan.source) CHECK(*summary.source == *plan.source);
  if (plan.lost_end > plan.end) check_gone(files, plan.end, plan.lost_end);
  {
    const auto store = must(EventStore::open(kStore, quiet_options(files)));
    CHECK(store->durable_end() == plan.lost_end);
    // The source goes on where it is said to: what was lost is taken when it is sent again.
    CHECK(store->durable_source() == plan.source);
    must(append_durably(*store, sample_transaction(read.size() + 1, 20, 100)));
    CHECK(store->durable_end().value == plan.lost_end.value + 20);
    must(store->run_maintenance());
  }
  if (plan.lost_end > plan.end) check_gone(files, plan.end, plan.lost_end);
  CHECK(count_transactions(files) == read.size() + 1);
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  return repair;
}

/// The files that a repair left alone, and those that it kept: together what was there before.
std::map<std::string, std::string> before_repair(FaultFs& files, const Repair& repair) {
  std::map<std::string, std::string> all = log_files(files);
  for (const RepairStep& step : repair.plan.steps) {
    const std::string name = Path(step.file).filename().string();
    if (!step.file.starts_with("log/")) continue;
    if (step.to == 0)
      all.erase(name);
    else
      all[name] = files.content(repair.kept / name);
  }
  return all;
}

}  // namespace

TEST_CASE("a sound store needs no repair and is left alone", "[eventstore][repair]") {
  Disk disk;
  CHECK_FALSE(must(plan_repair(kStore, disk.files)).is_needed());
  const auto before = log_files(disk.files);
  const Repair repair = must(repair_store(kStore, disk.files));
  CHECK_FALSE(repair.plan.is_needed());
  CHECK(repair.kept.empty());
  CHECK(log_files(disk.files) == before);
  CHECK(repair.plan.end.value == 480);
  CHECK_FALSE(must(disk.files.exists(kStore / "repair")));
}

TEST_CASE("a torn tail is left to the next writer", "[eventstore][repair]") {
  Disk disk;
  disk.files.lose_power();
  disk.files.erase(kStore / "HEAD");
  disk.change(disk.segments.back(), [](std::string& bytes) { bytes.resize(bytes.size() - 700); });
  CHECK_FALSE(must(plan_repair(kStore, disk.files)).is_needed());
}

TEST_CASE("F30: damage in the last segment costs what lies behind it, and that is kept",
          "[eventstore][repair]") {
  Disk disk;
  const std::string last = disk.segments.back();
  const std::string whole = disk.content(last);
  disk.flip(last, log::kSegmentHeaderBytes + 300);
  CHECK(EventStore::open(kStore, quiet_options(disk.files)).error().code() ==
        ErrorCode::kCorruption);
  const auto before = log_files(disk.files);
  const auto copy = disk.files.clone();
  const Repair repair = must(repair_store(kStore, *copy));
  CHECK(before_repair(*copy, repair) == before);
  check_repair(disk.files, disk.written);
  REQUIRE(repair.plan.steps.size() == 3);
  CHECK(repair.plan.steps[0].kind == Kind::kCut);
  CHECK(repair.plan.steps[0].file == "log/" + last);
  CHECK(repair.plan.steps[0].to == whole.size());
  CHECK(repair.plan.steps[1].kind == Kind::kBegin);
  CHECK(repair.plan.steps[2].file == "HEAD");
  CHECK(repair.plan.lost_end.value == 480);
  CHECK(repair.plan.lost_bytes == whole.size() - repair.plan.steps[0].from);
  const auto report = nlohmann::json::parse(copy->content(repair.kept / "report.json"));
  CHECK(report.at("end") == repair.plan.end.value);
  CHECK(report.at("steps").at(0).at("do") == "cut");
  CHECK(report.at("faults").size() == 1);
}

TEST_CASE("F30: damage in the middle costs everything behind it, for the log is a prefix",
          "[eventstore][repair]") {
  Disk disk;
  const std::string before_last = disk.segments[disk.segments.size() - 2];
  disk.flip(disk.segments[1], log::kSegmentHeaderBytes + 100);
  const auto copy = disk.files.clone();
  const std::string intact = disk.content(before_last);
  const auto before = log_files(disk.files);
  const Repair repair = must(repair_store(kStore, *copy));
  CHECK(repair.plan.end.value <= disk.first_of(1));
  CHECK(repair.plan.lost_end.value == 480);
  CHECK(repair.plan.lost_transactions > 10);
  CHECK(repair.plan.lost_events >= 20 * repair.plan.lost_transactions);
  CHECK(copy->content(repair.kept / before_last) == intact);
  CHECK(before_repair(*copy, repair) == before);
  for (std::size_t i = 2; i < disk.segments.size(); ++i)
    CHECK_FALSE(must(copy->exists(kLog / disk.segments[i])));
  check_repair(disk.files, disk.written);
}

TEST_CASE("F30: wherever a bit is flipped, a repair leaves a clean prefix",
          "[eventstore][repair]") {
  const Disk disk;
  std::size_t needed = 0;
  std::mt19937_64 random(3);
  for (int round = 0; round < 120; ++round) {
    const auto files = disk.files.clone();
    const std::string& segment = disk.segments[random() % disk.segments.size()];
    std::string bytes = files->content(kLog / segment);
    const std::size_t at =
        round % 4 == 0 ? random() % log::kSegmentHeaderBytes : random() % bytes.size();
    CAPTURE(segment, at);
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    files->set_content(kLog / segment, bytes);
    const auto plan = plan_repair(kStore, *files);
    if (!plan) {
      // Of the first segment nothing can be believed without its header.
      REQUIRE(segment == disk.segments.front());
      REQUIRE(at < log::kSegmentHeaderBytes);
      REQUIRE(plan.error().code() == ErrorCode::kFailedPrecondition);
      REQUIRE(must(verify_store(kStore, {}, *files)).faults.size() >= 1);
      continue;
    }
    REQUIRE(plan->is_needed());
    check_repair(*files, disk.written);
    ++needed;
  }
  CHECK(needed > 80);
}

TEST_CASE("F29: a segment cut at any place is repaired to a prefix", "[eventstore][repair]") {
  const Disk disk;
  std::mt19937_64 random(9);
  for (int round = 0; round < 60; ++round) {
    const auto files = disk.files.clone();
    const std::string& segment = disk.segments[1 + random() % (disk.segments.size() - 1)];
    std::string bytes = files->content(kLog / segment);
    bytes.resize(random() % bytes.size());
    CAPTURE(segment, bytes.size());
    files->set_content(kLog / segment, bytes);
    REQUIRE(must(plan_repair(kStore, *files)).is_needed());
    check_repair(*files, disk.written);
  }
}

TEST_CASE("F34: behind a missing segment everything goes", "[eventstore][repair]") {
  const Disk disk;
  for (std::size_t missing = 1; missing < disk.segments.size(); ++missing) {
    CAPTURE(missing);
    const auto files = disk.files.clone();
    files->erase(kLog / disk.segments[missing]);
    const Repair repair = check_repair(*files, disk.written);
    CHECK(repair.plan.end.value <= disk.first_of(missing));
    CHECK(repair.plan.lost_end.value == 480);  // HEAD knows of those that have gone altogether
  }
  const auto files = disk.files.clone();
  files->erase(kLog / disk.segments[0]);
  const Error error = plan_repair(kStore, *files).error();
  CHECK(error.code() == ErrorCode::kFailedPrecondition);
  CHECK(error.message().find("nothing of the log") != std::string::npos);
  CHECK(repair_store(kStore, *files).error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("F35: segments of others and under others' names are put aside", "[eventstore][repair]") {
  Disk disk;
  FaultFs other;
  {
    const auto store = must(EventStore::open(kStore, quiet_options(other)));
    must(append_durably(*store, sample_transaction(1, 5)));
  }
  const std::string foreign = other.content(kLog / disk.segments[0]);

  SECTION("behind the end") {
    const std::string name = log::StorePaths::segment_name(99'999);
    disk.files.set_content(kLog / name, foreign);
    const Repair repair = check_repair(disk.files, disk.written);
    REQUIRE(repair.plan.steps.size() == 1);
    CHECK(repair.plan.steps[0].file == "log/" + name);
    CHECK(repair.plan.lost_bytes == 0);
    CHECK(repair.plan.end.value == 480);
    CHECK(disk.files.content(repair.kept / name) == foreign);
  }
  SECTION("in place of one of ours") {
    disk.files.set_content(kLog / disk.segments[2], foreign);
    const Repair repair = check_repair(disk.files, disk.written);
    CHECK(repair.plan.end.value <= disk.first_of(2));
  }
  SECTION("two that were exchanged") {
    const std::string first = disk.content(disk.segments[1]);
    disk.files.set_content(kLog / disk.segments[1], disk.content(disk.segments[2]));
    disk.files.set_content(kLog / disk.segments[2], first);
    const Repair repair = check_repair(disk.files, disk.written);
    CHECK(repair.plan.end.value <= disk.first_of(1));
  }
  SECTION("one twice") {
    const std::string name = log::StorePaths::segment_name(disk.first_of(1) + 1);
    disk.files.set_content(kLog / name, disk.content(disk.segments[1]));
    const Repair repair = check_repair(disk.files, disk.written);
    CHECK(repair.plan.end.value == 480);
  }
}

TEST_CASE("F36: a log that was put back without its HEAD opens after a repair",
          "[eventstore][repair]") {
  Disk disk;
  const auto older = disk.files.clone();
  {
    const auto store = must(EventStore::open(kStore, quiet_options(disk.files)));
    for (std::uint64_t number = 25; number <= 40; ++number)
      must(append_durably(*store, sample_transaction(number, 20, 100)));
  }
  for (const std::string& name : disk.files.names(kLog)) disk.files.erase(kLog / name);
  for (const std::string& name : older->names(kLog))
    disk.files.set_content(kLog / name, older->content(kLog / name));
  const Error error = EventStore::open(kStore, quiet_options(disk.files)).error();
  CHECK(error.code() == ErrorCode::kCorruption);
  CHECK(error.hint().find("log repair") != std::string::npos);
  const Repair repair = check_repair(disk.files, disk.written);
  REQUIRE(repair.plan.steps.size() == 3);
  CHECK(repair.plan.steps[0].kind == Kind::kCut);
  CHECK(repair.plan.steps[0].to == 0);
  CHECK(repair.plan.steps[2].file == "HEAD");
  CHECK(repair.plan.end.value == 480);
  CHECK(repair.plan.lost_end.value == 800);
}

TEST_CASE("F34: store.json that is lost or damaged is made again from the segments",
          "[eventstore][repair]") {
  const Disk disk;
  const StoreId id = must(summarize_store(kStore, *disk.files.clone())).id;
  const auto check = [&](const std::function<void(FaultFs&)>& damage) {
    const auto files = disk.files.clone();
    damage(*files);
    CHECK_FALSE(EventStore::open(kStore, quiet_options(*files)));
    const Repair repair = check_repair(*files, disk.written);
    REQUIRE(repair.plan.steps.size() == 1);
    CHECK(repair.plan.steps[0].kind == Kind::kRebuild);
    CHECK(repair.plan.end.value == 480);
    CHECK(must(summarize_store(kStore, *files)).id == id);
  };
  const Path path = kStore / "store.json";
  check([&](FaultFs& files) { files.erase(path); });
  check([&](FaultFs& files) { files.set_content(path, ""); });
  check([&](FaultFs& files) { files.set_content(path, "{\"version\": 1}"); });
  check([&](FaultFs& files) { files.set_content(path, std::string(5000, '\0')); });
  check([&](FaultFs& files) {  // another id
    std::string text = files.content(path);
    const std::size_t at = text.find(to_string(id));
    text[at] = text[at] == 'a' ? 'b' : 'a';
    files.set_content(path, text);
  });

  const auto files = disk.files.clone();
  files->set_content(path, "{\"version\": 2}");  // not ours to mend
  CHECK(plan_repair(kStore, *files).error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("B24: an index that does not agree with its segment is put aside",
          "[eventstore][repair]") {
  Disk disk;
  const std::string name = log::StorePaths::index_name(disk.first_of(0));
  std::string bytes = disk.files.content(kLog / name);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  disk.files.set_content(kLog / name, bytes);
  const Repair repair = check_repair(disk.files, disk.written);
  REQUIRE(repair.plan.steps.size() == 1);
  CHECK(repair.plan.steps[0].file == "log/" + name);
  CHECK(repair.plan.end.value == 480);
  CHECK(disk.files.content(repair.kept / name) == bytes);
}

TEST_CASE("a transaction that reaches into damage goes from its beginning, in older segments too",
          "[eventstore][repair]") {
  FaultFs files;
  const History written{sample_transaction(1, 20), sample_transaction(2, 400, 100)};
  {
    const auto store = must(EventStore::open(kStore, quiet_options(files)));
    for (const StoredTransaction& transaction : written) must(append_durably(*store, transaction));
  }
  const auto names = files.names(kLog);
  REQUIRE(names.size() >= 3);
  std::string bytes = files.content(kLog / names.back());
  bytes[log::kSegmentHeaderBytes + 40] =
      static_cast<char>(bytes[log::kSegmentHeaderBytes + 40] ^ 1);
  files.set_content(kLog / names.back(), bytes);
  const Repair repair = check_repair(files, written);
  CHECK(repair.plan.end.value == 20);
  CHECK(repair.plan.lost_end.value == 420);
  CHECK(repair.plan.lost_events < 400);
  CHECK(repair.plan.lost_transactions == 1);
  CHECK(repair.plan.steps.size() == names.size() + 2);  // each segment, the next one, and HEAD
}

TEST_CASE("a repair needs a store without a writer", "[eventstore][repair]") {
  Disk disk;
  const auto store = must(EventStore::open(kStore, quiet_options(disk.files)));
  CHECK(plan_repair(kStore, disk.files).error().code() == ErrorCode::kLocked);
  CHECK(repair_store(kStore, disk.files).error().code() == ErrorCode::kLocked);
  FaultFs empty;
  must(empty.make_directory("/empty"));
  CHECK(plan_repair("/empty", empty).error().code() == ErrorCode::kNotFound);
  CHECK(repair_store("/empty", empty).error().code() == ErrorCode::kNotFound);
  CHECK(empty.names("/empty").empty());
}

TEST_CASE("F2: a repair that was interrupted at an empty last segment loses as many offsets",
          "[eventstore][repair]") {
  // Erasing seals the last segment and begins one at the end of the log. A transaction without
  // events in it has no offset: only HEAD knows of it by its place.
  const bool has_transaction = GENERATE(false, true);
  FaultFs disk;
  {
    const auto store = must(EventStore::open(kStore, quiet_options(disk)));
    for (std::uint64_t number = 1; number <= 8; ++number)
      must(append_durably(*store, sample_transaction(number, 20, 100)));
    const EntityToErase row{.key = "1/0"};
    must(store->maintenance().erase({.category = "public.table1", .entities = {&row, 1}}));
    if (has_transaction) must(append_durably(*store, sample_transaction(9, 0)));
  }
  const auto segments = must(log::list_segments(disk, log::StorePaths(kStore)));
  REQUIRE(must(summarize_store(kStore, disk)).durable_end.value == segments.back());
  SECTION("with damage in front") {
    const Path first = kLog / log::StorePaths::segment_name(0);
    std::string bytes = disk.content(first);
    bytes.at(log::kSegmentHeaderBytes + 1000) ^= 1;
    disk.set_content(first, bytes);
    REQUIRE(must(plan_repair(kStore, disk)).lost_end.value == segments.back());
  }
  SECTION("that is missing: whatever was in it, it was more than nothing") {
    disk.erase(kLog / log::StorePaths::segment_name(segments.back()));
    REQUIRE(must(plan_repair(kStore, disk)).lost_end.value == segments.back() + 1);
  }
  const RepairPlan plan = must(plan_repair(kStore, disk));
  for (std::uint64_t number = 1;; ++number) {
    CAPTURE(number);
    const auto files = disk.clone();
    files->die_at(number);
    static_cast<void>(repair_store(kStore, *files).has_value());
    const bool hit = files->fault_was_hit();
    files->kill_processes();
    must(repair_store(kStore, *files));
    REQUIRE(must(summarize_store(kStore, *files)).durable_end == plan.lost_end);
    REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
    if (!hit) break;
  }
}

TEST_CASE("F2: a repair that is interrupted at any step is ended by the next, and keeps as much",
          "[eventstore][repair]") {
  // Each with damage in the middle and HEAD, so that every kind of step is there.
  Disk damaged;
  damaged.flip(damaged.segments[1], log::kSegmentHeaderBytes + 2000);
  damaged.files.set_content(kStore / "store.json", "");
  damaged.files.set_content(kLog / log::StorePaths::segment_name(99'999), "not a segment");
  const RepairPlan plan = must(plan_repair(kStore, damaged.files));
  REQUIRE(plan.steps.size() >= 5);
  const History kept(damaged.written.begin(),
                     damaged.written.begin() + static_cast<std::ptrdiff_t>(plan.end.value / 20));
  for (const bool power : {false, true}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(power, number);
      const auto files = damaged.files.clone();
      files->die_at(number);
      const auto repaired = repair_store(kStore, *files);
      const bool hit = files->fault_was_hit();
      REQUIRE(repaired.has_value() == !hit);
      if (power)
        files->lose_power(number);
      else
        files->kill_processes();
      // Until it has ended nobody writes to what is half done.
      if (hit && must(files->exists(kStore / "REPAIR")))
        REQUIRE_FALSE(EventStore::open(kStore, quiet_options(*files)));
      const RepairPlan rest = must(plan_repair(kStore, *files));
      // The end of what stays; or, once that is written down, the end of what is lost.
      REQUIRE((rest.end == plan.end || rest.end == plan.lost_end));
      REQUIRE(rest.lost_end == plan.lost_end);
      must(repair_store(kStore, *files));
      REQUIRE_FALSE(must(plan_repair(kStore, *files)).is_needed());
      REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
      REQUIRE(read_history(kStore, *files) == kept);
      REQUIRE(must(EventStore::open(kStore, quiet_options(*files)))->durable_end() ==
              plan.lost_end);
      check_gone(*files, plan.end, plan.lost_end);
      // Every byte of the log that was cut away is in one of the folders.
      std::string aside;
      for (const std::string& folder : files->names(kStore / "repair"))
        for (const std::string& name : files->names(kStore / "repair" / folder))
          if (name != "report.json") aside += files->content(kStore / "repair" / folder / name);
      for (std::size_t i = 1; i < damaged.segments.size(); ++i)
        REQUIRE(aside.find(damaged.content(damaged.segments[i])) != std::string::npos);
      if (!hit) break;
      REQUIRE(number < 200);
    }
  }
}
