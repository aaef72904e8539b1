#include "projections/change.h"

#include <random>

#include "projections/engine/envelope.h"
#include "projections/values.h"
#include "scalars.pb.h"
#include "tests/projections/shop_store.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {

const TransactionInfo kTransaction{
    .source = {.epoch = 1, .commit = 500}, .source_xid = 9, .commit_time = {42}};

/// Keeps what a change has views of.
struct Decoded {
  explicit Decoded(EncodedChange from) : encoded(std::move(from)) {
    EventView event;
    event.offset = Offset{17};
    event.category = encoded.category;
    event.key = encoded.key;
    event.payload = encoded.payload;
    result = decode_change(event, kTransaction, raw);
    if (result) parsed = change.assign(raw);
  }
  EncodedChange encoded;
  internal::RawChange raw;
  Change<Products> change;
  Result<void> result;
  bool parsed = false;
};

}  // namespace

TEST_CASE("a change gives a column as null, as unchanged or as its value",
          "[projections][change]") {
  auto row = product(5, "kettle");
  row.clear_category();
  const Decoded decoded(updated<Products>(row, nullptr, {3}));
  REQUIRE(decoded.parsed);
  const auto& change = decoded.change;
  CHECK(change.op() == Op::kUpdate);
  CHECK(change.key() == "5");
  CHECK(change[&Products::id].integer() == 5);
  CHECK(change[&Products::name].text() == "kettle");
  CHECK(change[&Products::category].is_null());
  CHECK(change[&Products::description].is_unchanged());
  CHECK(change.is_unchanged(&Products::description));
  CHECK(change.is_unchanged("description"));
  CHECK_FALSE(change.is_unchanged("name"));
  CHECK(change.is_partial());
  CHECK(change.before() == nullptr);
  CHECK(change.offset() == Offset{17});
  CHECK(change.commit_lsn() == Lsn{500});
  CHECK(change.transaction_id() == 9);
  CHECK(change.commit_time() == UnixMicros{42});
  CHECK_THROWS_AS(change.is_unchanged("colour"), std::invalid_argument);
}

TEST_CASE("a delete gives what is known of the row that is gone", "[projections][change]") {
  const Decoded key_only(deleted(product(5, "kettle")));
  CHECK(key_only.change.is_delete());
  CHECK(key_only.change.after() == nullptr);
  CHECK(key_only.change.before_is_key());
  CHECK(key_only.change[&Products::id].integer() == 5);
  CHECK(key_only.change[&Products::name].is_null());
  const Decoded full(deleted(product(5, "kettle"), true));
  CHECK_FALSE(full.change.before_is_key());
  CHECK(full.change[&Products::name].text() == "kettle");
}

TEST_CASE("a truncate has no row and says so", "[projections][change]") {
  const Decoded decoded(truncated("products"));
  REQUIRE(decoded.parsed);
  CHECK(decoded.change.is_truncate());
  CHECK(decoded.change.after() == nullptr);
  CHECK_THROWS_WITH(decoded.change[&Products::id], Catch::Contains("is_truncate"));
}

TEST_CASE("the second half of a change of key knows the old key", "[projections][change]") {
  const Decoded decoded(moved(product(6, "kettle"), 5));
  CHECK(decoded.change.op() == Op::kInsert);
  CHECK(decoded.change.moved_from() == std::optional<std::string_view>("5"));
  CHECK(Decoded(inserted(product(6, "kettle"))).change.moved_from() == std::nullopt);
}

TEST_CASE("an old row of nulls only and an old key without text are there all the same",
          "[projections][change]") {
  // Both fields with no bytes in them, as capture writes them: field 4 is `before`, 8 `moved_from`.
  auto full = updated<Products>(product(5, "kettle"));
  full.payload += std::string_view("\x22\x00", 2);
  const Decoded with_before(full);
  REQUIRE(with_before.parsed);
  REQUIRE(with_before.change.before() != nullptr);
  CHECK_FALSE(with_before.change.before()->has_id());
  CHECK_FALSE(with_before.change.before_is_key());
  auto from_empty = inserted(product(5, "kettle"));
  from_empty.payload += std::string_view("\x42\x00", 2);
  const Decoded second_half(from_empty);
  CHECK(second_half.change.moved_from() == std::optional<std::string_view>(""));
  const Decoded neither(inserted(product(5, "kettle")));
  CHECK(neither.change.before() == nullptr);
  CHECK(neither.change.moved_from() == std::nullopt);
}

TEST_CASE("map turns a column into something else only where there is a value",
          "[projections][change]") {
  auto row = product(5, "kettle");
  row.mutable_tags()->add_values("new");
  row.mutable_tags()->add_values("sale");
  const Decoded decoded(inserted(row));
  CHECK(decoded.change.map(&Products::tags, joined).text() == "new sale");
  CHECK(decoded.change.map(&Products::updated_at, iso_timestamptz).is_null());
  row.set_updated_at(0);
  const Decoded unchanged(updated<Products>(row, nullptr, {7}));
  CHECK(unchanged.change.map(&Products::tags, joined).is_unchanged());
  CHECK(unchanged.change.map(&Products::updated_at, iso_timestamptz).text() ==
        "2000-01-01T00:00:00.000000Z");
}

