#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>

#include "eventstore/inspect.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using namespace std::chrono_literals;

namespace {

const Path kStore = "/store";

Result<std::unique_ptr<EventStore>> open_small(FaultFs& files) {
  return EventStore::open(kStore, small_options(files));
}

Result<std::unique_ptr<LogReader>> reader_from(FaultFs& files, std::uint64_t from,
                                               std::vector<std::string> categories = {}) {
  return LogReader::open(kStore,
                         {.from = {from}, .categories = std::move(categories), .files = &files});
}

std::uint64_t count_events(LogReader& reader) {
  std::uint64_t count = 0;
  while (Batch* batch = must(reader.next()))
    while (batch->next() != nullptr) ++count;
  return count;
}

TransactionInfo captured(std::uint64_t commit, std::uint32_t epoch = 1) {
  return {.source = {.epoch = epoch, .commit = commit, .end = 0},
          .source_xid = 7,
          .commit_time = {1},
          .snapshot = false};
}

}  // namespace

TEST_CASE("what was appended is read back, in order and whole", "[eventstore]") {
  FaultFs files;
  History written;
  {
    const auto store = must(open_small(files));
    for (std::uint64_t number = 1; number <= 40; ++number) {
      written.push_back(sample_transaction(number, 1 + number % 17, 10 + number * 3));
      must(append_durably(*store, written.back()));
    }
    CHECK(read_history(kStore, files) == written);  // beside the writer
  }
  CHECK(read_history(kStore, files) == written);  // without one
  CHECK(files.names(kStore / "log").size() > 2);  // across segments
  const auto store = must(open_small(files));
  CHECK(read_history(kStore, files) == written);
  CHECK(store->durable_source() == SourcePosition{.epoch = 1, .commit = 400, .end = 405});
}

TEST_CASE("an event keeps all its parts, whatever bytes they hold", "[eventstore]") {
  FaultFs files;
  const std::string every_byte = [] {
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
    return bytes;
  }();
  StoredTransaction transaction{.commit = 10, .events = {}};
  transaction.events = {
      {"c", "", "", "", "", EventFlags::kNone},
      {every_byte.substr(1), every_byte, every_byte, every_byte, every_byte,
       EventFlags::kTombstone | EventFlags::kPartial},
      {"c", std::string(100'000, 'k'), "T", std::string(300'000, '\0'), "",
       EventFlags::kCategoryTombstone},
  };
  const auto store = must(open_small(files));
  must(append_durably(*store, transaction));
  CHECK(read_history(kStore, files) == History{transaction});
}

TEST_CASE("a batch with many names finds each again", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.pending_bytes_max = 8 << 20;
  StoredTransaction transaction{.commit = 10, .events = {}};
  for (int i = 0; i < 3000; ++i)
    transaction.events.push_back({"category" + std::to_string(i * 7 % 1000), std::to_string(i),
                                  "type" + std::to_string(i % 13), "p", "", EventFlags::kNone});
  const auto store = must(EventStore::open(kStore, options));
  must(append_durably(*store, transaction));
  CHECK(read_history(kStore, files) == History{transaction});
}

TEST_CASE("what is over a limit is refused and the transaction goes on", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(store->begin(captured(10)));
  const auto code_of = [&](NewEvent event) { return store->add(event).error().code(); };
  const std::string long_name(kCategoryBytesMax + 1, 'c'), long_key(kKeyBytesMax + 1, 'k');
  CHECK(code_of({.category = "", .key = "", .type = "", .payload = "", .metadata = ""}) ==
        ErrorCode::kInvalidArgument);
  CHECK(code_of({.category = long_name, .key = "", .type = "", .payload = "", .metadata = ""}) ==
        ErrorCode::kInvalidArgument);
  CHECK(code_of({.category = std::string_view("a\0b", 3),
                 .key = "",
                 .type = "",
                 .payload = "",
                 .metadata = ""}) == ErrorCode::kInvalidArgument);
  CHECK(code_of({.category = "c", .key = long_key, .type = "", .payload = "", .metadata = ""}) ==
        ErrorCode::kInvalidArgument);
  CHECK(code_of({.category = "c", .key = "", .type = long_name, .payload = "", .metadata = ""}) ==
        ErrorCode::kInvalidArgument);
  // Never touched: only its size is looked at.
  const std::string_view huge("", kEventBytesMax);
  CHECK(code_of({.category = "c", .key = "", .type = "", .payload = huge, .metadata = ""}) ==
        ErrorCode::kInvalidArgument);
  must(store->add({.category = "c", .key = "k", .type = "", .payload = "good", .metadata = ""}));
  CHECK(must(store->commit(15)).value == 1);
}

