#include "eventstore/log/recovery.h"

#include <algorithm>
#include <functional>
#include <set>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using log::TailBytes;
using log::TailVerdict;

namespace {

const Path kStore = "/store";
const Path kFirstSegment = "/store/log/00000000000000000000.log";

Result<std::unique_ptr<EventStore>> open_small(FaultFs& files) {
  return EventStore::open(kStore, small_options(files));
}

/// A store with `history`, each transaction synced alone, as a power loss may leave it at worst:
/// HEAD is gone, so that the segments alone tell what was durable.
std::unique_ptr<FaultFs> disk_with(const History& history) {
  auto files = std::make_unique<FaultFs>();
  {
    const auto store = must(open_small(*files));
    for (const StoredTransaction& transaction : history) must(append_durably(*store, transaction));
  }
  files->lose_power();
  files->erase(kStore / "HEAD");
  return files;
}

History samples(std::uint64_t count, std::size_t events = 3, std::size_t payload_bytes = 60) {
  History history;
  for (std::uint64_t number = 1; number <= count; ++number)
    history.push_back(sample_transaction(number, events, payload_bytes));
  return history;
}

Path last_segment(FaultFs& files) { return kStore / "log" / files.names(kStore / "log").back(); }

/// Where each batch of a segment starts, and its end.
std::vector<std::size_t> batch_positions(const std::string& segment) {
  std::vector<std::size_t> positions;
  std::size_t position = log::kSegmentHeaderBytes;
  while (position + log::kBatchHeaderBytes <= segment.size() &&
         load_le<std::uint32_t>(segment.data() + position) == log::kBatchMagic) {
    positions.push_back(position);
    position += log::batch_length(segment.data() + position);
  }
  positions.push_back(position);
  return positions;
}

/// The reader's and verify's and the writer's opinion of a damaged disk. None may serve anything
/// that was not written.
struct Outcome {
  History read;
  std::optional<Error> read_error;
  bool verify_found = false;  // a fault or a torn tail
  std::optional<Error> open_error;
  History after_open;
};

Outcome examine(const FaultFs& disk, const History& written) {
  Outcome outcome;
  const auto files = disk.clone();
  outcome.read = read_history(kStore, *files, &outcome.read_error);
  REQUIRE(is_prefix(outcome.read, written));
  const auto report = verify_store(kStore, {}, *files);
  outcome.verify_found = !report || !report->faults.empty() || report->torn_tail_bytes != 0;
  const auto before = files->content(last_segment(*files));
  auto store = open_small(*files);
  if (!store) {
    outcome.open_error = store.error();
    REQUIRE(files->content(last_segment(*files)) == before);  // refused: nothing was changed
    return outcome;
  }
  const Offset end = (*store)->durable_end();
  std::optional<Error> error;
  outcome.after_open = read_history(kStore, *files, &error);
  REQUIRE(is_prefix(outcome.after_open, written));
  // The reader without a writer and the recovered store agree on where the log ends.
  if (!outcome.read_error) REQUIRE(outcome.after_open == outcome.read);
  if (!error) {
    std::uint64_t events = 0;
    for (const auto& transaction : outcome.after_open) events += transaction.events.size();
    REQUIRE(end.value == events);
  }
  return outcome;
}

}  // namespace

TEST_CASE("every kind of tail has one verdict", "[eventstore][recovery]") {
  for (const TailBytes bytes : {TailBytes::kNothing, TailBytes::kTorn, TailBytes::kDamaged})
    for (const bool below_durable : {false, true})
      for (const bool synced_before : {false, true}) {
        const TailVerdict verdict = log::judge(
            {.bytes = bytes, .below_durable = below_durable, .synced_before = synced_before});
        if (below_durable || synced_before || bytes == TailBytes::kDamaged)
          CHECK(verdict == TailVerdict::kRefuse);
        else if (bytes == TailBytes::kNothing)
          CHECK(verdict == TailVerdict::kClean);
        else
          CHECK(verdict == TailVerdict::kCut);
      }
}

TEST_CASE("F29: a cut at any byte of the last batch loses only that transaction",
          "[eventstore][recovery]") {
  const History written = samples(3);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  REQUIRE(positions.size() == 4);
  for (std::size_t cut = positions[2]; cut < positions[3]; ++cut) {
    disk->set_content(kFirstSegment, whole.substr(0, cut));
    const Outcome outcome = examine(*disk, written);
    REQUIRE_FALSE(outcome.open_error);
    REQUIRE(outcome.after_open.size() == 2);
    if (cut > positions[2]) REQUIRE(outcome.verify_found);
  }
}