TEST_CASE("each getter is found to be its own field", "[projections][change]") {
  internal::GetterTable<Products> getters;
  for (int again = 0; again < 2; ++again) {
    CHECK(getters.field_of(&Products::id).number() == 1);
    CHECK(getters.field_of(&Products::updated_at).number() == 8);
    CHECK(getters.field_of(&Products::price).number() == 5);
    CHECK(getters.field_of(&Products::stock).number() == 6);
    CHECK(getters.field_of(&Products::tags).number() == 7);
  }
  CHECK_THROWS_AS(getters.field_of(&Products::has_name), std::invalid_argument);
}

TEST_CASE("a column is what the generated parser makes of it", "[projections][change]") {
  // Every type of field that a table can have, with values at the ends of their range and between.
  std::mt19937_64 random(7);
  for (int round = 0; round < 2'000; ++round) {
    const auto any = [&] {
      const std::uint64_t bits = random() >> (random() % 64);
      return random() % 2 == 0 ? bits : ~bits;
    };
    scalars::Scalars row;
    if (random() % 4 != 0) row.set_sint32(static_cast<std::int32_t>(any()));
    if (random() % 4 != 0) row.set_sint64(static_cast<std::int64_t>(any()));
    if (random() % 4 != 0) row.set_int32(static_cast<std::int32_t>(any()));
    if (random() % 4 != 0) row.set_int64(static_cast<std::int64_t>(any()));
    if (random() % 4 != 0) row.set_uint32(static_cast<std::uint32_t>(any()));
    if (random() % 4 != 0) row.set_flag(random() % 2 == 0);
    if (random() % 4 != 0) row.set_real(static_cast<double>(static_cast<std::int64_t>(any())) / 3);
    if (random() % 4 != 0) row.set_small_real(static_cast<float>(any()) / 3);
    if (random() % 4 != 0) row.set_fixed32(static_cast<std::uint32_t>(any()));
    if (random() % 4 != 0) row.set_sfixed64(static_cast<std::int64_t>(any()));
    if (random() % 4 != 0) row.set_words(std::string(random() % 300, 'w'));
    if (random() % 4 != 0) row.set_image(std::string(random() % 300, '\xff'));
    const std::string bytes = row.SerializeAsString();
    internal::RawChange raw;
    raw.after = bytes;
    Change<scalars::Scalars> change;
    REQUIRE(change.assign(raw));
    const auto check = [&](auto getter, bool has) {
      const Value value = change[getter];
      REQUIRE(value.is_null() == !has);
      if (!has) return;
      const Value parsed = (change.after()->*getter)();
      CHECK(value.integer() == parsed.integer());
      CHECK(value.real() == parsed.real());
      CHECK(value.text() == parsed.text());
      CHECK(change.map(getter, [](const auto& v) { return Value(v); }).integer() ==
            parsed.integer());
    };
    using scalars::Scalars;
    check(&Scalars::sint32, row.has_sint32());
    check(&Scalars::sint64, row.has_sint64());
    check(&Scalars::int32, row.has_int32());
    check(&Scalars::int64, row.has_int64());
    check(&Scalars::uint32, row.has_uint32());
    check(&Scalars::flag, row.has_flag());
    check(&Scalars::real, row.has_real());
    check(&Scalars::small_real, row.has_small_real());
    check(&Scalars::fixed32, row.has_fixed32());
    check(&Scalars::sfixed64, row.has_sfixed64());
    check(&Scalars::words, row.has_words());
    check(&Scalars::image, row.has_image());
  }
}

TEST_CASE("a field of another type than the program's is none of its", "[projections][change]") {
  const std::string bytes("\x0a\x01x", 3);  // field 1, which is a number, as a text
  internal::RawChange raw;
  raw.after = bytes;
  Change<Products> change;
  REQUIRE(change.assign(raw));
  CHECK(change[&Products::id].is_null());
  CHECK_FALSE(change.after()->has_id());
}

TEST_CASE("a payload that is no change is turned away at any cut and with any wrong byte",
          "[projections][change]") {
  const EncodedChange whole = moved(product(6, "kettle"), 5, {3});
  internal::RawChange raw;
  EventView event;
  event.category = whole.category;
  event.key = whole.key;
  int refused = 0;
  for (std::size_t cut = 0; cut < whole.payload.size(); ++cut) {
    event.payload = std::string_view(whole.payload).substr(0, cut);
    if (!decode_change(event, kTransaction, raw)) ++refused;
  }
  CHECK(refused > 10);  // cuts between two fields leave a shorter message
  for (std::size_t at = 0; at < whole.payload.size(); ++at) {
    std::string changed = whole.payload;
    for (int bit = 0; bit < 8; ++bit) {
      changed[at] = static_cast<char>(whole.payload[at] ^ (1 << bit));
      event.payload = changed;
      if (const auto decoded = decode_change(event, kTransaction, raw); decoded) {
        Change<Products> change;
        (void)change.assign(raw);  // may be a row of another meaning; must only be safe
      }
    }
  }
  event.payload = {};
  const auto nothing = decode_change(event, kTransaction, raw);
  REQUIRE_FALSE(nothing);
  CHECK(nothing.error().code() == ErrorCode::kUnsupported);
  event.type = "ItemAdded";
  CHECK_THAT(decode_change(event, kTransaction, raw).error().message(),
             Catch::Contains("domain event"));
}