TEST_CASE("begin, add and commit out of order are refused", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  CHECK(store->add({.category = "c", .key = "", .type = "", .payload = "", .metadata = ""})
            .error()
            .code() == ErrorCode::kFailedPrecondition);
  CHECK(store->commit(0).error().code() == ErrorCode::kFailedPrecondition);
  must(store->rollback());  // nothing to forget is fine
  must(store->begin(captured(10)));
  CHECK(store->begin(captured(20)).error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("source positions must increase within an epoch and epochs must not go back",
          "[eventstore]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    must(append_durably(*store, sample_transaction(2, 1)));
    CHECK(store->begin(captured(20)).error().code() == ErrorCode::kInvalidArgument);
    CHECK(store->begin(captured(19)).error().code() == ErrorCode::kInvalidArgument);
    must(store->append({}, {}));  // not captured: no position to compare
    must(store->begin(captured(1, 2)));
    must(store->commit(2));
  }
  const auto store = must(open_small(files));
  CHECK(store->begin(captured(100, 1)).error().code() == ErrorCode::kInvalidArgument);
  CHECK(store->begin(captured(1, 2)).error().code() == ErrorCode::kInvalidArgument);
  CHECK(store->begin(captured(2, 2)));
}

TEST_CASE("a transaction without events moves the source position and nothing else",
          "[eventstore]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    must(append_durably(*store, sample_transaction(1, 2)));
    must(append_durably(*store, sample_transaction(2, 0)));
    CHECK(store->durable_end().value == 2);
    CHECK(store->durable_source()->commit == 20);
    must(store->append({}, {}));  // an application's: the captured position stays
    store->request_flush();
    must(append_durably(*store, sample_transaction(3, 0)));
    CHECK(read_history(kStore, files).size() == 1);
  }
  const auto store = must(open_small(files));
  CHECK(store->durable_source() == SourcePosition{.epoch = 1, .commit = 30, .end = 35});
  CHECK(store->durable_end().value == 2);
}

TEST_CASE("source_end of a transaction that was not captured is ignored", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(store->begin({}));
  must(
      store->add({.category = "cart", .key = "1", .type = "Added", .payload = "", .metadata = ""}));
  must(store->commit(99));
  store->request_flush();
  CHECK(must(store->wait_durable({1}, 0, 1min)));
  CHECK_FALSE(store->durable_source());
  const auto reader = must(reader_from(files, 0));
  CHECK(must(reader->next())->info.source == SourcePosition{});
}

TEST_CASE("append gives the first offset, and nothing stays of one that fails half-way",
          "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  const NewEvent good{.category = "c", .key = "k", .type = "", .payload = "p", .metadata = ""};
  const NewEvent bad{.category = "", .key = "k", .type = "", .payload = "p", .metadata = ""};
  CHECK(must(store->append({}, std::vector{good, good})).value == 0);
  CHECK(store->append({}, std::vector{good, bad}).error().code() == ErrorCode::kInvalidArgument);
  CHECK(must(store->append({}, std::vector{good})).value == 2);
  CHECK(store->appended_end().value == 3);
}