TEST_CASE(
    "F29: a cut at any byte of a transaction of several batches and segments takes all of it back",
    "[eventstore][recovery]") {
  const History written{sample_transaction(1, 2), sample_transaction(2, 250, 100)};
  const auto disk = disk_with(written);
  const auto names = disk->names(kStore / "log");
  REQUIRE(names.size() >= 3);
  // As a crash would leave it: the files after the one that is cut are not there yet.
  auto remaining = disk->clone();
  for (std::size_t i = names.size(); i-- > 0;) {
    const Path path = kStore / "log" / names[i];
    const std::string whole = remaining->content(path);
    const std::size_t first = i == 0 ? batch_positions(whole)[1] : log::kSegmentHeaderBytes;
    for (std::size_t cut = first; cut < whole.size(); cut += (cut % 512 < 8 ? 1 : 61)) {
      remaining->set_content(path, whole.substr(0, cut));
      const Outcome outcome = examine(*remaining, written);
      REQUIRE_FALSE(outcome.open_error);
      REQUIRE(outcome.after_open == History{written[0]});
    }
    remaining->erase(path);
  }
}

TEST_CASE("F29: a cut below what HEAD calls durable is refused", "[eventstore][recovery]") {
  const History written = samples(3);
  FaultFs files;
  {
    const auto store = must(open_small(files));
    for (const auto& transaction : written) must(append_durably(*store, transaction));
  }
  files.kill_processes();  // the machine lives on: HEAD counts
  const std::string whole = files.content(kFirstSegment);
  const auto positions = batch_positions(whole);
  for (std::size_t cut = positions[2]; cut < positions[3]; ++cut) {
    files.set_content(kFirstSegment, whole.substr(0, cut));
    const Error error = open_small(files).error();
    REQUIRE(error.code() == ErrorCode::kCorruption);
    REQUIRE(files.content(kFirstSegment).size() == cut);
    REQUIRE_FALSE(must(verify_store(kStore, {}, files)).faults.empty());
  }
}

TEST_CASE("F24: zeros from any sector of the last batch on are a torn tail",
          "[eventstore][recovery]") {
  const History written = samples(3, 10, 100);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  REQUIRE(positions.size() == 4);
  for (std::size_t sector = positions[2] / 512 * 512; sector < positions[3]; sector += 512) {
    const std::size_t from = std::max(sector, positions[2]);
    std::string damaged = whole.substr(0, from);
    damaged.resize(whole.size() + 8192);
    disk->set_content(kFirstSegment, damaged);
    const Outcome outcome = examine(*disk, written);
    REQUIRE_FALSE(outcome.open_error);
    REQUIRE(outcome.after_open.size() == 2);
  }
}

TEST_CASE("F24: zeros are never a record, however many", "[eventstore][recovery]") {
  const History written = samples(2);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  for (std::size_t zeros = 1; zeros < 20'000; zeros = zeros * 2 + 1) {
    disk->set_content(kFirstSegment, whole + std::string(zeros, '\0'));
    const Outcome outcome = examine(*disk, written);
    REQUIRE_FALSE(outcome.open_error);
    REQUIRE(outcome.after_open == written);
    REQUIRE_FALSE(outcome.verify_found);
  }
}

TEST_CASE("F25: stale bytes behind the end are never taken for batches, nor for a torn one",
          "[eventstore][recovery]") {
  const History written = samples(2);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  std::string stale;
  SECTION("batches of this segment, from elsewhere in it") {
    stale = whole.substr(positions[0], positions[1] - positions[0]);
  }
  SECTION("batches of another segment of this store") {
    const auto larger = disk_with(samples(40, 10, 100));
    stale = larger->content(last_segment(*larger)).substr(log::kSegmentHeaderBytes);
  }
  SECTION("what followed here in another store") {
    const auto other = disk_with(samples(4));
    stale = other->content(kFirstSegment).substr(positions[2]);
  }
  SECTION("noise") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 5000; ++i) stale += static_cast<char>(random());
  }
  for (std::size_t skipped = 0; skipped < stale.size(); skipped += 8) {
    disk->set_content(kFirstSegment, whole + stale.substr(skipped));
    const Outcome outcome = examine(*disk, written);
    REQUIRE(outcome.verify_found);
    // No write of ours leaves them there, and they may cover what was acknowledged.
    if (outcome.open_error)
      REQUIRE(outcome.open_error->code() == ErrorCode::kCorruption);
    else
      REQUIRE(outcome.after_open == written);
    if (stale.substr(skipped, 8) != std::string(8, '\0') && stale.size() - skipped >= 128)
      REQUIRE(outcome.open_error);
  }
  // Behind a sector that was never written they may be a later part of the same write.
  const std::string gap(1024 - whole.size() % 512, '\0');
  disk->set_content(kFirstSegment, whole + gap + stale);
  CHECK_FALSE(examine(*disk, written).open_error);
  // Nothing of them stays where the next batches will lie.
  { must(open_small(*disk)); }
  CHECK(disk->content(kFirstSegment) == whole);
  // And what is appended afterwards is not mixed up with them.
  disk->erase(kStore / "HEAD");
  disk->set_content(kFirstSegment, whole + gap + stale);
  {
    const auto store = must(open_small(*disk));
    must(append_durably(*store, sample_transaction(3, 1)));
  }
  CHECK(read_history(kStore, *disk) == History{written[0], written[1], sample_transaction(3, 1)});
}

