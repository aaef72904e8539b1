#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "projections/command/options.h"
#include "tests/projections/shop_store.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using millrace::test::ChildProcess;
using millrace::test::CommandResult;

namespace {

CommandResult shop_program(std::vector<std::string> words,
                           const millrace::test::ProcessOptions& options = {}) {
  words.insert(words.begin(), MILLRACE_SHOP_PROGRAM);
  return millrace::test::run_command(words, options);
}

CommandResult shop_program(const ShopStore& store, std::vector<std::string> words) {
  for (const auto& word : {std::string("--store"), store.directory().string(),
                           std::string("--views"), store.views().string()})
    words.push_back(word);
  return shop_program(words);
}

std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace

TEST_CASE("help goes to standard output and ends with 0", "[projections][command]") {
  for (const char* word : {"--help", "-h", "help"}) {
    const auto help = shop_program({word});
    CHECK(help.exit_code == 0);
    CHECK(help.out == help_text("shop"));
    CHECK(help.err.empty());
  }
}

TEST_CASE("a wrong command line is exit code 2 and one message that says what is wrong",
          "[projections][command]") {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "a command is missing"},
      {{"walk"}, "no command 'walk'"},
      {{"run", "--fast"}, "--fast"},
      {{"run", "--store"}, "--store"},
      {{"run", "--json"}, "--json goes with"},
      {{"status", "--until-caught-up"}, "goes with run only"},
      {{"verify", "--count-rows"}, "goes with status only"},
      {{"rebuild"}, "names of views or --all"},
      {{"rebuild", "--all", "--jobs", "0"}, "--jobs takes a number from 1 on"},
      {{"rebuild", "--all", "--jobs", "two"}, "--jobs takes a number, not 'two'"},
      {{"verify", "--jobs", "2"}, "--jobs goes with rebuild only"},
      {{"rebuild", "product_search", "--all"}, "names of views or --all"},
      {{"run", "orders"}, "no view 'orders'; the program has: product_search, customer_totals"},
      {{"run", "--log-level", "loud"}, "unknown log level"},
      {{"run", "--config", "/nowhere"}, "/nowhere"}};
  for (const auto& [words, message] : cases) {
    const auto result = shop_program(words);
    INFO(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.out.empty());
    CHECK_THAT(result.err, Catch::Contains(message));
  }
}

TEST_CASE("a directory that is no store is said to be none", "[projections][command]") {
  const auto result =
      shop_program({"run", "--store", "/nowhere/store", "--views", "/nowhere/views"});
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.err, Catch::Contains("no event store in /nowhere/store") &&
                             Catch::Contains("millrace capture run"));
}

TEST_CASE("a program whose table the store does not have says which tables there are",
          "[projections][command]") {
  ShopStore store(false);
  store.record(products_table());
  store.record(customers_table());
  store.commit({inserted(product(1, "kettle"))});
  const auto result = shop_program(store, {"run", "--until-caught-up"});
  CHECK(result.exit_code == 1);
  CHECK_THAT(
      result.err,
      Catch::Contains(
          "the store has no table public.orders; it has: public.customers, public.products"));
  // The view that can be made is made.
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle"});
}

