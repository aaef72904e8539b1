#include <csignal>
#include <random>
#include <thread>

#include "projections/engine/verify.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using millrace::test::ChildProcess;
using millrace::test::run_command;

// The program of examples/shop is what is killed here, so that everything is as a user has it.

namespace {

std::vector<std::string> shop_command(const ShopStore& store, std::vector<std::string> words) {
  words.insert(words.begin(), MILLRACE_SHOP_PROGRAM);
  for (const auto& word :
       {std::string("--store"), store.directory().string(), std::string("--views"),
        store.views().string(), std::string("--log-level"), std::string("warn")})
    words.push_back(word);
  return words;
}

std::vector<std::string> totals_without_mail(const ShopStore& store) {
  return rows_of(store, "customer_totals", "id, name, orders, spent_cents");
}

}  // namespace

TEST_CASE("F105: a worker killed at random moments neither repeats nor skips",
          "[projections][crash]") {
  const auto seed = GENERATE(1u, 2u, 3u);
  INFO("seed " << seed);
  ShopStore store;
  ShopWorkload workload(seed);
  std::mt19937 random(seed);
  store.commit(workload.transaction());
  for (int round = 0; round < 12; ++round) {
    ChildProcess worker(shop_command(store, {"run"}));
    // Not before it is at work on what came since it was started.
    const Offset start = store.end();
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    do {
      REQUIRE(worker.running());
      REQUIRE(std::chrono::steady_clock::now() < give_up);
      store.commit(workload.transaction());
    } while (!has_folded(store, round % 2 == 0 ? "product_search" : "customer_totals",
                         Offset{start.value + 1}));
    const auto life = std::chrono::milliseconds(std::uniform_int_distribution<>(0, 40)(random));
    for (const auto end = std::chrono::steady_clock::now() + life;
         std::chrono::steady_clock::now() < end;)
      store.commit(workload.transaction());
    worker.kill(SIGKILL);
    CHECK(worker.wait() == 128 + SIGKILL);
  }
  const auto last = run_command(shop_command(store, {"run", "--until-caught-up"}));
  INFO(last.err);
  REQUIRE(last.exit_code == 0);
  CHECK(rows_of(store, "product_search") == workload.expected_search());
  CHECK(totals_without_mail(store) == workload.expected_totals());
  const auto verified = run_command(shop_command(store, {"verify"}));
  INFO(verified.out);
  CHECK(verified.exit_code == 0);
}

TEST_CASE("F114: rebuilds beside a worker, both killed now and then, end in equal views",
          "[projections][crash]") {
  ShopStore store;
  ShopWorkload workload(9);
  std::mt19937 random(9);
  for (int i = 0; i < 50; ++i) store.commit(workload.transaction());
  std::optional<ChildProcess> worker;
  for (int round = 0; round < 8; ++round) {
    if (!worker || !worker->running()) worker.emplace(shop_command(store, {"run"}));
    ChildProcess rebuild(shop_command(store, {"rebuild", "--all"}));
    for (int i = 0; i < 10; ++i) store.commit(workload.transaction());
    std::this_thread::sleep_for(
        std::chrono::milliseconds(std::uniform_int_distribution<>(0, 80)(random)));
    if (round % 2 == 0) rebuild.kill(SIGKILL);
    if (round % 3 == 0) worker->kill(SIGKILL);
    const auto code = rebuild.wait();
    INFO(rebuild.error_output());
    // Or the worker was making its first generation, which counts as a rebuild.
    CHECK((code == 0 || code == 128 + SIGKILL ||
           rebuild.error_output().find("being rebuilt") != std::string::npos));
  }
  worker->kill(SIGTERM);
  const auto code = worker->wait();
  INFO(worker->error_output());
  CHECK((code == 0 || code == 128 + SIGKILL));
  CHECK(run_command(shop_command(store, {"run", "--until-caught-up"})).exit_code == 0);
  CHECK(rows_of(store, "product_search") == workload.expected_search());
  CHECK(totals_without_mail(store) == workload.expected_totals());
}