TEST_CASE("I8: a sector of noise over the last batch is damage, never a torn tail",
          "[eventstore][recovery]") {
  // The batch starts at each place in a sector, so that its header lies in one or in two.
  std::mt19937_64 random(1);
  std::set<std::size_t> places;
  for (std::size_t filling = 1; filling <= 512; filling += 8) {
    const History written{sample_transaction(1, 1, filling), sample_transaction(2, 10, 100)};
    const auto disk = disk_with(written);
    const std::string whole = disk->content(kFirstSegment);
    const std::size_t start = batch_positions(whole)[1];
    places.insert(start % 512);
    for (std::size_t at = start; at < whole.size(); at = log::align_up(at + 1, 512)) {
      std::string damaged = whole;
      damaged.resize(log::align_up(whole.size(), 512));
      const std::size_t end = log::align_up(at + 1, 512);
      for (std::size_t i = at; i < end; ++i) damaged[i] = static_cast<char>(random());
      disk->set_content(kFirstSegment, damaged);
      const Outcome outcome = examine(*disk, written);
      REQUIRE(outcome.open_error);
      REQUIRE(outcome.open_error->code() == ErrorCode::kCorruption);
      REQUIRE(outcome.read_error);
      REQUIRE(outcome.verify_found);
    }
  }
  CHECK(places.size() == 64);
}

TEST_CASE("F23: any sectors of the last write may be missing, and that is a torn tail",
          "[eventstore][recovery]") {
  for (std::size_t filling = 1; filling <= 512; filling += 8) {
    const History written{sample_transaction(1, 1, filling), sample_transaction(2, 10, 100)};
    const auto disk = disk_with(written);
    const std::string whole = disk->content(kFirstSegment);
    std::vector<std::size_t> pieces{batch_positions(whole)[1]};
    while (pieces.back() < whole.size())
      pieces.push_back(std::min(log::align_up(pieces.back() + 1, 512), whole.size()));
    for (std::size_t missing = 1; missing < std::size_t{1} << (pieces.size() - 1); ++missing) {
      std::string torn = whole;
      for (std::size_t i = 0; i + 1 < pieces.size(); ++i)
        if ((missing >> i & 1) != 0)
          std::fill(torn.begin() + static_cast<std::ptrdiff_t>(pieces[i]),
                    torn.begin() + static_cast<std::ptrdiff_t>(pieces[i + 1]), '\0');
      disk->set_content(kFirstSegment, torn);
      const Outcome outcome = examine(*disk, written);
      REQUIRE_FALSE(outcome.open_error);
      if (torn != whole) REQUIRE(outcome.after_open == History{written[0]});
    }
  }
}

TEST_CASE("I8: nothing that HEAD once called durable is cut off, also after a restart",
          "[eventstore][recovery]") {
  const History written = samples(3, 10, 100);
  FaultFs files;
  bool all_durable = false;
  SECTION("a store that was closed") {
    const auto store = must(open_small(files));
    for (const auto& transaction : written) must(append_durably(*store, transaction));
    all_durable = true;
  }
  SECTION("a store that was opened after a kill") {
    {
      const auto store = must(open_small(files));
      for (const auto& transaction : written) must(append_durably(*store, transaction));
      files.die_at(1);
    }
    files.kill_processes();
    const auto store = must(open_small(files));
    files.die_at(1);
    all_durable = true;
  }
  SECTION("what was published and written back before the power went") {
    const auto store = must(open_small(files));
    for (const auto& transaction : samples(2, 10, 100)) must(append_durably(*store, transaction));
    must(must(files.open(kStore / "HEAD", OpenMode::kReadWrite))->sync());
    must(append_durably(*store, written[2]));
    files.die_at(1);
  }
  files.lose_power();
  const std::string whole = files.content(kFirstSegment);
  const auto positions = batch_positions(whole);
  REQUIRE(positions.size() == 4);
  for (std::size_t cut = positions[1]; cut < positions[3]; cut += 8) {
    files.set_content(kFirstSegment, whole.substr(0, cut));
    const auto report = must(verify_store(kStore, {}, *files.clone()));
    const auto copy = files.clone();
    const auto opened = open_small(*copy);
    CAPTURE(cut);
    REQUIRE(opened.has_value() == (!all_durable && cut >= positions[2]));
    std::optional<Error> read_error;
    read_history(kStore, *files.clone(), &read_error);
    REQUIRE(read_error.has_value() == !opened);
    if (opened) continue;
    REQUIRE(opened.error().code() == ErrorCode::kCorruption);
    REQUIRE_FALSE(report.faults.empty());
    REQUIRE(copy->content(kFirstSegment).size() == cut);
  }
}

