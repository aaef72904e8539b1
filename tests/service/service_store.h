#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eventstore/policy.h"
#include "eventstore/stream_reader.h"
#include "service/shared_store.h"
#include "service/store_server.h"
#include "tests/support/store_fixture.h"

namespace millrace::test {

inline Result<AppendResult> append_one(Appender& appender, std::string_view key,
                                       ExpectedVersion expected = {}, std::string_view id = {},
                                       std::string_view payload = "p") {
  const NewStreamEvent event{.type = "Happened", .payload = payload, .metadata = {}};
  const StreamAppend part{.stream = {"cart", key}, .expected = expected, .events = {&event, 1}};
  return appender.append_durably({.streams = {&part, 1}, .idempotency_key = id});
}

/// A store that is held and served, as a running capture does it.
struct Held {
  explicit Held(const Path& directory)
      : store(must(EventStore::open(directory))),
        server(must(StoreServer::start(*store, directory))) {}
  std::unique_ptr<EventStore> store;
  std::unique_ptr<StoreServer> server;
};

inline std::vector<std::size_t> payload_sizes(const Path& directory, std::string_view key) {
  const auto reader = must(StreamReader::open(directory));
  std::vector<std::size_t> sizes;
  must(reader->read({"cart", key}, {}, [&](const EventView& event, const TransactionInfo&) {
    sizes.push_back(event.payload.size());
    return true;
  }));
  return sizes;
}

inline SharedStoreOptions impatient() {
  SharedStoreOptions options;
  options.patience = std::chrono::milliseconds(300);
  return options;
}

inline void set_compacting(Appender& store, std::string_view category) {
  const PolicyEvent policy = must(policy_event(category, {.retention = Retention::kCompact}));
  const NewStreamEvent event{.type = "PolicySet", .payload = policy.payload, .metadata = {}};
  const StreamAppend part{
      .stream = {kPolicyCategory, policy.key}, .expected = {}, .events = {&event, 1}};
  must(store.append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
}

/// Segments of which most can go.
inline void fill(Appender& store, std::size_t payload_bytes = 600) {
  for (int i = 0; i < 40; ++i)
    must(append_one(store, "a", {}, {}, std::string(payload_bytes, 'x')));
}

}  // namespace millrace::test