TEST_CASE("run, status, verify and rebuild work together", "[projections][command]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle")), inserted(customer(7, "Ada")),
                inserted(order(1, 7, 100, 1'000'000))});
  CHECK(json_lines(shop_program(store, {"status", "--json"}).out)[0]["state"] == "unmade");
  const auto run = shop_program(store, {"run", "--until-caught-up"});
  INFO(run.err);
  CHECK(run.exit_code == 0);
  CHECK(run.out.empty());
  CHECK(rows_of(store, "customer_totals") ==
        std::vector<std::string>{"7|Ada|Ada@example.com|null|1|100|2000-01-01T00:00:01.000000Z"});

  const auto status = json_lines(shop_program(store, {"status", "--json"}).out);
  REQUIRE(status.size() == 2);
  CHECK(status[1]["view"] == "customer_totals");
  CHECK(status[1]["state"] == "stopped");
  CHECK(status[1]["worker"].is_null());
  CHECK(status[1]["generation"] == 1);
  CHECK(status[1]["version"] == 2);
  CHECK(status[1]["offset"] == 3);
  CHECK(status[1]["store_end"] == 3);
  CHECK(status[1]["lag"] == 0);
  CHECK(status[1]["rows"].is_null());
  const auto counted = json_lines(shop_program(store, {"status", "--json", "--count-rows"}).out);
  CHECK(counted[0]["rows"] == 1);
  CHECK(counted[1]["rows"] == 1);
  CHECK(status[1]["events"] == 2);
  CHECK(status[1]["source_lsn"] == "0/64");
  CHECK_THAT(shop_program(store, {"status"}).out, Catch::Contains("customer_totals  stopped"));

  CHECK(shop_program(store, {"verify"}).exit_code == 0);
  must(must(sqlite::Database::open(store.views() / "customer_totals.db", sqlite::Mode::kLive))
           ->execute("UPDATE customer_totals SET spent_cents = 1"));
  const auto different = shop_program(store, {"verify", "--json"});
  CHECK(different.exit_code == 1);
  const auto reports = json_lines(different.out);
  CHECK(reports[0]["equal"] == true);
  CHECK(reports[1]["equal"] == false);
  CHECK(reports[1]["differences"][0]["key"] == "7");
  CHECK(reports[1]["differences"][0]["live"] == "spent_cents = 1");
  CHECK_THAT(shop_program(store, {"verify", "customer_totals"}).out,
             Catch::Contains("row 7") && Catch::Contains("spent_cents = 100") &&
                 Catch::Contains("run: shop rebuild customer_totals"));

  const auto rebuilt = shop_program(store, {"rebuild", "customer_totals"});
  INFO(rebuilt.err);
  CHECK(rebuilt.exit_code == 0);
  CHECK(rebuilt.err.find('\r') == std::string::npos);  // no progress line in a pipe
  CHECK(shop_program(store, {"verify"}).exit_code == 0);
}

TEST_CASE("output that can't be written is an error, one that nobody reads is none",
          "[projections][command]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  REQUIRE(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  const std::string arguments =
      " --store " + store.directory().string() + " --views " + store.views().string();
  const auto shell = [&](const std::string& words, const std::string& to) {
    return millrace::test::run_command(
        {"/bin/sh", "-c", std::string(MILLRACE_SHOP_PROGRAM) + " " + words + arguments + to});
  };
  for (const auto* words : {"verify --json", "verify", "status --json", "status", "help"}) {
    INFO(words);
    const auto full = shell(words, " > /dev/full");
    CHECK(full.exit_code == 1);
    CHECK_THAT(full.err, Catch::Contains("standard output"));
  }
  must(must(sqlite::Database::open(store.views() / "customer_totals.db", sqlite::Mode::kLive))
           ->execute("INSERT INTO customer_totals(id) VALUES(9)"));
  for (const auto& [words, code] :
       {std::pair{"verify --json", 1}, {"status --json", 0}, {"help", 0}}) {
    INFO(words);
    const auto unread = millrace::test::run_command({"/bin/bash", "-c",
                                                     "set -o pipefail; { sleep 0.1; " +
                                                         std::string(MILLRACE_SHOP_PROGRAM) + " " +
                                                         words + arguments + "; } | true"});
    CHECK(unread.exit_code == code);
    CHECK(unread.err.empty());
  }
}

TEST_CASE("SIGTERM and SIGINT end run with 0 and everything committed", "[projections][command]") {
  for (const int signal : {SIGTERM, SIGINT}) {
    ShopStore store;
    store.commit({inserted(product(1, "kettle"))});
    ChildProcess worker(
        {MILLRACE_SHOP_PROGRAM, "run", "--store", store.directory(), "--views", store.views()});
    const auto state = [&] { return json_lines(shop_program(store, {"status", "--json"}).out)[0]; };
    for (int i = 0; i < 1000 && state()["lag"] != 0; ++i) REQUIRE(worker.running());
    CHECK(state()["worker"] == "pid " + std::to_string(worker.pid()) + ", shop run");
    worker.kill(signal);
    CHECK(worker.wait() == 0);
    CHECK(state()["state"] == "stopped");
  }
}

TEST_CASE("run --until-caught-up that is stopped before it has caught up exits with 1",
          "[projections][command]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  REQUIRE(shop_program(store, {"run", "product_search", "--until-caught-up"}).exit_code == 0);
  const auto holder =
      must(sqlite::Database::open(store.views() / "product_search.db", sqlite::Mode::kLive));
  must(holder->begin());
  store.commit({inserted(product(2, "pan"))});
  ChildProcess worker({MILLRACE_SHOP_PROGRAM, "run", "product_search", "--until-caught-up",
                       "--store", store.directory(), "--views", store.views()});
  const auto state = [&] {
    return json_lines(shop_program(store, {"status", "product_search", "--json"}).out)[0]["state"];
  };
  for (int i = 0; i < 1000 && state() != "running"; ++i) REQUIRE(worker.running());
  worker.kill(SIGTERM);
  CHECK(worker.wait() == 1);
  CHECK_THAT(worker.error_output(), Catch::Contains("stopped before it had caught up"));
  holder->rollback();
  CHECK(shop_program(store, {"run", "product_search", "--until-caught-up"}).exit_code == 0);
  CHECK(rows_of(store, "product_search").size() == 2);
}