TEST_CASE("F30: every flipped bit of a small segment is found and nothing wrong is served",
          "[eventstore][recovery]") {
  const History written = samples(3, 2, 20);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    disk->set_content(kFirstSegment, damaged);
    const Outcome outcome = examine(*disk, written);
    REQUIRE(outcome.verify_found);
    REQUIRE(outcome.open_error);  // damage is no crash: never cut off silently
    REQUIRE(outcome.open_error->code() == ErrorCode::kCorruption);
    REQUIRE(outcome.read_error);
  }
}

TEST_CASE("F30: every byte of a sealed segment set to 0 or 255 is found",
          "[eventstore][recovery]") {
  const History written = samples(6, 20, 100);
  const auto disk = disk_with(written);
  REQUIRE(disk->names(kStore / "log").size() >= 2);
  const std::string whole = disk->content(kFirstSegment);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char value : {'\0', '\xff'}) {
      if (whole[at] == value) continue;
      std::string damaged = whole;
      damaged[at] = value;
      disk->set_content(kFirstSegment, damaged);
      const auto report = verify_store(kStore, {}, *disk);
      REQUIRE((!report || !report->faults.empty()));
      if (at % 16 != 0) continue;
      std::optional<Error> error;
      REQUIRE(is_prefix(read_history(kStore, *disk, &error), written));
      REQUIRE(error);
    }
  }
}

TEST_CASE("F29: a cut at any byte of store.json, HEAD or LOCK is found or without effect",
          "[eventstore][recovery]") {
  const History written = samples(2);
  FaultFs files;
  {
    const auto store = must(open_small(files));
    for (const auto& transaction : written) must(append_durably(*store, transaction));
  }
  for (const std::string name : {"store.json", "HEAD", "LOCK"}) {
    const std::string whole = files.content(kStore / name);
    for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
      const auto copy = files.clone();
      copy->set_content(kStore / name, whole.substr(0, cut));
      std::optional<Error> error;
      const History read = read_history(kStore, *copy, &error);
      REQUIRE((error || read == written));
      if (error) REQUIRE(error->code() == ErrorCode::kCorruption);
      if (const auto store = open_small(*copy))
        REQUIRE((*store)->durable_end().value == 6);
      else
        REQUIRE(store.error().code() == ErrorCode::kCorruption);
    }
  }
}

TEST_CASE("F24: zeros from any sector of a segment on never become a record",
          "[eventstore][recovery]") {
  const History written = samples(5, 8, 100);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  for (std::size_t sector = 0; sector < whole.size(); sector += 512) {
    disk->set_content(kFirstSegment,
                      whole.substr(0, sector) + std::string(whole.size() - sector, '\0'));
    const Outcome outcome = examine(*disk, written);
    // A cut header page is damage; behind it nothing tells the zeros from what never came.
    REQUIRE(outcome.open_error.has_value() == (sector < log::kSegmentHeaderBytes));
  }
}

TEST_CASE("F32: a sector that was written elsewhere is found, wherever it came from",
          "[eventstore][recovery]") {
  const History written = samples(4, 8, 100);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  REQUIRE(disk->names(kStore / "log").size() == 1);
  for (std::size_t to = 0; to + 512 <= whole.size(); to += 512)
    for (std::size_t from = 0; from + 512 <= whole.size(); from += 512) {
      const std::string sector = whole.substr(from, 512);
      if (sector == whole.substr(to, 512)) continue;
      std::string damaged = whole;
      damaged.replace(to, 512, sector);
      disk->set_content(kFirstSegment, damaged);
      REQUIRE(examine(*disk, written).verify_found);
    }
}

