#include "eventstore/policy.h"

#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using std::chrono::seconds;

namespace {

const Path kStore = "/store";

void set(EventStore& store, Result<PolicyEvent> policy) {
  const PolicyEvent made = must(std::move(policy));
  const NewEvent event = made.view();
  must(store.append({}, {&event, 1}));
  store.request_flush();
  REQUIRE(must(store.wait_durable(store.appended_end(), 0, std::chrono::minutes(1))));
}

EventView policy_view(std::string_view key, std::string_view payload) {
  return {.offset = {},
          .category = kPolicyCategory,
          .key = key,
          .type = {},
          .payload = payload,
          .metadata = {},
          .flags = EventFlags::kNone,
          .version = {}};
}

}  // namespace

TEST_CASE("the latest policy of a category or stream holds, also after a restart",
          "[eventstore][policy]") {
  FaultFs files;
  const CategoryPolicy compact{.retention = Retention::kCompact, .tombstone_grace = seconds(60)};
  const CategoryPolicy expire{.retention = Retention::kExpire,
                              .max_age = seconds(3600),
                              .max_bytes = std::uint64_t{1} << 40};
  const StreamPolicy stream{.max_count = 10, .max_age = seconds(5), .truncate_before = 7};
  const std::string odd = "a/b:\"\xff", key = std::string("k/\0\xfe", 4);
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    CHECK(must(load_policies(kStore, files)).keep_everything());
    set(*store, policy_event("public.orders", expire));
    set(*store, policy_event("public.orders", compact));
    set(*store, policy_event(odd, expire));
    set(*store, policy_event(odd, key, stream));
    set(*store, policy_event("cart", "9", stream));
    set(*store, policy_event("cart", "9", StreamPolicy{}));
    set(*store, policy_event("users", compact));
    set(*store, policy_event("users", CategoryPolicy{}));
  }
  const Policies policies = must(load_policies(kStore, files));
  CHECK(policies.of("public.orders") == compact);
  CHECK(policies.of(odd) == expire);
  CHECK(policies.of("users") == CategoryPolicy{});
  CHECK(policies.of("never named") == CategoryPolicy{});
  REQUIRE(policies.of(odd, key) != nullptr);
  CHECK(*policies.of(odd, key) == stream);
  CHECK(policies.of(odd, "another") == nullptr);
  CHECK(policies.of("cart", "9") == nullptr);
  CHECK_FALSE(policies.keep_everything());
}

TEST_CASE("a policy that would remove everything, or makes no sense, is refused",
          "[eventstore][policy]") {
  const auto refused = [](const auto& result) {
    return !result && result.error().code() == ErrorCode::kInvalidArgument;
  };
  CHECK(refused(policy_event("a", CategoryPolicy{.retention = Retention::kExpire})));
  CHECK(refused(policy_event("a", CategoryPolicy{.max_age = seconds(1)})));
  CHECK(refused(
      policy_event("a", CategoryPolicy{.retention = Retention::kExpire, .max_age = seconds(0)})));
  CHECK(refused(policy_event(
      "a", CategoryPolicy{.retention = Retention::kExpire, .max_age = seconds::max()})));
  CHECK(refused(policy_event("", CategoryPolicy{})));
  CHECK(refused(policy_event("$policy", CategoryPolicy{.retention = Retention::kCompact})));
  CHECK(refused(policy_event("$capture", "k", StreamPolicy{.max_count = 1})));
  CHECK(refused(policy_event("a", "k", StreamPolicy{.max_count = 0})));
  CHECK(refused(policy_event("a", "k", StreamPolicy{.max_count = kMaxCountMax + 1})));
}

TEST_CASE("a policy event that can't be understood keeps everything", "[eventstore][policy]") {
  const char* const bad[] = {
      "",
      "[]",
      "{}",
      R"({"retention":"shred"})",
      R"({"retention":3})",
      R"({"retention":"expire"})",
      R"({"retention":"expire","max_age_seconds":-1})",
      R"({"retention":"expire","max_age_seconds":1e3})",
      R"({"retention":"expire","max_bytes":18446744073709551616})",
      R"({"retention":"compact","unless":"tuesday"})",
  };
  for (const char* payload : bad) {
    CAPTURE(payload);
    Policies policies;
    policies.apply(policy_view("category:a", R"({"retention":"compact"})"));
    CHECK(policies.of("a").retention == Retention::kCompact);
    policies.apply(policy_view("category:a", payload));
    CHECK(policies.of("a") == CategoryPolicy{});
  }
  Policies policies;
  for (const char* payload : {"", "{}", R"({"category_bytes":0})", R"({"category_bytes":9})",
                              R"({"category_bytes":1,"max_count":0})"})
    policies.apply(policy_view("stream:a/b", payload));
  policies.apply(policy_view("nonsense", "{}"));
  policies.apply(policy_view("category:$capture", R"({"retention":"compact"})"));
  CHECK(policies.of("$capture") == CategoryPolicy{});
  CHECK(policies.keep_everything());
  policies.apply(policy_view("stream:a/b", R"({"category_bytes":1,"max_count":5})"));
  CHECK(policies.of("a", "b") != nullptr);
  policies.apply(policy_view("stream:a/b", R"({"category_bytes":1,"max_count":0})"));
  CHECK(policies.of("a", "b") == nullptr);
}