TEST_CASE("a reader starts at any offset, also within a batch, a transaction or a segment",
          "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  History written;
  for (std::uint64_t number = 1; number <= 6; ++number) {
    written.push_back(sample_transaction(number, 60, 100));
    must(append_durably(*store, written.back()));
  }
  REQUIRE(files.names(kStore / "log").size() > 1);
  for (std::uint64_t from = 0; from <= 360; ++from) {
    const auto reader = must(reader_from(files, from));
    CHECK(reader->position().value == from);
    std::uint64_t next = from;
    while (Batch* batch = must(reader->next())) {
      CHECK(batch->first.value <= next);
      while (const EventView* event = batch->next()) {
        REQUIRE(event->offset.value == next);
        const auto& expected = written[next / 60].events[next % 60];
        REQUIRE(event->key == expected.key);
        REQUIRE(batch->ordinal + (event->offset.value - batch->first.value) == next % 60);
        ++next;
      }
      CHECK(reader->position().value == next);
    }
    REQUIRE(next == 360);
  }
}

TEST_CASE("a batch can be read again from its first event", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 5)));
  const auto reader = must(reader_from(files, 2));
  Batch* batch = must(reader->next());
  for (int round = 0; round < 2; ++round) {
    std::vector<std::uint64_t> offsets;
    while (const EventView* event = batch->next()) offsets.push_back(event->offset.value);
    CHECK(offsets == std::vector<std::uint64_t>{2, 3, 4});
    batch->rewind();
  }
}

TEST_CASE("a reader that starts beyond the end waits until the log gets there", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 5)));
  const auto reader = must(reader_from(files, 7));
  CHECK(must(reader->next()) == nullptr);
  CHECK_FALSE(must(reader->wait(1ms)));
  must(append_durably(*store, sample_transaction(2, 5)));
  CHECK(must(reader->wait(1min)));
  Batch* batch = must(reader->next());
  CHECK(batch->next()->offset.value == 7);
}

TEST_CASE(
    "a category filter passes over batches without it, but never over the end of a transaction",
    "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  const auto store = must(EventStore::open(kStore, options));
  const auto one = [&](std::uint64_t commit, const std::string& category, int events, int others) {
    StoredTransaction transaction{.commit = commit, .events = {}};
    for (int i = 0; i < events; ++i)
      transaction.events.push_back(
          {category, "k", "", std::string(200, 'p'), "", EventFlags::kNone});
    for (int i = 0; i < others; ++i)
      transaction.events.push_back(
          {"other", "k", "", std::string(200, 'p'), "", EventFlags::kNone});
    must(append_durably(*store, transaction));
  };
  one(10, "other", 5, 0);
  one(20, "wanted", 3, 0);
  one(30, "other", 40, 0);   // several batches, none of them wanted
  one(40, "wanted", 1, 60);  // several batches, only the first of them wanted
  one(50, "other", 1, 0);
  const auto reader = must(reader_from(files, 0, {"wanted"}));
  std::vector<std::uint64_t> commits, ended;
  std::uint64_t wanted = 0, all = 0;
  while (Batch* batch = must(reader->next())) {
    commits.push_back(batch->info.source.commit);
    if (batch->last_of_transaction) ended.push_back(batch->info.source.commit);
    while (const EventView* event = batch->next()) {
      wanted += event->category == "wanted" ? 1 : 0;
      ++all;
    }
  }
  CHECK(wanted == 4);
  CHECK(all < 70);
  CHECK(commits == std::vector<std::uint64_t>{20, 40, 40});
  CHECK(ended == std::vector<std::uint64_t>{20, 40});
  CHECK(reader->position() == store->durable_end());
}

