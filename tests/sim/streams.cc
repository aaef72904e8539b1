#include <array>
#include <map>
#include <thread>
#include <vector>

#include "tests/sim/probes.h"
#include "tests/sim/simulation.h"

// Appends to streams: expected versions, several streams at once, idempotency keys that come again;
// and transactions that give versions in the same streams.

namespace millrace::sim {
namespace {

struct Wish {
  std::string key;
  ExpectedVersion expected;
  bool conflicts = false;
  std::vector<std::string> payloads;
};

Wish make_wish(const Simulation& sim, std::uint32_t which, std::uint32_t kind,
               std::uint32_t count) {
  Wish wish;
  wish.key = "s" + std::to_string(which % 5);
  const std::uint64_t next = sim.model.next_version("streams", wish.key);
  switch (kind % 5) {
    case 0: break;
    case 1:
      wish.expected = ExpectedVersion::none();
      wish.conflicts = next != 0;
      break;
    case 2:
    case 3:
      wish.expected = next == 0 ? ExpectedVersion::none() : ExpectedVersion::exact(next - 1);
      break;
    case 4:
      wish.expected = ExpectedVersion::exact(next + 1);
      wish.conflicts = true;
      break;
  }
  for (std::uint32_t i = 0; i < count; ++i)
    wish.payloads.push_back("payload " + std::to_string(sim.serial) + "/" + std::to_string(i));
  return wish;
}

void check_repeated(const Simulation& sim, const std::string& key, const AppendResult& result) {
  const ModelTransaction* earlier = sim.model.find_append(key);
  check(earlier != nullptr && result.repeated && result.first.value == earlier->first &&
            result.end.value == earlier->end,
        "I2 a repeated append gives the first result", key);
  hit(Probe::kAppendRepeated);
}

/// Without versions, which it gets when it is added. Every stream comes first once, so that nothing
/// is read once something may be on its way to the disk: the flusher would be at work then.
std::vector<ModelEvent> make_versioned(std::uint64_t serial, const Arguments& a) {
  const std::size_t streams = 1 + a[0] % 3;
  const std::size_t more = a[0] / 4 % 4 == 0 ? 60 + a[1] % 100 : a[1] % 12;
  std::vector<ModelEvent> events;
  for (std::size_t i = 0; i < streams + more; ++i) {
    const bool is_row = i >= streams && i % 3 == 0;
    const std::size_t which = i < streams ? i : (a[1] + i * i) % streams;
    events.push_back({.category = is_row ? "c0" : "streams",
                      .key = (is_row ? "r" : "s") + std::to_string((a[0] / 16 + which) % 5),
                      .type = is_row ? "" : "Told",
                      .payload = "told " + std::to_string(serial) + "/" + std::to_string(i) +
                                 std::string(a[2] % 200, 'v'),
                      .metadata = i % 4 == 0 ? "meta" : ""});
  }
  return events;
}

void give_versions(const Simulation& sim, std::vector<ModelEvent>& events) {
  std::map<std::string, std::uint64_t> next;
  for (ModelEvent& event : events) {
    if (event.category != "streams") continue;
    const auto known =
        next.try_emplace(event.key, sim.model.next_version(event.category, event.key)).first;
    event.version = known->second++;
  }
}

/// From another thread, while this one has a transaction open that has given no version yet: it
/// takes its place before that.
void append_beside(Simulation& sim, const std::string& key) {
  const NewStreamEvent event{.type = "Beside", .payload = "beside", .metadata = ""};
  const StreamAppend part{.stream = {"streams", key}, .expected = {}, .events = {&event, 1}};
  std::optional<Result<AppendResult>> result;
  std::thread([&] {
    result = sim.store().append({.streams = {&part, 1}, .idempotency_key = {}});
  }).join();
  if (!*result) {
    check(sim.files.fault_was_hit(), "I9 append beside a transaction", result->error().to_string());
    if (sim.store().status() && !sim.files.is_down()) sim.files.clear_faults();  // as above
    return;
  }
  check((*result)->first.value == sim.model.end(), "I2 offset of an append");
  TransactionInfo info;
  info.commit_time = {sim.clock.now};
  sim.model.add(info, {{.category = "streams",
                        .key = key,
                        .type = "Beside",
                        .payload = "beside",
                        .metadata = "",
                        .version = sim.model.next_version("streams", key)}});
  sim.unflushed_bytes += 1024;
  hit(Probe::kAppendedBeside);
}

}  // namespace

void append_versioned(Simulation& sim, const Arguments& a) {
  std::vector<ModelEvent> events = make_versioned(++sim.serial, a);
  const TransactionInfo info = next_info(sim, a[3] % 4 != 0);
  const std::size_t bytes = bytes_of(events) + 1024;
  const std::uint64_t before = sim.files.operations();
  if (!begin(sim, info, bytes)) return;
  const bool spills = bytes > sim.options.pending_bytes_max / 2;
  if (a[3] / 4 % 3 == 0 && !spills && !sim.flushes_always())
    append_beside(sim, "s" + std::to_string(a[3] / 16 % 5));
  give_versions(sim, events);
  if (!add(sim, events)) return;
  if (a[3] / 64 % 5 == 0) {
    hit(Probe::kVersionsTakenBack);
    return roll_back(sim, events, sim.files.operations() != before);
  }
  hit(spills ? Probe::kVersionedSpilled : Probe::kVersioned);
  commit(sim, info, std::move(events));
}

void append_to_streams(Simulation& sim, const Arguments& a) {
  if (sim.unflushed_bytes + 1024 > sim.options.pending_bytes_max && sim.unflushed_bytes != 0 &&
      !sim.flush())
    return;
  EventStore& store = sim.store();
  ++sim.serial;
  std::vector<Wish> wishes{make_wish(sim, a[0], a[1], 1 + a[0] / 8 % 3)};
  if (a[0] % 4 == 3) wishes.push_back(make_wish(sim, a[0] + 1, a[1] / 8, a[1] / 64 % 3));
  bool conflicts = false;
  std::vector<std::vector<NewStreamEvent>> events(wishes.size());
  std::vector<StreamAppend> streams;
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    conflicts = conflicts || wishes[i].conflicts;
    for (const std::string& payload : wishes[i].payloads)
      events[i].push_back({.type = "Added", .payload = payload, .metadata = ""});
    streams.push_back({.stream = {.category = "streams", .key = wishes[i].key},
                       .expected = wishes[i].expected,
                       .events = events[i]});
  }
  std::string key = a[2] % 3 == 0 ? "" : "append " + std::to_string(a[2] / 3 % 6);
  // What has expired can't be repeated: whether it was there nobody has to know any more.
  const ModelTransaction* const earlier = sim.model.find_append(key);
  if (earlier != nullptr && sim.model.may_lack(*earlier)) key.clear();
  const bool is_known = !key.empty() && sim.model.find_append(key) != nullptr;
  const auto result = store.append({.streams = streams, .idempotency_key = key});
  if (!result) {
    if (result.error().code() == ErrorCode::kConflict) {
      check(conflicts, "I4 an append conflicts that should not", result.error().to_string());
      return hit(Probe::kAppendConflicted);
    }
    if (is_known && (result.error().code() == ErrorCode::kInvalidArgument ||
                     result.error().code() == ErrorCode::kGone))
      return;  // other streams, or what may be left of as many
    check(sim.files.fault_was_hit(), "I9 append to streams", result.error().to_string());
    if (store.status() && !sim.files.is_down()) sim.files.clear_faults();  // it could not read
    return;
  }
  if (is_known) return check_repeated(sim, key, *result);
  check(!conflicts, "I4 an append that conflicts is accepted");
  check(!result->repeated && result->first.value == sim.model.end(), "I2 offset of an append");
  std::vector<ModelEvent> added;
  for (const Wish& wish : wishes) {
    std::uint64_t version = sim.model.next_version("streams", wish.key);
    for (const std::string& payload : wish.payloads)
      added.push_back({.category = "streams",
                       .key = wish.key,
                       .type = "Added",
                       .payload = payload,
                       .metadata = "",
                       .version = version++});
  }
  TransactionInfo info;
  info.commit_time = {sim.clock.now};
  sim.model.add(info, std::move(added), key);
  check(result->end.value == sim.model.end(), "I2 end of an append");
  sim.unflushed_bytes += 1024;
  hit(Probe::kAppendedToStreams);
  if (sim.unflushed_bytes > sim.options.pending_bytes_max || sim.flushes_always()) sim.flush();
}

}  // namespace millrace::sim