namespace {

/// `segment` with the header of the batch at `position` changed and its checksum right again.
std::string with_header(std::string segment, const StoreId& store, std::size_t position,
                        const std::function<void(char*)>& change) {
  char* header = segment.data() + position;
  change(header);
  log::stamp_batch_header(header, load_le<std::uint64_t>(header + log::kBatchChainAt),
                          load_le<std::uint64_t>(header + 104),
                          log::HeaderSeal(store, 0).at(position));
  return segment;
}

}  // namespace

TEST_CASE("B24, B26: a header whose checksum is right but that does not fit is damage",
          "[eventstore][recovery]") {
  const History written = samples(4, 8, 100);
  const auto disk = disk_with(written);
  const StoreId store = must(summarize_store(kStore, *disk)).id;
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  REQUIRE(positions.size() == 5);
  const auto add_to_length = [](std::int32_t by) {
    return [by](char* header) {
      store_le<std::uint32_t>(header + 4,
                              load_le<std::uint32_t>(header + 4) + static_cast<std::uint32_t>(by));
    };
  };
  const auto flags = [](std::uint16_t value) {
    return [value](char* header) { store_le<std::uint16_t>(header + 32, value); };
  };
  const auto count = [](std::uint32_t value) {
    return [value](char* header) { store_le<std::uint32_t>(header + 20, value); };
  };
  std::vector<std::function<void(char*)>> changes{add_to_length(8),
                                                  add_to_length(-8),
                                                  add_to_length(4096),
                                                  add_to_length(1 << 30),
                                                  flags(0),
                                                  flags(1),
                                                  flags(2),
                                                  count(7),
                                                  count(0)};
  for (std::size_t i = 0; i < changes.size(); ++i)
    for (std::size_t batch = 0; batch < 3; ++batch) {  // not the last, which might be torn
      CAPTURE(i, batch);
      disk->set_content(kFirstSegment, with_header(whole, store, positions[batch], changes[i]));
      const Outcome outcome = examine(*disk, written);
      REQUIRE(outcome.verify_found);
      REQUIRE(outcome.open_error);
      REQUIRE(outcome.read.size() <= batch);
    }
  // The last one without its commit marker: a transaction that was never finished.
  disk->set_content(kFirstSegment, with_header(whole, store, positions[3], flags(1)));
  const Outcome outcome = examine(*disk, written);
  REQUIRE_FALSE(outcome.open_error);
  REQUIRE(outcome.after_open.size() == 3);
}

TEST_CASE("F30: every flipped bit of store.json and HEAD is found or without effect",
          "[eventstore][recovery]") {
  const History written = samples(2);
  FaultFs files;
  {
    const auto store = must(open_small(files));
    for (const auto& transaction : written) must(append_durably(*store, transaction));
  }
  for (const Path& path : {kStore / "store.json", kStore / "HEAD"}) {
    const std::string whole = files.content(path);
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
      std::string damaged = whole;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      files.set_content(path, damaged);
      std::optional<Error> error;
      const History read = read_history(kStore, files, &error);
      REQUIRE(is_prefix(read, written));
      REQUIRE((error || read == written));
    }
    files.set_content(path, whole);
  }
}

TEST_CASE("F125: damage with batches behind it that were written after its sync is refused",
          "[eventstore][recovery]") {
  const History written = samples(3, 10, 100);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  // The second of three batches is damaged in each way; the third, torn or not, was written after
  // its sync.
  const auto sector_zeroed = [&](std::string bytes) {
    for (std::size_t i = positions[1]; i < positions[1] + 600; ++i) bytes[i] = 0;
    return bytes;
  };
  const auto bit_flipped = [&](std::string bytes) {
    bytes[positions[1] + 300] = static_cast<char>(bytes[positions[1] + 300] ^ 4);
    return bytes;
  };
  for (const std::string& damaged : {sector_zeroed(whole), bit_flipped(whole)}) {
    disk->set_content(kFirstSegment, damaged);
    const Outcome outcome = examine(*disk, written);
    REQUIRE(outcome.open_error);
    CHECK(outcome.open_error->code() == ErrorCode::kCorruption);
    CHECK(outcome.open_error->message().find("at byte " + std::to_string(positions[1])) !=
          std::string::npos);
    CHECK(outcome.read_error->code() == ErrorCode::kCorruption);
    // The tail torn as well: only its header is left.
    std::string torn = damaged.substr(0, positions[2] + log::kBatchHeaderBytes);
    torn.resize(whole.size());
    disk->set_content(kFirstSegment, torn);
    CHECK(examine(*disk, written).open_error);
  }
}