TEST_CASE("options come from the environment and from a file too, the command line first",
          "[projections][command]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  millrace::test::ProcessOptions options;
  options.env = {{"MILLRACE_STORE", store.directory()}, {"MILLRACE_VIEWS", "/nowhere"}};
  const auto config = store.directory().parent_path() / "shop.ini";
  must(write_file_atomically(FileSystem::real(), config, "store = /nowhere\nlog-level = off\n"));
  const auto result = shop_program(
      {"run", "--until-caught-up", "--config", config, "--views", store.views()}, options);
  INFO(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.err.empty());
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle"});
}

TEST_CASE("wait returns once a view shows what was asked for, or when its time is over",
          "[projections][command][wait]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto late = shop_program(store, {"wait", "product_search", "--timeout", "0"});
  CHECK(late.exit_code == 1);
  CHECK_THAT(late.err, Catch::Contains("product_search does not show it after 0 s"));
  ChildProcess worker(
      {MILLRACE_SHOP_PROGRAM, "run", "--store", store.directory(), "--views", store.views()});
  CHECK(shop_program(store, {"wait", "--timeout", "60"}).exit_code == 0);
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle"});
  store.commit({inserted(product(2, "pan"))});
  CHECK(shop_program(store, {"wait", "product_search", "--offset", "2", "--timeout", "60"})
            .exit_code == 0);
  CHECK(rows_of(store, "product_search", "name").size() == 2);

  // Commits are at 0/64, 0/C8 and so on, and end 50 bytes later.
  store.commit({inserted(product(3, "board"))});
  const WaitTarget own_commit{.offset = {}, .lsn = Lsn{350}};
  const ViewPlace place{store.directory(), store.views(), "product_search"};
  CHECK(must(wait_until_folded(place, own_commit, std::chrono::seconds(60))));
  CHECK(rows_of(store, "product_search", "name").size() == 3);
  CHECK_FALSE(must(
      wait_until_folded(place, {.offset = {}, .lsn = Lsn{351}}, std::chrono::milliseconds(60))));
  CHECK_FALSE(wait_until_folded(place, {.offset = Offset{99}}));
  std::stop_source stop;
  stop.request_stop();
  const auto stopped =
      wait_until_folded(place, {.offset = {}, .lsn = Lsn{351}}, {}, stop.get_token());
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  worker.kill(SIGTERM);
  CHECK(worker.wait() == 0);
}

