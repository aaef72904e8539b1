#include "eventstore/aggregate.h"

#include <charconv>

#include "eventstore/aggregate_testing.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

/// An account that may not be overdrawn.
struct Account {
  static constexpr std::string_view kCategory = "account";
  static constexpr std::string_view kFold = "balance 1";
  struct State {
    long balance = 0;
    long events = 0;
    bool operator==(const State&) const = default;
  };
  struct Event {
    long amount = 0;
    bool operator==(const Event&) const = default;
  };
  using Command = long;

  inline static int folded = 0;  // events, to see what a snapshot saves

  static Result<std::vector<Event>> decide(const State& state, const Command& amount) {
    if (amount == 0) return std::vector<Event>{};
    if (state.balance + amount < 0)
      return Error(ErrorCode::kFailedPrecondition,
                   "only " + std::to_string(state.balance) + " left");
    return std::vector<Event>{{amount}};
  }
  static void evolve(State& state, const Event& event) {
    state.balance += event.amount;
    ++state.events;
    ++folded;
  }
  static EncodedEvent encode(const Event& event) {
    return {.type = "Moved", .payload = std::to_string(event.amount)};
  }
  static Result<Event> decode(std::string_view type, std::string_view payload) {
    Event event;
    const auto end = payload.data() + payload.size();
    if (type != "Moved" || std::from_chars(payload.data(), end, event.amount).ptr != end)
      return Error(ErrorCode::kCorruption, "no event of an account");
    return event;
  }
  static std::string save(const State& state) {
    return std::to_string(state.balance) + " " + std::to_string(state.events);
  }
  static Result<State> restore(std::string_view bytes) {
    State state;
    const auto end = bytes.data() + bytes.size();
    const auto space = std::from_chars(bytes.data(), end, state.balance).ptr;
    if (space == end || *space != ' ' || std::from_chars(space + 1, end, state.events).ptr != end)
      return Error(ErrorCode::kCorruption, "no state of an account");
    return state;
  }
};
static_assert(SnapshotAggregate<Account>);

struct Bank {
  FaultFs& files;
  std::unique_ptr<EventStore> store = must(EventStore::open(kStore, small_options(files)));
  std::unique_ptr<StreamReader> reader = must(StreamReader::open(kStore, files));
  StreamSnapshots snapshots{kStore, store->id(), files};
  Repository<Account> accounts{
      *store, *reader, snapshots, {.attempts_max = 3, .snapshot_every = 10}};
};

std::vector<std::string> snapshot_files(FaultFs& files) {
  return files.names(kStore / "snapshots");
}

}  // namespace

TEST_CASE("commands on an aggregate are decided on its state and appended",
          "[eventstore][aggregate]") {
  FaultFs files;
  Bank bank{files};
  CHECK_FALSE(must(bank.accounts.load("1")).version);
  CHECK(must(bank.accounts.execute("1", 10)).state.balance == 10);
  const auto after = must(bank.accounts.execute("1", -3));
  CHECK(after.state.balance == 7);
  CHECK(after.version == 1);
  const auto refused = bank.accounts.execute("1", -8);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() == "only 7 left");
  CHECK(must(bank.accounts.execute("1", 0)).version == 1);  // nothing to append
  CHECK(must(bank.accounts.load("1")).state == Account::State{.balance = 7, .events = 2});
  CHECK(must(bank.accounts.load("2")).state == Account::State{});
}

TEST_CASE("a command that is sent again with its key happens once", "[eventstore][aggregate]") {
  FaultFs files;
  Bank bank{files};
  must(bank.accounts.execute("1", 10, {.idempotency_key = "a", .metadata = {.event_id = "e"}}));
  must(bank.accounts.execute("1", 5));
  const auto again = must(bank.accounts.execute("1", 10, {.idempotency_key = "a", .metadata = {}}));
  CHECK(again.state.balance == 15);
  CHECK(again.version == 1);
}