TEST_CASE("a transaction larger than the buffers goes to disk early and is invisible until its end",
          "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 3)));
  const StoredTransaction large = sample_transaction(2, 2000, 100);  // 13 segments
  must(store->begin(captured(large.commit)));
  for (std::size_t i = 0; i < large.events.size(); ++i) {
    must(store->add(large.events[i].view()));
    if (i % 200 == 0) {
      store->request_flush();
      CHECK(store->durable_end().value == 3);
      CHECK(read_history(kStore, files).size() == 1);
    }
  }
  CHECK(files.names(kStore / "log").size() > 5);
  CHECK(store->appended_end().value == 3);
  must(store->commit(25));
  store->request_flush();
  CHECK(must(store->wait_durable({2003}, 25, 1min)));
  const History history = read_history(kStore, files);
  REQUIRE(history.size() == 2);
  CHECK(history[1].events == large.events);
}

TEST_CASE("rollback of a transaction that is on disk takes every byte of it back", "[eventstore]") {
  FaultFs files;
  History written{sample_transaction(1, 3)};
  {
    const auto store = must(open_small(files));
    must(append_durably(*store, written[0]));
    for (const std::size_t events : {5u, 300u, 2000u}) {
      const auto names_before = files.names(kStore / "log");
      must(store->begin(captured(20)));
      for (const StoredEvent& event : sample_transaction(2, events, 100).events)
        must(store->add(event.view()));
      must(store->rollback());
      CHECK(files.names(kStore / "log") == names_before);
      CHECK(store->appended_end().value == written.back().commit / 10 * 3);
      CHECK(read_history(kStore, files) == written);
    }
    written.push_back(sample_transaction(2, 3));
    must(append_durably(*store, written[1]));
  }
  CHECK(read_history(kStore, files) == written);
  const auto store = must(open_small(files));
  CHECK(store->durable_end().value == 6);
}

TEST_CASE("committed transactions that are pending survive the rollback of the next",
          "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.pending_bytes_max = 1 << 20;
  const auto store = must(EventStore::open(kStore, options));
  must(append(*store, sample_transaction(1, 3)));
  must(store->begin(captured(20)));
  for (const StoredEvent& event : sample_transaction(2, 5000, 100).events)
    must(store->add(event.view()));
  must(store->rollback());
  must(append_durably(*store, sample_transaction(2, 2)));
  CHECK(read_history(kStore, files) == History{sample_transaction(1, 3), sample_transaction(2, 2)});
}

TEST_CASE("closing drops an open transaction and keeps what was committed", "[eventstore]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    must(append(*store, sample_transaction(1, 3)));
    must(store->begin(captured(20)));
    for (const StoredEvent& event : sample_transaction(2, 500, 100).events)
      must(store->add(event.view()));
  }
  CHECK(read_history(kStore, files) == History{sample_transaction(1, 3)});
  // A clean end leaves no reserved space and nothing to cut.
  CHECK(must(verify_store(kStore, {}, files)).torn_tail_bytes == 0);
  CHECK(files.content(kStore / "log/00000000000000000000.log").size() < 8192);
}

TEST_CASE("a segment without events is never rolled, for the next one would have its name",
          "[eventstore]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    for (std::uint64_t number = 1; number <= 300; ++number)
      must(append_durably(*store, sample_transaction(number, 0)));
    CHECK(files.names(kStore / "log").size() == 1);
    must(append_durably(*store, sample_transaction(301, 1)));
    must(append_durably(*store, sample_transaction(302, 1)));
    CHECK(files.names(kStore / "log").size() == 2);
  }
  const auto store = must(open_small(files));
  CHECK(store->durable_source()->commit == 3020);
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
}

TEST_CASE("without a flush request what was appended is durable after the interval",
          "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.flush_interval = 2ms;
  const auto store = must(EventStore::open(kStore, options));
  must(append(*store, sample_transaction(1, 1)));
  CHECK(must(store->wait_durable({1}, 15, 1min)));
}

TEST_CASE("enough pending bytes are flushed without being asked", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.flush_bytes = 4096;
  options.pending_bytes_max = 1 << 20;
  const auto store = must(EventStore::open(kStore, options));
  must(append(*store, sample_transaction(1, 1)));
  CHECK_FALSE(must(store->wait_durable({1}, 0, 1ms)));
  must(append(*store, sample_transaction(2, 60, 100)));
  CHECK(must(store->wait_durable({61}, 0, 1min)));
}