TEST_CASE("rollback makes the generation before the live one live again, up to date",
          "[projections][command][rollback]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto none = shop_program(store, {"rollback", "product_search"});
  CHECK(none.exit_code == 1);
  CHECK_THAT(none.err, Catch::Contains("no generation before the live one"));
  REQUIRE(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  REQUIRE(shop_program(store, {"rebuild", "product_search"}).exit_code == 0);
  store.commit({inserted(product(2, "pan"))});
  REQUIRE(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  ChildProcess worker(
      {MILLRACE_SHOP_PROGRAM, "run", "--store", store.directory(), "--views", store.views()});
  CHECK(shop_program(store, {"wait", "--timeout", "60"}).exit_code == 0);
  const auto back = shop_program(store, {"rollback", "product_search"});
  INFO(back.err);
  REQUIRE(back.exit_code == 0);
  CHECK_THAT(back.err, Catch::Contains("generation 1 is live again, as of offset 2"));
  CHECK(std::filesystem::read_symlink(store.views() / "product_search.db") ==
        "product_search.1.db");
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle", "pan"});
  store.commit({inserted(product(3, "board"))});
  CHECK(shop_program(store, {"wait", "--timeout", "60"}).exit_code == 0);
  CHECK(rows_of(store, "product_search", "name").size() == 3);
  worker.kill(SIGTERM);
  CHECK(worker.wait() == 0);
  CHECK(shop_program(store, {"verify"}).exit_code == 0);
}

TEST_CASE("describe tells what views are made of, without a store",
          "[projections][command][describe]") {
  const auto described = shop_program({"describe"});
  CHECK(described.exit_code == 0);
  CHECK_THAT(described.out, Catch::Contains("product_search\n  version 1") &&
                                Catch::Contains("left join by reference id") &&
                                Catch::Contains("spent_cents = sum total_cents") &&
                                Catch::Contains("from public.orders"));
  CHECK(shop_program({"rollback"}).exit_code == 2);
  CHECK(shop_program({"wait", "--offset", "x"}).exit_code == 2);
  CHECK(shop_program({"wait", "--lsn", "x"}).exit_code == 2);
  CHECK(shop_program({"wait", "--offset", "1", "--lsn", "0/1"}).exit_code == 2);
  CHECK(shop_program({"run", "--timeout", "1"}).exit_code == 2);
}

TEST_CASE("build makes a view as it was into a file of its own", "[projections][command][as_of]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  store.commit({inserted(product(2, "pan"))});
  const auto file = (store.directory().parent_path() / "then.db").string();
  const auto built =
      shop_program(store, {"build", "product_search", "--as-of", "1", "--into", file});
  INFO(built.err);
  CHECK(built.exit_code == 0);
  CHECK(query(file, "SELECT name FROM product_search") == std::vector<std::string>{"kettle"});
  CHECK_FALSE(std::filesystem::exists(store.views() / "product_search.db"));
  const auto again =
      shop_program(store, {"build", "product_search", "--as-of", "1", "--into", file});
  CHECK(again.exit_code == 1);
  CHECK_THAT(again.err, Catch::Contains("is there already"));
  CHECK(shop_program(store, {"build", "product_search", "--into", file + "2"}).exit_code == 0);
  CHECK(query(file + "2", "SELECT count(*) FROM product_search").at(0) == "2");
  const auto beyond =
      shop_program(store, {"build", "product_search", "--as-of", "9", "--into", file + "3"});
  CHECK(beyond.exit_code == 1);
  CHECK_THAT(beyond.err, Catch::Contains("beyond the end"));
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"build", "product_search"},
           {"build", "--into", "x"},
           {"build", "product_search", "--into", "x", "--as-of", "y"},
           {"rebuild", "product_search", "--as-of", "1"},
           {"run", "--diff"},
           {"rebuild", "--all", "--switch"}})
    CHECK(shop_program(store, words).exit_code == 2);
}

TEST_CASE("rebuild --diff shows what differs and switches only if nothing does, or if told to",
          "[projections][command][diff]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle")), inserted(product(2, "pan"))});
  REQUIRE(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  const auto generation = [&] {
    return json_lines(shop_program(store, {"status", "--json"}).out)[0]["generation"].get<int>();
  };
  const auto equal = shop_program(store, {"rebuild", "product_search", "--diff"});
  CHECK(equal.exit_code == 0);
  CHECK_THAT(equal.out, Catch::Contains("equals the live one as of offset 2"));
  CHECK(generation() == 2);
  must(must(sqlite::Database::open(store.views() / "product_search.db", sqlite::Mode::kLive))
           ->execute("UPDATE product_search SET price = '1' WHERE rowid = 2"));
  store.commit({inserted(product(3, "pot"))});  // which the live one does not have yet
  const auto different = shop_program(store, {"rebuild", "product_search", "--diff", "--json"});
  CHECK(different.exit_code == 1);
  const auto report = json_lines(different.out).at(0);
  CHECK(report["offset"] == 2);
  CHECK(report["different"] == 1);
  CHECK(report["switched"] == false);
  CHECK(report["differences"][0]["key"] == "2");
  CHECK(report["differences"][0]["live"] == "price = '1'");
  CHECK(generation() == 2);
  const auto switched = shop_program(store, {"rebuild", "product_search", "--diff", "--switch"});
  INFO(switched.err);
  CHECK(switched.exit_code == 0);
  CHECK_THAT(switched.out,
             Catch::Contains("1 differences") && Catch::Contains("live: price = '1'"));
  CHECK(generation() == 3);
  CHECK(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  CHECK(shop_program(store, {"verify"}).exit_code == 0);
  CHECK(rows_of(store, "product_search").size() == 3);
}

TEST_CASE("status tells of each view, also where one's file is something else",
          "[projections][command]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  REQUIRE(shop_program(store, {"run", "--until-caught-up"}).exit_code == 0);
  std::filesystem::remove(store.views() / "product_search.db");
  must(write_file_atomically(FileSystem::real(), store.views() / "product_search.db", ""));
  const auto status = json_lines(shop_program(store, {"status", "--json"}).out);
  REQUIRE(status.size() == 2);
  CHECK(status[0]["state"] == "unreadable");
  CHECK_THAT(status[0]["reason"].get<std::string>(), Catch::Contains("is not a link"));
  CHECK(status[1]["state"] == "stopped");
}
