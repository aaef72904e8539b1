#include "eventstore/inspect.h"

#include "base/bytes.h"
#include "eventstore/log/format.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

void fill(FaultFs& files, std::uint64_t count, std::size_t events) {
  const auto store = must(EventStore::open(kStore, small_options(files)));
  for (std::uint64_t number = 1; number <= count; ++number)
    must(append_durably(*store, sample_transaction(number, events, 100)));
}

}  // namespace

TEST_CASE("a summary tells what the store is, with and without a writer", "[eventstore][inspect]") {
  FaultFs files;
  fill(files, 12, 20);
  const auto check = [&](const StoreSummary& summary) {
    CHECK(summary.format_version == 1);
    CHECK(summary.first.value == 0);
    CHECK(summary.durable_end.value == 240);
    CHECK(summary.source == SourcePosition{.epoch = 1, .commit = 120, .end = 125});
    CHECK(summary.last_commit_time.value == 120);
    CHECK(summary.created.value > 0);
    REQUIRE(summary.segments.size() >= 2);
    CHECK(summary.segments.front().first.value == 0);
    CHECK(summary.segments.back().end.value == 240);
    for (std::size_t i = 0; i < summary.segments.size(); ++i) {
      const SegmentSummary& segment = summary.segments[i];
      CHECK(segment.used_bytes <= segment.bytes);
      CHECK(segment.bytes == files.content(kStore / "log" / segment.file).size());
      if (i + 1 < summary.segments.size()) CHECK(segment.end == summary.segments[i + 1].first);
    }
  };
  check(must(summarize_store(kStore, files)));
  files.lose_power();  // without a HEAD to trust
  check(must(summarize_store(kStore, files)));
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const StoreSummary summary = must(summarize_store(kStore, files));
  check(summary);
  CHECK(summary.id == store->id());
  CHECK_FALSE(summary.writer.empty());
}

TEST_CASE("verify reads every byte and counts what it read", "[eventstore][inspect]") {
  FaultFs files;
  fill(files, 12, 20);
  std::uint64_t bytes = 0;
  for (const auto& name : files.names(kStore / "log"))
    bytes += files.content(kStore / "log" / name).size();
  std::uint64_t told = 0, in_all = 0;
  const auto report = must(verify_store(
      kStore,
      [&](std::uint64_t done, std::uint64_t all) {
        CHECK(done >= told);
        told = done;
        in_all = all;
      },
      files));
  CHECK(report.faults.empty());
  CHECK(report.events == 240);
  CHECK(report.batches >= 12);
  CHECK(report.bytes == bytes);
  CHECK(told == bytes);
  CHECK(in_all == bytes);
}

TEST_CASE("verify names every one of several faults and goes on behind each",
          "[eventstore][inspect]") {
  FaultFs files;
  fill(files, 12, 20);
  const auto names = files.names(kStore / "log");
  REQUIRE(names.size() >= 3);
  const auto flip = [&](const std::string& name, std::size_t at) {
    std::string bytes = files.content(kStore / "log" / name);
    bytes.at(at) = static_cast<char>(bytes.at(at) ^ 1);
    files.set_content(kStore / "log" / name, bytes);
  };
  const std::string first = files.content(kStore / "log" / names[0]);
  const std::size_t second_batch =
      log::kSegmentHeaderBytes + log::batch_length(first.data() + log::kSegmentHeaderBytes);
  flip(names[0], log::kSegmentHeaderBytes + 300);  // payload of the first batch
  flip(names[0], second_batch + 20);               // header of the second
  flip(names[1], 100);                             // a segment's header
  const auto report = must(verify_store(kStore, {}, files));
  REQUIRE(report.faults.size() == 3);
  CHECK(report.faults[0].file == "log/" + names[0]);
  CHECK(report.faults[0].position == log::kSegmentHeaderBytes);
  CHECK(report.faults[0].kind == "batch payload checksum");
  CHECK(report.faults[1].position == second_batch);
  CHECK(report.faults[1].kind == "batch header checksum");
  CHECK(report.faults[2].file == "log/" + names[1]);
  CHECK(report.faults[2].kind == "segment header");
  CHECK(report.events > 60);  // of what lies behind them
}

TEST_CASE("F30, F34: verify compares each index with its segment, and misses none",
          "[eventstore][inspect][index]") {
  FaultFs files;
  fill(files, 12, 20);
  must(must(EventStore::open(kStore, small_options(files)))->run_maintenance());
  std::vector<std::string> indexes;
  for (const std::string& name : files.names(kStore / "log"))
    if (name.ends_with(".index")) indexes.push_back(name);
  REQUIRE(indexes.size() >= 2);
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  const Path path = kStore / "log" / indexes[0];
  const std::string good = files.content(path);
  for (std::size_t at = 0; at < good.size(); at += 13) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 8);
    files.set_content(path, bytes);
    const auto report = must(verify_store(kStore, {}, files));
    REQUIRE(report.faults.size() == 1);
    REQUIRE(report.faults[0].kind == "index");
    REQUIRE(report.faults[0].file == "log/" + indexes[0]);
    REQUIRE(report.faults[0].position == at);
    REQUIRE(report.events == 240);
  }
  for (const std::string& bytes : {good.substr(0, good.size() / 2), good + "more", std::string()}) {
    files.set_content(path, bytes);
    CHECK(must(verify_store(kStore, {}, files)).faults.size() == 1);
  }
  files.set_content(path, files.content(kStore / "log" / indexes[1]));  // of other bytes
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  files.erase(path);
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
}

TEST_CASE("verify tells a torn tail from a fault", "[eventstore][inspect]") {
  FaultFs files;
  fill(files, 2, 5);
  files.lose_power();
  files.erase(kStore / "HEAD");  // else it tells that all of this was durable
  const Path segment = kStore / "log" / files.names(kStore / "log").back();
  const std::string whole = files.content(segment);
  files.set_content(segment, whole.substr(0, whole.size() - 100));
  const auto report = must(verify_store(kStore, {}, files));
  CHECK(report.faults.empty());
  CHECK(report.events == 5);
  CHECK(report.torn_tail_bytes > 100);
}

TEST_CASE("verify beside a running writer looks at what is durable only", "[eventstore][inspect]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  must(append_durably(*store, sample_transaction(1, 5)));
  // A large transaction is open, a good part of it on the disk.
  must(store->begin({.source = {1, 20, 0}, .source_xid = 1, .commit_time = {}, .snapshot = false}));
  for (const StoredEvent& event : sample_transaction(2, 1000, 100).events)
    must(store->add(event.view()));
  const auto report = must(verify_store(kStore, {}, files));
  CHECK(report.faults.empty());
  CHECK(report.events == 5);
  CHECK(report.torn_tail_bytes == 0);
}

TEST_CASE("verify counts an unfinished transaction of many segments as torn",
          "[eventstore][inspect]") {
  FaultFs files;
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    must(append_durably(*store, sample_transaction(1, 5)));
    must(store->begin(
        {.source = {1, 20, 0}, .source_xid = 1, .commit_time = {}, .snapshot = false}));
    for (const StoredEvent& event : sample_transaction(2, 1000, 100).events)
      must(store->add(event.view()));
    files.die_at(1);  // so that closing can't take it back
  }
  files.kill_processes();
  REQUIRE(files.names(kStore / "log").size() > 3);
  const auto report = must(verify_store(kStore, {}, files));
  CHECK(report.faults.empty());
  CHECK(report.torn_tail_bytes > 80'000);
  const auto store = must(EventStore::open(kStore, small_options(files)));
  CHECK(store->durable_end().value == 5);
  CHECK(files.names(kStore / "log").size() == 1);
}