TEST_CASE("before_flush runs before each write, and its error poisons the store", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  int runs = 0;
  bool broken = false;
  options.before_flush = [&]() -> Result<void> {
    ++runs;
    if (broken) return Error(ErrorCode::kIo, "schemas can't be written");
    return {};
  };
  {
    const auto store = must(EventStore::open(kStore, options));
    must(append_durably(*store, sample_transaction(1, 1)));
    CHECK(runs == 1);
    broken = true;
    CHECK(append_durably(*store, sample_transaction(2, 1)).error().message() ==
          "schemas can't be written");
    CHECK(store->status().error().code() == ErrorCode::kIo);
    CHECK(store->begin(captured(30)).error().code() == ErrorCode::kIo);
    CHECK(store->rollback().error().code() == ErrorCode::kIo);
    CHECK(store->durable_end().value == 1);
    CHECK(read_history(kStore, files) == History{sample_transaction(1, 1)});
  }
  const auto store = must(open_small(files));
  CHECK(store->durable_end().value == 1);
}

TEST_CASE("wait_durable gives up at its time-out", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append(*store, sample_transaction(1, 1)));
  CHECK_FALSE(must(store->wait_durable({1}, 0, 1ms)));
  CHECK_FALSE(must(store->wait_durable({0}, 15, 1ms)));
  CHECK(must(store->wait_durable({0}, 0, 0ms)));
}

TEST_CASE("a position of an older epoch is not taken for one of the present", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(100, 0)));  // epoch 1, end 1005
  must(store->begin(captured(10, 2)));
  must(store->commit(15));
  CHECK_FALSE(must(store->wait_durable({0}, 15, 1ms)));
  store->request_flush();
  CHECK(must(store->wait_durable({0}, 15, 1min)));
}

TEST_CASE("a reader goes on with the HEAD that it has when its name is gone", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 2)));
  const auto reader = must(reader_from(files, 0));
  CHECK(count_events(*reader) == 2);
  files.erase(kStore / "HEAD");
  must(append_durably(*store, sample_transaction(2, 3)));
  CHECK(must(reader->wait(1min)));
  CHECK(count_events(*reader) == 3);
}

TEST_CASE("F38: a buffer that is twice full blocks the appender until the disk has caught up",
          "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  std::atomic<bool> writing = false, go = false;
  options.before_flush = [&]() -> Result<void> {
    writing = true;
    writing.notify_all();
    go.wait(false);
    return {};
  };
  const auto store = must(EventStore::open(kStore, options));
  std::uint64_t number = 1;
  must(append(*store, sample_transaction(number, 1, 100)));
  store->request_flush();
  writing.wait(false);
  while (store->has_room()) {
    must(append(*store, sample_transaction(++number, 1, 100)));
    REQUIRE(number < 1000);
  }
  CHECK_FALSE(store->wait_room(1ms));
  // add() takes as much again before it blocks: one message may hold several events, and who asked
  // before it must not be stopped in its middle.
  std::atomic<std::uint64_t> added = 0;
  const std::uint64_t filled = number;
  std::jthread appender([&] {
    while (added < 2 * filled) {
      must(append(*store, sample_transaction(++number, 1, 100)));
      ++added;
    }
  });
  for (int i = 0; i < 1'000 && added < filled - 2; ++i) std::this_thread::sleep_for(10ms);
  CHECK(added >= filled - 2);
  std::this_thread::sleep_for(10ms);
  CHECK(added <= filled + 2);
  go = true;
  go.notify_all();
  appender.join();
  CHECK(store->wait_room(1min));
  store->request_flush();
  CHECK(must(store->wait_durable(store->appended_end(), 0, 1min)));
}

TEST_CASE("group commit: many threads wait for one sync", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.flush_interval = 5ms;
  options.pending_bytes_max = 8 << 20;
  const auto store = must(EventStore::open(kStore, options));
  std::mutex appending;  // one appender at a time
  std::uint64_t number = 0;
  std::atomic<int> durable = 0;
  const std::uint64_t syncs_before = files.syncs();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 16; ++i)
      threads.emplace_back([&] {
        for (int k = 0; k < 50; ++k) {
          Offset end;
          {
            const std::lock_guard lock(appending);
            if (!append(*store, sample_transaction(++number, 1))) return;
            end = store->appended_end();
          }
          if (store->wait_durable(end, 0, 1min).value_or(false)) ++durable;
        }
      });
  }
  CHECK(durable == 16 * 50);
  CHECK(files.syncs() - syncs_before < 16 * 50 / 2);
  CHECK(read_history(kStore, files).size() == 800);
}

