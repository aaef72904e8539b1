#include <fstream>
#include <iterator>
#include <map>

#include "base/bytes.h"
#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "eventstore/log/segment_rewriter.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
const StorePaths kPaths{kStore};

std::string golden(const std::string& name) {
  std::ifstream file(std::string(MILLRACE_SOURCE_DIR "/tests/golden/") + name);
  std::string hex;
  for (std::istreambuf_iterator<char> byte(file), end; byte != end; ++byte)
    if (std::isxdigit(static_cast<unsigned char>(*byte)) != 0) hex += *byte;
  return hex;
}

/// By offset, with the ordinal in its transaction and that one's commit.
struct Seen {
  StoredEvent event;
  std::uint64_t ordinal = 0, commit = 0;
  bool operator==(const Seen&) const = default;
};
using Contents = std::map<std::uint64_t, Seen>;

/// Reads on to the end; checks that transactions are bracketed as their flags say.
Result<Contents> read_on(LogReader& reader) {
  Contents contents;
  std::optional<std::uint64_t> open;  // commit of the transaction that is being given
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader.next());
    if (batch == nullptr) break;
    if (open) REQUIRE(*open == batch->info.source.commit);
    open = batch->info.source.commit;
    while (const EventView* event = batch->next())
      contents[event->offset.value] = {
          {std::string(event->category), std::string(event->key), std::string(event->type),
           std::string(event->payload), std::string(event->metadata), event->flags},
          batch->ordinal + event->offset.value - batch->first.value,
          batch->info.source.commit};
    REQUIRE(batch->status());
    if (batch->last_of_transaction) {
      REQUIRE(batch->info.source.end == batch->info.source.commit + 5);
      open.reset();
    }
  }
  REQUIRE_FALSE(open);
  REQUIRE(reader.position() == reader.durable_end());
  return contents;
}

Result<Contents> read_all(FileSystem& files, Offset from = {},
                          std::vector<std::string> categories = {}) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto reader,
      LogReader::open(kStore,
                      {.from = from, .categories = std::move(categories), .files = &files}));
  return read_on(*reader);
}

StoreId id_of(FileSystem& files) { return must(read_description(files, kPaths)).id; }

Result<RewriteReport> rewrite(FileSystem& files, std::size_t index, const Judge& judge) {
  const auto segments = must(list_segments(files, kPaths));
  REQUIRE(index + 1 < segments.size());
  return rewrite_segment(kPaths, id_of(files), segments[index], segments[index + 1], judge,
                         {.files = &files, .clock = &Clock::system()});
}

Judge drop_if(std::function<bool(std::uint64_t offset)> dropped) {
  return [dropped = std::move(dropped)](const EventView& event, const Batch&) -> Result<Verdict> {
    return Verdict{.kind = dropped(event.offset.value) ? Verdict::Kind::kSuperseded
                                                       : Verdict::Kind::kKeep};
  };
}

Judge expire_if(std::function<bool(std::uint64_t offset)> dropped,
                RemovalKind kind = RemovalKind::kExpired) {
  return [=](const EventView& event, const Batch&) -> Result<Verdict> {
    return Verdict{
        .kind = dropped(event.offset.value) ? Verdict::Kind::kRemoved : Verdict::Kind::kKeep,
        .removal = kind};
  };
}

/// Small and large transactions; the large ones lie in several segments.
void fill(FaultFs& files, std::uint64_t count) {
  const auto store = must(EventStore::open(kStore, small_options(files)));
  for (std::uint64_t number = 1; number <= count; ++number)
    must(append_durably(*store, sample_transaction(number, number % 5 == 0 ? 400 : number % 4)));
}

Contents without_dropped(Contents contents, const std::function<bool(std::uint64_t)>& dropped) {
  std::erase_if(contents, [&](const auto& entry) { return dropped(entry.first); });
  return contents;
}

/// All sealed segments that no transaction was open behind; the last one is never rewritten.
std::size_t sealed(FileSystem& files) { return must(list_segments(files, kPaths)).size() - 1; }