TEST_CASE("F23: of batches written together any may be missing, and that is a torn tail",
          "[eventstore][recovery]") {
  FaultFs files;
  const History written = samples(4, 8, 100);
  {
    StoreOptions options = small_options(files);
    options.pending_bytes_max = 1 << 20;
    const auto store = must(EventStore::open(kStore, options));
    must(append_durably(*store, written[0]));
    for (std::size_t i = 1; i < 4; ++i) must(append(*store, written[i]));  // one flush
    store->request_flush();
    must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
  }
  files.lose_power();
  files.erase(kStore / "HEAD");
  const std::string whole = files.content(kFirstSegment);
  const auto positions = batch_positions(whole);
  REQUIRE(positions.size() == 5);
  // The second batch is gone, the third and fourth reached the disk: a crash can do that.
  std::string damaged = whole;
  std::fill(damaged.begin() + static_cast<std::ptrdiff_t>(positions[1]),
            damaged.begin() + static_cast<std::ptrdiff_t>(positions[2]), '\0');
  files.set_content(kFirstSegment, damaged);
  const Outcome outcome = examine(files, written);
  CHECK_FALSE(outcome.open_error);
  CHECK(outcome.after_open == History{written[0]});
  // What is cut off stays away for ever, also what was intact.
  {
    const auto store = must(open_small(files));
    must(append_durably(*store, sample_transaction(2, 8, 100)));
  }
  CHECK(read_history(kStore, files) == History{written[0], written[1]});
}

TEST_CASE("F34: a missing segment is named by open, reader and verify", "[eventstore][recovery]") {
  const History written = samples(24, 20, 100);
  const auto disk = disk_with(written);
  const auto names = disk->names(kStore / "log");
  REQUIRE(names.size() >= 4);
  for (std::size_t missing = 0; missing < names.size(); ++missing) {
    const auto files = disk->clone();
    files->erase(kStore / "log" / names[missing]);
    std::optional<Error> error;
    const History read = read_history(kStore, *files, &error);
    REQUIRE(is_prefix(read, written));
    const bool last = missing + 1 == names.size();
    // Nothing but HEAD could know of a last segment that is gone; the sealed one before it ends
    // clean.
    if (last) continue;
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::kCorruption);
    const auto report = must(verify_store(kStore, {}, *files));
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].kind == "missing segment");
    // Opening looks at the last segment and the one before.
    if (missing + 2 == names.size())
      CHECK(open_small(*files).error().code() == ErrorCode::kCorruption);
  }
  const auto files = disk->clone();
  for (const auto& name : names) files->erase(kStore / "log" / name);
  CHECK(open_small(*files).error().code() == ErrorCode::kCorruption);
}

TEST_CASE("F34: a last segment that HEAD knows of and that is gone is refused",
          "[eventstore][recovery]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    for (const auto& transaction : samples(12, 20, 100)) must(append_durably(*store, transaction));
  }
  files.erase(last_segment(files));
  CHECK(open_small(files).error().code() == ErrorCode::kCorruption);
  const auto report = must(verify_store(kStore, {}, files));
  REQUIRE_FALSE(report.faults.empty());
  CHECK(report.faults[0].kind == "missing segment");
}

TEST_CASE("F35, B34: foreign, swapped and extra files in the log are refused or left alone",
          "[eventstore][recovery]") {
  const History written = samples(6, 20, 100);
  const auto disk = disk_with(written);
  const auto names = disk->names(kStore / "log");
  REQUIRE(names.size() >= 2);
  const Path last = kStore / "log" / names.back();
  SECTION("a segment of another store") {
    const auto other = disk_with(written);
    disk->set_content(last, other->content(last));
    const Error error = open_small(*disk).error();
    CHECK(error.code() == ErrorCode::kCorruption);
    CHECK(error.message().find("another store") != std::string::npos);
    CHECK(must(verify_store(kStore, {}, *disk)).faults[0].kind == "segment header");
  }
  SECTION("a segment under another one's name") {
    disk->set_content(last, disk->content(kFirstSegment));
    CHECK(open_small(*disk).error().code() == ErrorCode::kCorruption);
  }
  SECTION("a second first segment") {
    disk->set_content(kStore / "log/00000000000000099999.log", disk->content(kFirstSegment));
    CHECK(open_small(*disk).error().code() == ErrorCode::kCorruption);
  }
  SECTION("files that are none of ours") {
    for (const std::string name :
         {"notes.txt", "123.log", "99999999999999999999.log", "-rf", "a\nb.log", "\u00e4\u732b.log",
          "\xff\xfe.log", "0000000000000000000a.log", "00000000000000000000.log.bak"})
      disk->set_content(kStore / "log" / name, "hello");
    { must(open_small(*disk)); }
    CHECK(read_history(kStore, *disk) == written);
    CHECK(disk->content(kStore / "log/notes.txt") == "hello");
  }
  SECTION("a leftover of a roll") {
    disk->set_content(kStore / "log/00000000000000000777.log.tmp", "half a page");
    { must(open_small(*disk)); }
    CHECK(disk->names(kStore / "log") == names);
  }
}