TEST_CASE("I3: a reader beside the writer only ever sees whole transactions", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.flush_interval = 0ms;
  const auto store = must(EventStore::open(kStore, options));
  constexpr std::uint64_t kTransactions = 300;
  std::atomic<bool> whole = true;
  std::jthread follower([&] {
    const auto reader = LogReader::open(kStore, {.from = {}, .categories = {}, .files = &files});
    std::uint64_t number = 0;
    std::size_t events = 0;
    while (whole && number < kTransactions) {
      const auto batch = (*reader)->next();
      if (!batch) return whole.store(false);
      if (*batch == nullptr) {
        if (events != 0) return whole.store(false);  // stopped within a transaction
        if (!(*reader)->wait(1min)) return whole.store(false);
        continue;
      }
      while ((*batch)->next() != nullptr) ++events;
      if (!(*batch)->last_of_transaction) continue;
      ++number;
      whole = events == 1 + number * 37 % 90 && (*batch)->info.source.commit == number * 10;
      events = 0;
    }
  });
  for (std::uint64_t number = 1; number <= kTransactions; ++number)
    must(append(*store, sample_transaction(number, 1 + number * 37 % 90, 100)));
  follower.join();
  CHECK(whole);
}

TEST_CASE("a reader follows on when the writer is replaced by another", "[eventstore]") {
  FaultFs files;
  auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 2)));
  const auto reader = must(reader_from(files, 0));
  CHECK(count_events(*reader) == 2);
  store.reset();
  store = must(open_small(files));
  must(append_durably(*store, sample_transaction(2, 3)));
  CHECK(must(reader->wait(1min)));
  CHECK(count_events(*reader) == 3);
}

TEST_CASE("a reader that was there before the writer notices it", "[eventstore]") {
  FaultFs files;
  { must(append_durably(*must(open_small(files)), sample_transaction(1, 2))); }
  files.lose_power();  // HEAD can't be trusted any more
  const auto reader = must(reader_from(files, 0));
  CHECK(count_events(*reader) == 2);
  CHECK_FALSE(must(reader->wait(1ms)));
  const auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(2, 3)));
  CHECK(must(reader->wait(1min)));
  CHECK(count_events(*reader) == 3);
}

TEST_CASE("a wait ends when it is asked to stop", "[eventstore]") {
  FaultFs files;
  const auto store = must(open_small(files));
  const auto reader = must(reader_from(files, 0));
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  CHECK_FALSE(must(reader->wait(1h, stop.get_token())));
  CHECK_FALSE(must(reader->wait(1h, stop.get_token())));  // also when it was asked before
}

