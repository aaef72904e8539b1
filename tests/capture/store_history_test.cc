// StoreHistory beside a model: it never tells what is not so, however little it may keep.
#include "capture/daemon/store_history.h"

#include <map>
#include <random>

#include "capture/daemon/store_out.h"
#include "millrace/v1/change.pb.h"
#include "tests/support/catch.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using test::must;
using test::TemporaryDirectory;

constexpr std::string_view kCategory = "public.t";

std::string row_with(const std::string& text) {
  return std::string(1, static_cast<char>(1 << 3 | 2)) + static_cast<char>(text.size()) + text;
}

void add(StoreHistory& history, v1::Change::Op op, const std::string& key, const std::string& row) {
  v1::Change change;
  change.set_op(op);
  change.set_schema(1);
  if (op == v1::Change::CREATE) change.set_after(row);
  const std::string payload = change.SerializeAsString();
  must(history.add({.category = kCategory,
                    .key = key,
                    .type = {},
                    .payload = payload,
                    .metadata = {},
                    .flags = op == v1::Change::DELETE     ? EventFlags::kTombstone
                             : op == v1::Change::TRUNCATE ? EventFlags::kCategoryTombstone
                                                          : EventFlags::kNone}));
}

TEST_CASE("a history tells the rows as they are, or nothing of them", "[capture][complete]") {
  const std::size_t bytes_max =
      GENERATE(std::size_t{600}, std::size_t{5'000}, std::size_t{1} << 20);
  const unsigned seed = GENERATE(1U, 2U, 3U);
  CAPTURE(bytes_max, seed);
  std::minstd_rand random(seed);
  const TemporaryDirectory folder;
  StoreOptions options;
  options.segment_bytes = 64 << 10;
  const auto store = must(EventStore::open(folder.path() / "store", options));
  StoreOut out(*store, Lsn{});
  StoreHistory history(out, *store, folder.path() / "store", FileSystem::real(),
                       must(TablePatterns::parse({"public.t"})), bytes_max);
  const TableSchema schema{
      .category = std::string(kCategory), .version = 1, .schema_name = "public", .table_name = "t"};
  CHECK(history.wants(schema));
  CHECK_FALSE(history.wants({.category = "public.u", .schema_name = "public", .table_name = "u"}));

  std::map<std::string, std::string> model, before;
  int known = 0, unknown = 0;
  for (std::uint64_t commit = 1; commit <= 150; ++commit) {
    before = model;
    must(history.begin({.source = {.epoch = 1, .commit = commit * 10, .end = 0},
                        .source_xid = 1,
                        .commit_time = UnixMicros{1}}));
    for (unsigned n = random() % 12; n > 0; --n) {
      const std::string key = "k" + std::to_string(random() % 30);
      switch (random() % 12) {
        case 0:
          add(history, v1::Change::DELETE, key, {});
          model.erase(key);
          break;
        case 1:
          if (random() % 10 != 0) break;
          add(history, v1::Change::TRUNCATE, {}, {});
          model.clear();
          break;
        case 2:
        case 3:
        case 4: {
          const std::string row = row_with(std::to_string(random()));
          add(history, v1::Change::CREATE, key, row);
          model[key] = row;
          break;
        }
        default: {
          const RowState told = must(history.latest(kCategory, key));
          if (told.exists) {
            REQUIRE(model.contains(key));
            REQUIRE(told.row == model[key]);
            ++known;
          } else if (model.contains(key)) {
            ++unknown;
          }
        }
      }
    }
    if (random() % 6 == 0) {
      must(history.rollback());
      model = before;
    } else {
      must(history.commit(commit * 10 + 5));
    }
  }
  CHECK(known > 100);
  if (bytes_max == 1 << 20) CHECK(unknown == 0);
}

}  // namespace
}  // namespace millrace