void check_whole(FileSystem& files, const Contents& expected) {
  REQUIRE(must(read_all(files)) == expected);
  const auto report = must(verify_store(kStore, {}, files));
  for (const Fault& fault : report.faults)
    FAIL(fault.file + ": " + fault.kind + " " + fault.detail);
  REQUIRE(report.events == expected.size());
}

}  // namespace

TEST_CASE("I15: what a rewritten segment keeps is what was there, at the same offsets",
          "[eventstore][rewrite]") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    FaultFs files;
    fill(files, 14);
    Contents expected = must(read_all(files));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 3; ++round) {
      for (std::size_t index = 0; index < sealed(files); ++index) {
        if (random() % 4 == 0) continue;
        // Runs of events, so that whole batches, transactions and segments go.
        const std::uint64_t run = 1 + random() % 300, salt = random(), share = random() % 5;
        const auto segments = must(list_segments(files, kPaths));
        const auto dropped = [&](std::uint64_t offset) {
          return offset >= segments[index] && offset < segments[index + 1] &&
                 checksum(std::to_string(offset / run), salt) % 4 < share;
        };
        must(rewrite(files, index, drop_if(dropped)));
        expected = without_dropped(std::move(expected), dropped);
        check_whole(files, expected);
      }
    }
    // The store goes on, and any offset is a place to start.
    {
      const auto store = must(EventStore::open(kStore, small_options(files)));
      must(append_durably(*store, sample_transaction(15, 3)));
    }
    const Contents now = must(read_all(files));
    REQUIRE(now.size() == expected.size() + 3);
    for (std::uint64_t from = 1; from < now.rbegin()->first; from += 97) {
      const auto below = [&](std::uint64_t offset) { return offset < from; };
      REQUIRE(must(read_all(files, {from})) == without_dropped(now, below));
    }
  }
}

TEST_CASE("a transaction across segments keeps its first and last batch flags, whatever goes",
          "[eventstore][rewrite]") {
  FaultFs files;
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    must(append_durably(*store, sample_transaction(1, 3)));
    must(append_durably(*store, sample_transaction(2, 900)));
    must(append_durably(*store, sample_transaction(3, 400)));
  }
  REQUIRE(sealed(files) >= 4);
  const Contents before = must(read_all(files));
  // Each subset of the sealed segments emptied, in an order that mixes generations.
  for (std::size_t emptied = 1; emptied < (std::size_t{1} << sealed(files)); ++emptied) {
    CAPTURE(emptied);
    const auto disk = files.clone();
    Contents expected = before;
    const auto segments = must(list_segments(*disk, kPaths));
    for (std::size_t index = sealed(files); index-- > 0;) {
      if ((emptied >> index & 1) == 0) continue;
      const auto dropped = [&](std::uint64_t offset) {
        return offset >= segments[index] && offset < segments[index + 1];
      };
      must(rewrite(*disk, index, drop_if(dropped)));
      expected = without_dropped(std::move(expected), dropped);
    }
    check_whole(*disk, expected);
    for (const char* category : {"public.table0", "public.table1"}) {
      const Contents some = must(read_all(*disk, {}, {category}));
      for (const auto& [offset, seen] : expected)
        if (seen.event.category == category) REQUIRE(some.at(offset) == seen);
    }
  }
}

TEST_CASE("F30, I8: every flipped bit and every cut of a rewritten segment is found",
          "[eventstore][rewrite]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.segment_bytes = 8 << 10;
  {
    const auto store = must(EventStore::open(kStore, options));
    for (std::uint64_t number = 1; number <= 6; ++number)
      must(append_durably(*store, sample_transaction(number, 7 + number)));
  }
  must(rewrite(files, 0, expire_if([](std::uint64_t offset) { return offset % 3 != 0; })));
  const Path path = kPaths.segment(0);
  const std::string good = files.content(path);
  const std::uint64_t end_of_events =
      must(decode_segment_header(std::string_view(good).substr(0, kSegmentHeaderBytes)))
          .rewritten->control;
  const Contents expected = must(read_all(files));
  const auto check_found = [&](std::uint64_t at) {
    CAPTURE(at);
    if (must(verify_store(kStore, {}, files)).faults.empty()) FAIL("not found");
  };
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      files.set_content(path, std::move(bad));
      check_found(at);
      if (at % 7 == 0) {
        const auto read = read_all(files);
        if (read) REQUIRE(*read == expected);  // a place that a reader has no need of
      }
    }
  }
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    files.set_content(path, good.substr(0, cut));
    check_found(cut);
    const auto read = read_all(files);
    if (read) REQUIRE((cut > end_of_events && *read == expected));
  }
  files.set_content(path, good + "more");
  check_found(good.size());
  files.set_content(path, good);
  check_whole(files, expected);
}