TEST_CASE("a reader of a store that was put back to an older state says so", "[eventstore]") {
  FaultFs files;
  auto store = must(open_small(files));
  must(append_durably(*store, sample_transaction(1, 2)));
  const auto old_head = files.content(kStore / "HEAD");
  must(append_durably(*store, sample_transaction(2, 2)));
  const auto reader = must(reader_from(files, 0));
  CHECK(count_events(*reader) == 4);
  files.set_content(kStore / "HEAD", old_head);
  CHECK(reader->next().error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("a folder that is no store is refused and left alone", "[eventstore]") {
  FaultFs files;
  SECTION("reading one that is not there") {
    CHECK(reader_from(files, 0).error().code() == ErrorCode::kNotFound);
    CHECK(summarize_store(kStore, files).error().code() == ErrorCode::kNotFound);
    CHECK(verify_store(kStore, {}, files).error().code() == ErrorCode::kNotFound);
  }
  SECTION("reading an empty one") {
    must(files.make_directory(kStore));
    CHECK(reader_from(files, 0).error().code() == ErrorCode::kNotFound);
  }
  SECTION("with other things in it") {
    must(files.make_directory(kStore));
    files.set_content(kStore / "letter.txt", "Dear Sir");
    const Error error = open_small(files).error();
    CHECK(error.code() == ErrorCode::kFailedPrecondition);
    CHECK(error.message().find("is no millrace store") != std::string::npos);
    CHECK(reader_from(files, 0).error().code() == ErrorCode::kFailedPrecondition);
    CHECK(files.names(kStore) == std::vector<std::string>{"letter.txt"});
  }
  SECTION("with another folder's log in it") {
    must(files.make_directory(kStore));
    must(files.make_directory(kStore / "log"));
    files.set_content(kStore / "log/syslog", "boot");
    CHECK(open_small(files).error().code() == ErrorCode::kFailedPrecondition);
    CHECK(files.names(kStore) == std::vector<std::string>{"log"});
  }
}

TEST_CASE("B21: a store of a newer format is refused", "[eventstore]") {
  FaultFs files;
  { must(open_small(files)); }
  std::string text = files.content(kStore / "store.json");
  const auto version = text.find("\"version\": 1");
  REQUIRE(version != std::string::npos);
  text.replace(version, 12, "\"version\": 2");
  files.set_content(kStore / "store.json", text);
  CHECK(open_small(files).error().code() == ErrorCode::kUnsupported);
  CHECK(reader_from(files, 0).error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("B69: a second writer is refused with the name of the first", "[eventstore]") {
  FaultFs files;
  auto store = must(open_small(files));
  const Error error = open_small(files).error();
  CHECK(error.code() == ErrorCode::kLocked);
  CHECK(error.message().find("pid " + std::to_string(::getpid())) != std::string::npos);
  CHECK_FALSE(error.hint().empty());
  CHECK(must(summarize_store(kStore, files)).writer.find("pid ") == 0);
  store.reset();
  CHECK(must(summarize_store(kStore, files)).writer.empty());
  CHECK(open_small(files));
}

TEST_CASE("a segment is sealed once it holds as many events as it may", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.segment_events = 5;
  History history;
  {
    auto store = must(EventStore::open(kStore, options));
    for (std::uint64_t number = 1; number <= 12; ++number)
      must(append_durably(*store, history.emplace_back(sample_transaction(number, 2, 10))));
  }
  std::set<std::string> segments;
  for (const std::string& name : files.names(kStore / "log"))
    if (name.ends_with(".log")) segments.insert(name);
  CHECK(segments == std::set<std::string>{"00000000000000000000.log", "00000000000000000006.log",
                                          "00000000000000000012.log", "00000000000000000018.log"});
  CHECK(read_history(kStore, files) == history);
}

TEST_CASE("options that can't be are refused", "[eventstore]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.segment_bytes = 100;
  CHECK(EventStore::open(kStore, options).error().code() == ErrorCode::kInvalidArgument);
  options = small_options(files);
  options.segment_events = 0;
  CHECK(EventStore::open(kStore, options).error().code() == ErrorCode::kInvalidArgument);
  options = small_options(files);
  options.pending_bytes_max = 0;
  CHECK(EventStore::open(kStore, options).error().code() == ErrorCode::kInvalidArgument);
  CHECK(files.names("/").empty());
}