TEST_CASE("B25: batches that are repeated, swapped or left out break the chain",
          "[eventstore][recovery]") {
  const History written = samples(4, 2, 20);
  const auto disk = disk_with(written);
  const std::string whole = disk->content(kFirstSegment);
  const auto positions = batch_positions(whole);
  const auto batch = [&](std::size_t i) {
    return whole.substr(positions[i], positions[i + 1] - positions[i]);
  };
  const std::string head = whole.substr(0, positions[0]);
  for (const std::string& damaged :
       {head + batch(0) + batch(0) + batch(1) + batch(2) + batch(3),
        head + batch(0) + batch(2) + batch(1) + batch(3), head + batch(0) + batch(2) + batch(3),
        head + batch(1) + batch(2) + batch(3)}) {
    disk->set_content(kFirstSegment, damaged);
    std::optional<Error> error;
    CHECK(is_prefix(read_history(kStore, *disk, &error), written));
    const auto report = must(verify_store(kStore, {}, *disk));
    CHECK((!report.faults.empty() || report.torn_tail_bytes != 0));
  }
}

TEST_CASE("F33: a batch that went back to what was in its place before breaks the chain",
          "[eventstore][recovery]") {
  const auto disk = disk_with(samples(1, 2, 20));
  const auto write = [](FaultFs& files, char filling) {
    const auto store = must(open_small(files));
    for (std::uint64_t number = 2; number <= 4; ++number) {
      StoredTransaction transaction = sample_transaction(number, 2, 20);
      transaction.events[0].payload = std::string(20, filling);
      must(append_durably(*store, transaction));
    }
  };
  const auto other = disk->clone();
  write(*disk, 'a');
  write(*other, 'b');
  disk->lose_power();
  // Both are right as far as they go: same store, same place, same offsets, other bytes.
  const std::string now = disk->content(kFirstSegment), before = other->content(kFirstSegment);
  const auto positions = batch_positions(now);
  REQUIRE(positions == batch_positions(before));
  disk->set_content(kFirstSegment, now.substr(0, positions[2]) +
                                       before.substr(positions[2], positions[3] - positions[2]) +
                                       now.substr(positions[3]));
  std::optional<Error> error;
  CHECK(read_history(kStore, *disk, &error).size() <= 2);
  REQUIRE(error);
  CHECK(error->message().find("batch chain") != std::string::npos);
  CHECK(open_small(*disk).error().code() == ErrorCode::kCorruption);
  const auto report = must(verify_store(kStore, {}, *disk));
  REQUIRE(report.faults.size() == 2);  // where it begins and where it ends
  CHECK(report.faults[0].kind == "batch chain");
}

TEST_CASE(
    "F33: a segment that went back to what could have been there breaks the chain to the next",
    "[eventstore][recovery]") {
  const auto disk = disk_with(samples(1, 2, 20));
  const auto write = [](FaultFs& files, char filling) {
    const auto store = must(open_small(files));
    for (std::uint64_t number = 2; number <= 12; ++number) {
      StoredTransaction transaction = sample_transaction(number, 20, 100);
      transaction.events[0].payload = std::string(100, filling);
      must(append_durably(*store, transaction));
    }
  };
  const auto other = disk->clone();
  write(*disk, 'a');
  write(*other, 'b');
  REQUIRE(disk->names(kStore / "log").size() > 1);
  const std::string before = other->content(kFirstSegment);
  REQUIRE(before.size() == disk->content(kFirstSegment).size());
  // Each is whole in itself; only the next one's header knows which of them came before it.
  disk->set_content(kFirstSegment, before);
  std::optional<Error> error;
  read_history(kStore, *disk, &error);
  REQUIRE(error);
  CHECK(error->code() == ErrorCode::kCorruption);
  CHECK_FALSE(must(verify_store(kStore, {}, *disk)).faults.empty());
}