TEST_CASE("F34, F35: another generation's header, or a missing neighbour, is found",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 12);
  const std::string before = files.content(kPaths.segment(0));
  must(rewrite(files, 0, drop_if([](std::uint64_t offset) { return offset % 3 == 0; })));
  const std::string first = files.content(kPaths.segment(0));
  must(rewrite(files, 0, drop_if([](std::uint64_t offset) { return offset % 5 == 0; })));
  const std::string second = files.content(kPaths.segment(0));
  const Contents expected = must(read_all(files));
  for (const auto& [page, batches] : {std::pair(first, second), std::pair(second, first),
                                      std::pair(before, second), std::pair(second, before)}) {
    files.set_content(kPaths.segment(0),
                      page.substr(0, kSegmentHeaderBytes) + batches.substr(kSegmentHeaderBytes));
    CHECK_FALSE(must(verify_store(kStore, {}, files)).faults.empty());
    CHECK_FALSE(read_all(files));
  }
  // An older generation that came back is whole: the log is right, there is more in it.
  files.set_content(kPaths.segment(0), first);
  CHECK(must(read_all(files)).size() > expected.size());

  // The segments behind a rewritten one are gone: it can't be the last.
  const auto segments = must(list_segments(files, kPaths));
  for (std::size_t i = 1; i < segments.size(); ++i) files.erase(kPaths.segment(segments[i]));
  files.erase(kPaths.head());
  CHECK(read_all(files).error().code() == ErrorCode::kCorruption);
  CHECK(EventStore::open(kStore, small_options(files)).error().code() == ErrorCode::kCorruption);
  CHECK_FALSE(must(verify_store(kStore, {}, files)).faults.empty());
}

TEST_CASE("F42: a crash, ENOSPC or EIO at each step of a rewrite leaves the old or the new segment",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 12);
  const Contents before = must(read_all(files));
  const auto dropped = [&](std::uint64_t offset) {
    return offset % 3 != 1 && offset < must(list_segments(files, kPaths))[1];
  };
  const Contents after = without_dropped(before, dropped);
  std::uint64_t number = 100;
  const auto check = [&](FaultFs& disk) {
    {
      const auto store = must(EventStore::open(kStore, small_options(disk)));
      for (const std::string& name : disk.names(kPaths.log()))
        CHECK_FALSE(name.ends_with(".tmp"));  // no leftovers
      must(append_durably(*store, sample_transaction(number++, 2)));
    }
    Contents now = must(read_all(disk));
    std::erase_if(now, [](const auto& entry) { return entry.second.commit >= 1000; });
    CHECK((now == before || now == after));
    CHECK(must(verify_store(kStore, {}, disk)).faults.empty());
    return now == after;
  };
  bool ended_old = false, ended_new = false;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    bool hit = false;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const auto disk = files.clone();
      disk->die_at(step);
      const auto report = rewrite(*disk, 0, drop_if(dropped));
      hit = disk->fault_was_hit();
      if (!hit) CHECK(report);  // without its index a segment is none the worse
      if (seed == 0)
        disk->lose_power();
      else if (seed == 1)
        disk->kill_processes();
      else
        disk->lose_power(seed);
      (check(*disk) ? ended_new : ended_old) = true;
    }
    for (const ErrorCode code : {ErrorCode::kNoSpace, ErrorCode::kIo}) {
      const auto disk = files.clone();
      disk->fail_at(step, code);
      const auto report = rewrite(*disk, 0, drop_if(dropped));
      if (disk->fault_was_hit() && !report) CHECK(report.error().code() == code);
      disk->clear_faults();
      check(*disk);
      must(rewrite(*disk, 0, drop_if(dropped)));  // and it works the next time
      CHECK(check(*disk));
    }
    if (!hit) break;
  }
  CHECK((ended_old && ended_new));
}

