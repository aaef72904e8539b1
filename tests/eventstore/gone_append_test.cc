#include "eventstore/policy.h"
#include "tests/support/manual_clock.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

// A repeated append whose first result is not known any more, because something of it has gone.

namespace {

const Path kStore = "/store";
constexpr std::string_view kExpiring = "expiring", kKept = "kept", kCompacted = "compacted";
constexpr NewStreamEvent kEvent{.type = "Added", .payload = "once", .metadata = {}};

StreamAppend to(std::string_view category, std::string_view key) {
  return {.stream = {category, key}, .expected = {}, .events = {&kEvent, 1}};
}

struct Store {
  Store() {
    open();
    set_policy(kExpiring, {.retention = Retention::kExpire, .max_age = std::chrono::hours(2)});
    set_policy(kCompacted, {.retention = Retention::kCompact});
  }

  void open() {
    store.reset();
    StoreOptions options = small_options(files);
    options.clock = &clock;
    store = must(EventStore::open(kStore, options));
  }
  void set_policy(std::string_view category, const CategoryPolicy& policy) {
    const PolicyEvent event = must(policy_event(category, policy));
    const NewEvent view = event.view();
    must(store->append({}, {&view, 1}));
  }
  Result<AppendResult> append(std::vector<StreamAppend> parts) {
    return store->append_durably({.streams = parts, .idempotency_key = "key 7"});
  }
  /// A stream's last event always stays, and what it wrote here is to go.
  void append_newer(std::string_view category, std::string_view key) {
    const StreamAppend newer = to(category, key);
    must(store->append_durably({.streams = {&newer, 1}, .idempotency_key = {}}));
  }
  /// Seals what there is, lets its time pass, takes out what may go, and forgets what was appended.
  void lose() {
    const std::string large(9 << 10, 'x');
    for (const std::string_view key : {"1", "2"}) {
      const NewStreamEvent event{.type = "Large", .payload = large, .metadata = {}};
      const StreamAppend part{.stream = {kKept, key}, .expected = {}, .events = {&event, 1}};
      must(store->append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
    }
    clock.advance(std::chrono::hours(3));
    must(store->maintenance().compact({.dead_share_min = 0}));
    open();
  }

  FaultFs files;
  ManualClock clock;
  std::unique_ptr<EventStore> store;
};

}  // namespace

TEST_CASE("B24: a repeated append of which a stream has expired says which, and appends nothing",
          "[eventstore][streams]") {
  const bool expiring_first = GENERATE(true, false);
  Store one;
  std::vector<StreamAppend> parts{to(kExpiring, "cart"), to(kKept, "order")};
  if (!expiring_first) std::swap(parts[0], parts[1]);
  const Offset first = must(one.append(parts)).first;
  one.append_newer(kExpiring, "cart");
  one.lose();
  const Offset end = one.store->appended_end();
  const auto again = one.append(parts);
  REQUIRE_FALSE(again);
  CHECK(again.error().code() == ErrorCode::kGone);
  CHECK(again.error().message() ==
        "the append with idempotency key key 7 was done, at offset " + std::to_string(first.value) +
            ", but its result is not known any more: what it wrote to stream expiring/cart has "
            "expired");
  CHECK_FALSE(again.error().hint().empty());
  CHECK(one.store->appended_end() == end);
}

TEST_CASE("a repeated append of which a stream was erased or compacted says so",
          "[eventstore][streams]") {
  Store one;
  const bool erased = GENERATE(true, false);
  const std::string_view gone = erased ? kKept : kCompacted;
  const std::vector<StreamAppend> parts{to(kKept, "order"), to(gone, "cart")};
  must(one.append(parts));
  if (erased) {
    const EntityToErase cart{.key = "cart", .tombstone_type = "Forgotten"};
    must(one.store->maintenance().erase({.category = kKept, .entities = {&cart, 1}}));
  } else {
    one.append_newer(kCompacted, "cart");
  }
  one.lose();
  const auto again = one.append(parts);
  REQUIRE_FALSE(again);
  CHECK(again.error().code() == ErrorCode::kGone);
  const std::string& message = again.error().message();
  CHECK(message.ends_with(erased ? ", was made, and a part of it has been erased since"
                                 : "what it wrote to stream compacted/cart was compacted: newer "
                                   "events stand for it"));
}

TEST_CASE("a key that was used for other streams is told from one of which streams are gone",
          "[eventstore][streams]") {
  Store one;
  must(one.append({to(kKept, "order"), to(kExpiring, "cart")}));
  one.append_newer(kExpiring, "cart");
  one.lose();
  const auto code = [&](std::vector<StreamAppend> parts) {
    return one.append(std::move(parts)).error().code();
  };
  CHECK(code({to(kExpiring, "cart")}) == ErrorCode::kInvalidArgument);  // order is left
  CHECK(code({to(kKept, "another"), to(kExpiring, "cart")}) == ErrorCode::kInvalidArgument);
  CHECK(code({to(kKept, "order"), to(kExpiring, "cart"), to(kExpiring, "cart 2")}) ==
        ErrorCode::kInvalidArgument);  // there was no room for so much
}