TEST_CASE("F40: a segment cut short under a reader gives an error, not a signal",
          "[eventstore][recovery]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  FileSystem& files = FileSystem::real();
  const auto store = must(EventStore::open(directory, small_options(files)));
  for (const auto& transaction : samples(6, 40, 100)) must(append_durably(*store, transaction));
  const auto reader = must(LogReader::open(directory, {}));
  CHECK(must(reader->next()) != nullptr);
  const auto names = must(files.list(directory / "log"));
  REQUIRE(names.size() > 1);
  for (const auto& name : names)
    must(must(files.open(directory / "log" / name, OpenMode::kReadWrite))->truncate(4096));
  must(must(files.open(directory / "HEAD", OpenMode::kReadWrite))->truncate(0));
  std::optional<Error> error;
  while (!error) {
    const auto batch = reader->next();
    if (!batch)
      error = batch.error();
    else
      REQUIRE(*batch != nullptr);
  }
  CHECK(error->code() == ErrorCode::kCorruption);
}

TEST_CASE("F3: an interrupted recovery leaves no gap, and ends the same way when it is done again",
          "[eventstore][recovery]") {
  const History written{sample_transaction(1, 2), sample_transaction(2, 400, 100)};
  const auto disk = disk_with(written);
  // The last batch of the large transaction never came: five segments have to go, one by one.
  std::string last = disk->content(last_segment(*disk));
  disk->set_content(last_segment(*disk), last.substr(0, last.size() - 8));
  for (std::uint64_t step = 1;; ++step) {
    const auto files = disk->clone();
    files->die_at(step);
    const bool opened = open_small(*files).has_value();
    const bool hit = files->fault_was_hit();
    files->lose_power(step);
    // There is no gap at any moment, also for those who look before a writer comes again.
    REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
    REQUIRE(read_history(kStore, *files) == History{written[0]});
    {
      const auto store = must(open_small(*files));
      REQUIRE(store->durable_end().value == 2);
      REQUIRE(store->durable_source()->commit == 10);
    }
    REQUIRE(read_history(kStore, *files) == History{written[0]});
    REQUIRE(files->names(kStore / "log").size() == 1);
    if (!hit) {
      REQUIRE(opened);
      break;
    }
  }
}

TEST_CASE("G28: of an interrupted transaction only its ends are looked at",
          "[eventstore][recovery]") {
  const History written{sample_transaction(1, 2), sample_transaction(2, 3, 30),
                        sample_transaction(3, 400, 100)};
  const auto disk = disk_with(written);
  const auto names = disk->names(kStore / "log");
  REQUIRE(names.size() >= 5);
  const std::string last = disk->content(last_segment(*disk));
  disk->set_content(last_segment(*disk), last.substr(0, last.size() - 8));  // it never came so far
  const std::string first = disk->content(kFirstSegment);
  const auto positions = batch_positions(first);
  SECTION("damage in its segments does not matter") {
    for (std::size_t i = 1; i + 1 < names.size(); ++i)
      disk->set_content(kStore / "log" / names[i], std::string(1 + i * 3000, 'x'));
  }
  SECTION("nor does it where it began") {
    std::string damaged = first;
    damaged[positions[2] + 300] = static_cast<char>(damaged[positions[2] + 300] ^ 1);
    disk->set_content(kFirstSegment, damaged);
  }
  SECTION("damage before it does") {
    std::string damaged = first;
    damaged[positions[1] + 140] = static_cast<char>(damaged[positions[1] + 140] ^ 1);
    disk->set_content(kFirstSegment, damaged);
    const Error error = open_small(*disk).error();
    CHECK(error.code() == ErrorCode::kCorruption);
    CHECK(error.message().find("at byte " + std::to_string(positions[1])) != std::string::npos);
    CHECK(disk->names(kStore / "log") == names);  // nothing was changed
    CHECK(disk->content(kFirstSegment) == damaged);
    return;
  }
  SECTION("and so does a segment that is gone there") {
    disk->erase(kFirstSegment);
    CHECK(open_small(*disk).error().code() == ErrorCode::kCorruption);
    CHECK(disk->names(kStore / "log").size() == names.size() - 1);
    return;
  }
  {
    const auto store = must(open_small(*disk));
    CHECK(store->durable_end().value == 5);
    must(append_durably(*store, written[2]));
  }
  CHECK(read_history(kStore, *disk) == written);
  CHECK(must(verify_store(kStore, {}, *disk)).faults.empty());
}

TEST_CASE("a store whose making was interrupted at any step is made the next time",
          "[eventstore][recovery]") {
  for (std::uint64_t step = 1;; ++step) {
    FaultFs files;
    files.die_at(step);
    static_cast<void>(open_small(files).has_value());
    const bool hit = files.fault_was_hit();
    files.lose_power(step * 7);
    {
      const auto store = must(open_small(files));
      REQUIRE(store->durable_end().value == 0);
      must(append_durably(*store, sample_transaction(1, 1)));
    }
    REQUIRE(read_history(kStore, files).size() == 1);
    if (!hit) break;
  }
}