TEST_CASE("F42: a reader finishes on the old generation and goes on in the next segment",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 14);
  const Contents before = must(read_all(files));
  const auto segments = must(list_segments(files, kPaths));
  const auto old_reader =
      must(LogReader::open(kStore, {.from = {}, .categories = {}, .files = &files}));
  const auto first = must(old_reader->next());
  REQUIRE(first != nullptr);
  Contents seen;
  while (const EventView* event = first->next())
    seen[event->offset.value] = before.at(event->offset.value);
  // Under it the first and the third segment change, each twice.
  for (const std::size_t index : {0u, 2u, 0u, 2u})
    must(rewrite(files, index, drop_if([](std::uint64_t) { return true; })));
  seen.merge(must(read_on(*old_reader)));
  CHECK(seen == without_dropped(before, [&](std::uint64_t offset) {
          return offset >= segments[2] && offset < segments[3];
        }));
}

TEST_CASE("who comes back and needs expired events is told OFFSET_GONE, who starts anew is not",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 14);
  const auto segments = must(list_segments(files, kPaths));
  const std::uint64_t middle = segments[1] + (segments[2] - segments[1]) / 2;
  const auto is_expired = [&](std::uint64_t offset) {
    return offset >= segments[1] && offset < middle && offset % 3 == 1;  // not in every table
  };
  must(rewrite(files, 1, expire_if(is_expired)));
  must(rewrite(files, 1, drop_if([](std::uint64_t offset) { return offset % 7 == 0; })));
  CHECK(read_all(files));
  CHECK(read_all(files, {middle}));
  for (const std::uint64_t from : {std::uint64_t{1}, segments[0] + 1, segments[1], middle - 3}) {
    const auto read = read_all(files, {from});
    REQUIRE_FALSE(read);
    CHECK(read.error().code() == ErrorCode::kGone);
    CHECK(read.error().message().find("OFFSET_GONE") != std::string::npos);
    CHECK_FALSE(read.error().hint().empty());
  }
  CHECK(read_all(files, {1}, {"another"}));
  // What was erased is told by a tombstone behind it.
  const auto disk = files.clone();
  must(rewrite(*disk, 2, expire_if([](std::uint64_t) { return true; }, RemovalKind::kErased)));
  CHECK(read_all(*disk, {middle}));
  must(rewrite(files, 2, expire_if([](std::uint64_t) { return true; }, RemovalKind::kTombstone)));
  CHECK(read_all(files, {middle}).error().code() == ErrorCode::kGone);
}

TEST_CASE("who reads some categories is told OFFSET_GONE for what went of theirs, and no others",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 14);
  const auto expire = [](RemovalKind kind) -> Judge {
    return [=](const EventView& event, const Batch&) -> Result<Verdict> {
      const bool gone = event.category == "public.table1";
      return Verdict{.kind = gone ? Verdict::Kind::kRemoved : Verdict::Kind::kKeep,
                     .removal = kind};
    };
  };
  must(rewrite(files, 1, expire(RemovalKind::kExpired)));
  const auto told = [&](std::vector<std::string> categories) {
    const auto read = read_all(files, {1}, std::move(categories));
    if (!read) CHECK(read.error().code() == ErrorCode::kGone);
    if (!read) CHECK(read.error().message().find("public.table1") != std::string::npos);
    return !read;
  };
  CHECK(told({}));
  CHECK(told({"public.table1"}));
  CHECK(told({"public.table2", "public.table1"}));
  CHECK(told({"another", "public.table1", "public.table2"}));
  CHECK_FALSE(told({"public.table2", "public.table0"}));
  CHECK_FALSE(told({"public.table", "another", "public.table11"}));
  // What a repair could not keep may have been anybody's.
  must(rewrite(files, 2, expire(RemovalKind::kLost)));
  CHECK_FALSE(read_all(files, {1}, {"public.table2", "public.table0"}));
}

