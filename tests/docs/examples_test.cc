// The C++ of README and docs: each block stands in this folder too, but for its layout, and is run
// here. Who changes the one has to change the other.

#include <cctype>
#include <filesystem>
#include <fstream>

#include "tests/projections/shop_store.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Customers;
using shop::Orders;
using shop::Products;

namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& file) {
  return must(read_file(FileSystem::real(), file, 10 << 20));
}

std::string without_blanks(std::string text) {
  std::erase_if(text, [](unsigned char c) { return std::isspace(c) != 0; });
  return text;
}

/// What stands between "```cpp" and "```".
std::vector<std::string> blocks_of(const std::string& text) {
  std::vector<std::string> blocks;
  for (std::size_t at = 0; (at = text.find("\n```cpp\n", at)) != text.npos;) {
    const std::size_t begin = at + 8, end = text.find("\n```", begin);
    blocks.push_back(text.substr(begin, end - begin));
    at = end;
  }
  return blocks;
}

std::vector<fs::path> documents() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(MILLRACE_SOURCE_DIR "/docs"))
    if (entry.path().extension() == ".md") files.push_back(entry.path());
  for (const auto& entry : fs::recursive_directory_iterator(MILLRACE_SOURCE_DIR "/examples"))
    if (entry.path().extension() == ".md") files.push_back(entry.path());
  files.emplace_back(MILLRACE_SOURCE_DIR "/README.md");
  return files;
}

/// Runs `app` as a program until it has folded what is in the store.
void run_app(App& app, const ShopStore& store) {
  std::vector<std::string> words{"docs",
                                 "run",
                                 "--store",
                                 store.directory().string(),
                                 "--views",
                                 store.views().string(),
                                 "--until-caught-up",
                                 "--log-level",
                                 "off"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  REQUIRE(app.main(static_cast<int>(arguments.size()), arguments.data()) == 0);
}

}  // namespace

TEST_CASE("every block of C++ in the docs is one that is run here", "[docs]") {
  std::string run_here;
  for (const auto& entry : fs::directory_iterator(MILLRACE_SOURCE_DIR "/tests/docs"))
    run_here += without_blanks(text_of(entry.path()));
  std::size_t blocks = 0;
  for (const fs::path& file : documents())
    for (const std::string& block : blocks_of(text_of(file))) {
      ++blocks;
      INFO(file.string() << ":\n" << block);
      CHECK(run_here.find(without_blanks(block)) != run_here.npos);
    }
  CHECK(blocks >= 6);
}

TEST_CASE("README.md and projections.md: a program with a search index", "[docs]") {
  ShopStore store;
  store.commit({inserted(product(1, "copper kettle", "sings")), inserted(product(2, "iron pan"))});
  store.commit({updated<Products>(product(2, "copper pan"), nullptr, {3}),
                inserted(product(3, "mug")), deleted(product(3, ""))});
  const auto ran =
      millrace::test::run_command({MILLRACE_DOCUMENTED_PROGRAM, "run", "--store", store.directory(),
                                   "--views", store.views(), "--until-caught-up"});
  INFO(ran.err);
  REQUIRE(ran.exit_code == 0);
  CHECK(rows_of(store, "product_search") ==
        std::vector<std::string>{"1|copper kettle|sings|19.90", "2|copper pan|nice|19.90"});
  CHECK(query(store.views() / "product_search.db",
              "SELECT id FROM product_search WHERE product_search MATCH 'sings'") ==
        std::vector<std::string>{"1"});
}

TEST_CASE("projections.md: declared views", "[docs]") {
  App app("docs");

  const auto customers = table<Customers>("public.customers");
  const auto orders = table<Orders>("public.orders");

  app.add(view("product_search", Version{1})
              .from(table<Products>("public.products"))
              .into(search_index{
                  .key = integer("id"), .text = {"name", "description"}, .stored = {"price"}}));

  app.add(view("customer_totals", Version{1})
              .from(orders)
              .where([](const Orders& order) { return order.status() != "void"; })
              .group_by(&Orders::customer_id)
              .aggregate(count("orders"), sum("spent", &Orders::total_cents),
                         max("last_order", &Orders::created_at))
              .into(cache_table{}));

  ShopStore store;
  Orders is_void = order(3, 7, 999);
  is_void.set_status("void");
  store.commit({inserted(product(1, "copper kettle")), inserted(order(1, 7, 100, 10)),
                inserted(order(2, 7, 50, 20)), inserted(is_void)});
  run_app(app, store);
  CHECK(rows_of(store, "product_search") == std::vector<std::string>{"1|copper kettle|nice|19.90"});
  const auto totals = [&] {
    return query(store.views() / "customer_totals.db", "SELECT * FROM customer_totals ORDER BY 1");
  };
  CHECK(totals() == std::vector<std::string>{"7|2|150|20"});
  store.commit({deleted(order(2, 7, 50)), updated<Orders>(order(3, 8, 1, 30))});
  run_app(app, store);
  CHECK(totals() == std::vector<std::string>{"7|1|100|10", "8|1|1|30"});
}
