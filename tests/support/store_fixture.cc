#include "tests/support/store_fixture.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace millrace::test {
namespace {

// Thousands of damaged stores are opened here, and each says so.
[[maybe_unused]] const bool is_quiet = (spdlog::set_level(spdlog::level::off), true);

}  // namespace

StoredTransaction sample_transaction(std::uint64_t number, std::size_t events,
                                     std::size_t payload_bytes) {
  StoredTransaction transaction{.commit = number * 10, .events = {}};
  for (std::size_t i = 0; i < events; ++i) {
    StoredEvent event;
    event.category = "public.table" + std::to_string((number + i) % 3);
    event.key = std::to_string(number) + "/" + std::to_string(i);
    event.payload.resize(payload_bytes);
    // No byte is 0, so that no sector of it looks as if it had never been written.
    for (std::size_t k = 0; k < payload_bytes; ++k)
      event.payload[k] = static_cast<char>(1 + (number * 31 + i * 7 + k * 13) % 255);
    if (i % 4 == 1) event.type = "Type" + std::to_string(i % 5);
    if (i % 5 == 2) event.metadata = "meta" + std::to_string(i);
    if (i % 7 == 3) event.flags = EventFlags::kTombstone;
    transaction.events.push_back(std::move(event));
  }
  return transaction;
}

StoreOptions small_options(FileSystem& files) {
  StoreOptions options;
  options.segment_bytes = 16 << 10;
  options.pending_bytes_max = 16 << 10;
  options.flush_bytes = 1 << 20;
  options.flush_interval = std::chrono::hours(1);
  options.compression = Compression::kNone;
  options.files = &files;
  options.background_maintenance = false;
  return options;
}

Result<void> append(EventStore& store, const StoredTransaction& transaction) {
  MILLRACE_RETURN_IF_ERROR(
      store.begin({.source = {.epoch = 1, .commit = transaction.commit, .end = 0},
                   .source_xid = static_cast<std::uint32_t>(transaction.commit),
                   .commit_time = {static_cast<std::int64_t>(transaction.commit)},
                   .snapshot = false}));
  for (const StoredEvent& event : transaction.events)
    MILLRACE_RETURN_IF_ERROR(store.add(event.view()));
  MILLRACE_RETURN_IF_ERROR(store.commit(transaction.commit + 5));
  return {};
}

Result<void> append_durably(EventStore& store, const StoredTransaction& transaction) {
  MILLRACE_RETURN_IF_ERROR(append(store, transaction));
  store.request_flush();
  MILLRACE_ASSIGN_OR_RETURN(
      const bool durable,
      store.wait_durable(store.appended_end(), transaction.commit + 5, std::chrono::minutes(1)));
  if (!durable) return Error(ErrorCode::kInternal, "not durable after a minute");
  return {};
}

namespace {

/// Collects one batch; true at the end of its transaction.
bool collect(Batch& batch, StoredTransaction& into, std::uint64_t& next_offset) {
  REQUIRE(batch.first.value == next_offset);
  REQUIRE(batch.first_of_transaction == into.events.empty());
  REQUIRE(batch.ordinal == into.events.size());
  into.commit = batch.info.source.commit;
  std::uint32_t count = 0;
  while (const EventView* event = batch.next()) {
    REQUIRE(event->offset.value == next_offset);
    into.events.push_back({std::string(event->category), std::string(event->key),
                           std::string(event->type), std::string(event->payload),
                           std::string(event->metadata), event->flags});
    ++next_offset;
    ++count;
  }
  REQUIRE(batch.status());
  REQUIRE(count == batch.count);
  if (batch.last_of_transaction) REQUIRE(batch.info.source.end == into.commit + 5);
  return batch.last_of_transaction;
}

}  // namespace

History read_history(const Path& store, FileSystem& files, std::optional<Error>* error) {
  History history;
  const auto fail = [&](Error what) {
    if (error == nullptr) FAIL(what.to_string());
    *error = std::move(what);
  };
  auto reader = LogReader::open(store, {.from = {}, .categories = {}, .files = &files});
  if (!reader) return fail(reader.error()), history;
  StoredTransaction transaction;
  for (std::uint64_t next_offset = 0;;) {
    const auto batch = (*reader)->next();
    if (!batch) return fail(batch.error()), history;
    if (*batch == nullptr) break;
    if (!collect(**batch, transaction, next_offset)) continue;
    history.push_back(std::move(transaction));
    transaction = {};
  }
  CHECK(transaction.events.empty());  // a reader never ends inside a transaction
  return history;
}

bool is_prefix(const History& prefix, const History& whole) {
  return prefix.size() <= whole.size() && std::equal(prefix.begin(), prefix.end(), whole.begin());
}

}  // namespace millrace::test