TEST_CASE("a segment of which everything stays is left alone; pace may stop a rewrite",
          "[eventstore][rewrite]") {
  FaultFs files;
  fill(files, 12);
  const std::string before = files.content(kPaths.segment(0));
  const auto report = must(rewrite(files, 0, drop_if([](std::uint64_t) { return false; })));
  CHECK(report.bytes_after == report.bytes_before);
  CHECK(report.events_removed == 0);
  CHECK(files.content(kPaths.segment(0)) == before);
  const Judge fails = [](const EventView&, const Batch&) -> Result<Verdict> {
    return Error(ErrorCode::kCancelled, "stop");
  };
  CHECK(rewrite(files, 0, fails).error().code() == ErrorCode::kCancelled);
  CHECK(files.content(kPaths.segment(0)) == before);
  CHECK(files.names(kPaths.log()).size() == sealed(files) + 1);
}

TEST_CASE("a completed event keeps its place and is not partial any more",
          "[eventstore][rewrite]") {
  FaultFs files;
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    StoredTransaction transaction = sample_transaction(1, 400);
    transaction.events[7].flags = EventFlags::kPartial;
    must(append_durably(*store, transaction));
    must(append_durably(*store, sample_transaction(2, 3)));
  }
  Contents expected = must(read_all(files));
  const Judge complete = [](const EventView& event, const Batch&) -> Result<Verdict> {
    if (!has(event.flags, EventFlags::kPartial)) return Verdict{};
    return Verdict{.kind = Verdict::Kind::kCompleted, .payload = "complete"};
  };
  CHECK(must(rewrite(files, 0, complete)).events_completed == 1);
  expected.at(7).event.payload = "complete";
  expected.at(7).event.flags = EventFlags::kNone;
  check_whole(files, expected);
}

TEST_CASE("the bytes of a rewritten segment are those of version 1 for ever",
          "[eventstore][rewrite][format]") {
  SegmentHeader header;
  for (std::size_t i = 0; i < header.store.bytes.size(); ++i)
    header.store.bytes[i] = static_cast<char>(i + 1);
  header.segment = 1000;
  header.created = {1'767'225'600'000'001};
  header.mark = {.end = {1000}, .segment = 1000, .position = kSegmentHeaderBytes};
  header.rewritten = {.generation = 3,
                      .at = {1'767'225'600'000'009},
                      .end = {1500},
                      .origin = {.bytes_used = 0x20000, .chain = 0x1122334455667788},
                      .own = {.bytes_used = 0x10000, .chain = 0x8877665544332211},
                      .control = 0xff00};
  std::string page(kSegmentHeaderBytes, '\0');
  encode_segment_header(header, page.data());
  CHECK(to_hex(page.substr(0, 192) + page.substr(4088)) == golden("log_rewritten_header.hex"));
  CHECK(must(decode_segment_header(page)).rewritten == header.rewritten);
  // What is known only at its end is no part of the chain.
  const std::uint64_t chain = chain_after_page(page);
  header.rewritten->own = {};
  header.rewritten->control = 0;
  encode_segment_header(header, page.data());
  CHECK(chain_after_page(page) == chain);
  CHECK_FALSE(decode_segment_header(page));

  const std::vector<Removal> removals{{.category = "public.orders",
                                       .kind = RemovalKind::kExpired,
                                       .first = {1000},
                                       .last = {1400},
                                       .count = 7},
                                      {.category = "cart",
                                       .kind = RemovalKind::kErased,
                                       .first = {1499},
                                       .last = {1499},
                                       .count = 1}};
  const std::string payload = encode_removals(removals);
  CHECK(to_hex(payload) == golden("log_control_payload.hex"));
  CHECK(must(decode_removals(payload)) == removals);
  for (std::size_t cut = 0; cut < payload.size(); ++cut)
    CHECK_FALSE(decode_removals(payload.substr(0, cut)));
}
