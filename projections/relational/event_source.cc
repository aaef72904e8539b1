#include "projections/relational/event_source.h"

#include "base/bytes.h"

namespace millrace::projections::internal {

std::string event_key(Offset offset) {
  std::string key;
  append_be<std::uint64_t>(key, offset.value);
  return key;
}

Offset offset_of(std::string_view key) { return {load_be<std::uint64_t>(key.data())}; }

void EventSource::take(const RawChange& change) {
  if (change.op == Op::kDelete)
    erased_.insert_or_assign(std::string(change.key), change.offset);
  else
    gather(event_key(change.offset), encode_event(change));
}

bool EventSource::is_erased(std::string_view key, std::string_view event) const {
  const auto erased = erased_.find(stream_of(event));
  return erased != erased_.end() && offset_of(key) < erased->second;
}

std::vector<std::string> EventSource::gone() {
  std::vector<std::string> keys;
  if (erased_.empty()) return keys;
  for (const auto* gathered : gathered().entries())
    if (const auto event = gathered->value(); event && is_erased(gathered->key(), *event))
      keys.emplace_back(gathered->key());
  for (const std::string& key : keys) gather(key, std::nullopt);
  keys.clear();
  rows().for_each([&](std::string_view key, std::string_view event) {
    if (is_erased(key, event)) keys.emplace_back(key);
  });
  erased_.clear();
  return keys;
}

std::string EventSource::called(std::string_view key) {
  std::string name =
      "event at offset " + std::to_string(offset_of(key).value) + " of " + printable(category());
  try {
    if (const auto event = find(key, When::kAfter))
      name += ", key '" + printable(stream_of(*event)) + "'";
  } catch (const StateFailure&) {  // what went wrong before that is to be told
  }
  return name;
}

}  // namespace millrace::projections::internal
