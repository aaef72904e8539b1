#include "projections/engine/as_of.h"

#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;

namespace {

AsOf moment(const std::string& text) { return must(parse_as_of(text)); }

}  // namespace

TEST_CASE("a moment is an offset, an LSN or a time", "[projections][as_of]") {
  CHECK(std::get<Offset>(moment("12")).value == 12);
  CHECK(std::get<Lsn>(moment("1/A")).value == 0x10000000aULL);
  CHECK(std::get<UnixMicros>(moment("2026-01-01T00:00:00Z")).value == 1'767'225'600'000'000);
  for (const char* text : {"", "soon", "-1", "12x", "x/y"}) CHECK_FALSE(parse_as_of(text));
}

TEST_CASE("a view as of any transaction is what it was then", "[projections][as_of]") {
  for (const std::uint32_t seed : {1u, 2u, 3u}) {
    INFO("seed " << seed);
    ShopStore store(true, 1 << 10);
    ShopWorkload workload(seed);
    const auto view = product_search();
    std::vector<std::pair<Offset, std::vector<std::string>>> then;
    for (int i = 0; i < 12; ++i) {
      store.commit(workload.transaction());
      then.emplace_back(store.end(), workload.expected_search());
    }
    const Context context = store.context();
    for (std::size_t i = 0; i < then.size(); ++i) {
      const auto file = store.directory().parent_path() / ("then" + std::to_string(i));
      // Commits are at 100, 200 and so on.
      const AsOf as_of = i % 2 == 0 ? AsOf(then[i].first) : AsOf(Lsn{100 * (i + 1) + 1});
      const auto built = must(build_as_of(view, context, as_of, file));
      CHECK(built.checkpoint.offset == then[i].first);
      CHECK(query(file,
                  "SELECT id, name, description, category, price FROM product_search ORDER "
                  "BY rowid") == then[i].second);
      CHECK_FALSE(std::filesystem::exists(file.string() + ".building"));
    }
  }
}

TEST_CASE("an offset within a transaction, and what is beyond the end, are refused",
          "[projections][as_of]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  store.commit(
      {inserted(product(2, "pan")), inserted(product(3, "pot")), inserted(product(4, "wok"))});
  const Context context = store.context();
  for (const std::uint64_t whole : {0u, 1u, 4u})
    CHECK(must(offset_as_of(context, Offset{whole})).value == whole);
  for (const std::uint64_t within : {2u, 3u}) {
    const auto refused = offset_as_of(context, Offset{within});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == ErrorCode::kInvalidArgument);
    CHECK_THAT(refused.error().hint(), Catch::Contains("give 1 or 4"));
  }
  for (const char* text : {"5", "0/FB", "2100-01-01T00:00:00Z"}) {
    INFO(text);
    const auto refused = offset_as_of(context, moment(text));
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().message(), Catch::Contains("beyond the end of the store"));
  }
  // Below the second commit, at it, and behind it: an LSN names what was committed before it.
  CHECK(must(offset_as_of(context, Lsn{100})).value == 0);
  CHECK(must(offset_as_of(context, Lsn{101})).value == 1);
  CHECK(must(offset_as_of(context, Lsn{200})).value == 1);
  CHECK(must(offset_as_of(context, Lsn{201})).value == 4);
}

TEST_CASE("an LSN is one of the present source", "[projections][as_of]") {
  ShopStore store;
  for (int id = 1; id <= 9; ++id) store.commit({inserted(product(id, "kettle"))});  // up to 0/384
  store.accept_source(Lsn{500});
  for (int id = 10; id <= 12; ++id) store.commit({inserted(product(id, "pan"))});  // from 0/258 on
  const Context context = store.context();
  CHECK(must(offset_as_of(context, Lsn{550})).value == 9);
  CHECK(must(offset_as_of(context, Lsn{601})).value == 10);
  CHECK(must(offset_as_of(context, Lsn{800})).value == 11);
  CHECK_FALSE(offset_as_of(context, Lsn{900}));
}

TEST_CASE("a time takes transactions up to the first one that was committed later",
          "[projections][as_of]") {
  ShopStore store;
  const std::int64_t second = 1'000'000;
  for (const std::int64_t at : {10, 20, 40, 30, 50})
    store.commit({inserted(product(at, "kettle"))}, UnixMicros{at * second});
  const Context context = store.context();
  const auto at = [&](std::int64_t seconds) {
    return must(offset_as_of(context, UnixMicros{seconds * second})).value;
  };
  CHECK(at(5) == 0);
  CHECK(at(10) == 1);
  CHECK(at(20) == 2);
  CHECK(at(35) == 2);  // not the one of 30, which lies behind that of 40
  CHECK(at(40) == 4);
  CHECK(at(50) == 5);
  CHECK_FALSE(offset_as_of(context, UnixMicros{51 * second}));
}

TEST_CASE("F122: a moment of which compaction has removed events is refused",
          "[projections][as_of]") {
  ShopStore store(true, 1 << 10, 64 << 10);
  const std::string filler(1'000, 'x');
  for (int i = 0; i < 300; ++i)
    store.commit({updated<shop::Products>(product(1 + i % 3, "v" + std::to_string(i), filler))});
  const Context context = store.context();
  CHECK(must(offset_as_of(context, Offset{100})).value == 100);
  store.compact("public.products");
  const auto refused = offset_as_of(context, Offset{100});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == ErrorCode::kGone);
  CHECK_THAT(refused.error().message(), Catch::Contains("the first at offset 0"));
  CHECK(must(offset_as_of(context, store.end())) == store.end());  // as every rebuild
}