TEST_CASE("a command is decided again when its stream has changed meanwhile",
          "[eventstore][aggregate]") {
  FaultFs files;
  Bank bank{files};
  must(bank.accounts.execute("1", 10));
  // Somebody who is always a little faster, so often.
  struct Rival final : Appender {
    Bank& bank;
    int races;
    Rival(Bank& of, int count) : bank(of), races(count) {}
    Result<AppendResult> append_durably(const AppendRequest& request) override {
      if (races-- > 0) must(bank.accounts.execute("1", -1));
      return bank.store->append_durably(request);
    }
  };
  Rival rival{bank, 2};
  Repository<Account> slow(rival, *bank.reader, bank.snapshots,
                           {.attempts_max = 3, .snapshot_every = 10});
  CHECK(must(slow.execute("1", -8)).state.balance == 0);
  rival.races = 100;
  must(bank.accounts.execute("1", 100));
  const auto given_up = slow.execute("1", -1);
  REQUIRE_FALSE(given_up);
  CHECK(given_up.error().code() == ErrorCode::kConflict);
  // The state decides, not the one that was read first.
  rival.races = 1;
  const long left = must(bank.accounts.load("1")).state.balance;
  CHECK(slow.execute("1", -left).error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("a snapshot saves folding what it holds", "[eventstore][aggregate]") {
  FaultFs files;
  Bank bank{files};
  for (int i = 0; i < 25; ++i) must(bank.accounts.execute("1", 1));
  CHECK(snapshot_files(files).size() == 1);
  Account::folded = 0;
  CHECK(must(bank.accounts.load("1")).state == Account::State{.balance = 25, .events = 25});
  CHECK(Account::folded < 10);
}

TEST_CASE("F29 F30 F43 B30: a snapshot that is damaged, stale or foreign is never taken",
          "[eventstore][aggregate]") {
  FaultFs files;
  Account::State expected;
  std::string good;
  {
    Bank bank{files};
    for (int i = 0; i < 25; ++i) must(bank.accounts.execute("1", 1));
    expected = must(bank.accounts.load("1")).state;
  }
  const Path file = kStore / "snapshots" / snapshot_files(files).front();
  good = files.content(file);
  Bank bank{files};
  const StreamName stream{"account", "1"};
  const std::uint64_t fold = snapshot_fingerprint("account", "balance 1");
  REQUIRE(must(bank.snapshots.load(stream, fold)));
  SECTION("every flip of a bit and every truncation") {
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
      files.set_content(file, bad);
      if (must(bank.snapshots.load(stream, fold))) FAIL("bit " << bit);
    }
    for (std::size_t size = 0; size < good.size(); ++size) {
      files.set_content(file, good.substr(0, size));
      if (must(bank.snapshots.load(stream, fold))) FAIL("size " << size);
    }
    CHECK(must(bank.accounts.load("1")).state == expected);
  }
  SECTION("of another fold, stream or store") {
    CHECK_FALSE(must(bank.snapshots.load(stream, fold + 1)));
    CHECK_FALSE(must(bank.snapshots.load({"account", "2"}, fold)));
    StoreId other = bank.store->id();
    other.bytes[0] ^= 1;
    CHECK_FALSE(must(StreamSnapshots(kStore, other, files).load(stream, fold)));
  }
  SECTION("of a history that is no longer this one's") {
    must(bank.snapshots.save(stream,
                             {.version = 24, .offset = {7}, .fingerprint = fold, .state = "9 9"}));
    CHECK(must(bank.accounts.load("1")).state == expected);
    must(bank.snapshots.save(stream,
                             {.version = 99, .offset = {99}, .fingerprint = fold, .state = "9 9"}));
    CHECK(must(bank.accounts.load("1")).state == expected);
  }
  SECTION("of a state that can't be restored") {
    must(bank.snapshots.save(stream,
                             {.version = 24, .offset = {24}, .fingerprint = fold, .state = "?"}));
    CHECK(must(bank.accounts.load("1")).state == expected);
  }
  SECTION("that was removed") {
    must(bank.snapshots.remove(stream));
    must(bank.snapshots.remove(stream));
    CHECK(must(bank.accounts.load("1")).state == expected);
  }
}

TEST_CASE("F43: a crash while a snapshot is saved leaves the old one or the new one",
          "[eventstore][aggregate]") {
  for (std::uint64_t at = 1;; ++at) {
    FaultFs files;
    StoreId id;
    const StreamName stream{"account", "1"};
    must(EventStore::open(kStore, small_options(files)));
    StreamSnapshots snapshots(kStore, id, files);
    must(snapshots.save(stream, {.version = 1, .offset = {1}, .fingerprint = 1, .state = "old"}));
    files.die_at(at);
    const bool done =
        snapshots.save(stream, {.version = 2, .offset = {2}, .fingerprint = 1, .state = "new"})
            .has_value();
    files.clear_faults();
    files.lose_power(at);
    const auto found = must(snapshots.load(stream, 1));
    REQUIRE(found);
    CHECK((found->state == "new" || (!done && found->state == "old")));
    if (done) break;
  }
}

TEST_CASE("an event that no aggregate of the kind wrote stops its loading",
          "[eventstore][aggregate]") {
  FaultFs files;
  Bank bank{files};
  const NewStreamEvent event{.type = "Other", .payload = "p", .metadata = {}};
  const StreamAppend part{.stream = {"account", "1"}, .expected = {}, .events = {&event, 1}};
  must(bank.store->append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
  const auto loaded = bank.accounts.load("1");
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().message() == "event 0: no event of an account");
}

TEST_CASE("given, when, then: what a decision leads to is told, and what is wrong with it",
          "[eventstore][aggregate]") {
  using Test = AggregateTest<Account>;
  CHECK(Test::given({{5}, {-2}}).when(-3).then({{-3}}).empty());
  CHECK(Test::given({}).when(0).then({}).empty());
  CHECK(Test::given({{5}}).when(-6).then_refused(ErrorCode::kFailedPrecondition).empty());
  CHECK(Test::given({{5}}).when(-3).then({{-4}, {1}}) ==
        "expected: Moved -4, Moved 1\ngot:      Moved -3\n");
  CHECK(Test::given({{5}}).when(-6).then({{-6}}) ==
        "expected: Moved -6\ngot:      refused (FAILED_PRECONDITION): only 5 left\n");
  CHECK(Test::given({{5}}).when(-5).then_refused(ErrorCode::kFailedPrecondition) ==
        "expected: refused (FAILED_PRECONDITION)\ngot:      Moved -5\n");
  CHECK(Test::given({{5}}).when(-5).then_state({.balance = 0, .events = 2}));
}
