#include "tests/support/domain_events.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/bytes.h"
#include "eventstore/event_metadata.h"
#include "eventstore/log_reader.h"
#include "millrace/v1/change.pb.h"
#include "service/shared_store.h"

namespace millrace::test {
namespace {

constexpr std::size_t kPayloadShown = 60;
/// Keys that are like each other, or like other parts of a name.
constexpr std::array kKeys{"1", "2", "3", "1/2", "a@b", "", "ü"};
constexpr std::array kCategories{"cart", "cart", "carts"};

template <typename T>
T require(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  return *std::move(result);
}

std::string shown(std::string_view payload) {
  if (payload.size() <= kPayloadShown) return printable(payload);
  return printable(payload.substr(0, kPayloadShown)) + "... of " + std::to_string(payload.size());
}

std::string event_line(const std::string& stream, std::string_view type, std::string_view payload,
                       std::string_view id = {}) {
  return printable(stream) + " " + std::string(type) + " " + shown(payload) +
         (id.empty() ? "" : " #" + std::string(id));
}

std::string refused_line(std::string_view prefix, std::string_view content) {
  return "$messages " + std::string(prefix) + " " + shown(content);
}

std::string emit(const std::string& prefix, const std::string& payload, bool transactional = true) {
  return "SELECT pg_logical_emit_message(" + std::string(transactional ? "true" : "false") + ", '" +
         prefix + "', " + payload + ");";
}

std::string insert_into(const std::string& outbox) {
  return "INSERT INTO " + outbox + " (id, aggregatetype, aggregateid, type, payload) ";
}

/// A row that is no event is told of by its id alone: its JSON has more than the test wrote.
std::string line_of_message(const v1::Change& change) {
  if (!change.prefix().starts_with("outbox:"))
    return refused_line(change.prefix(), change.content());
  return refused_line(change.prefix(),
                      nlohmann::json::parse(change.content())["id"].get<std::string>());
}

}  // namespace

std::string create_outbox(const std::string& name) {
  return "CREATE TABLE " + name +
         " (id bigint PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)";
}

std::string DomainEventWriter::write(WrittenEvents& written, const std::string& outbox) {
  std::string sql;
  for (int i = pick(1, 3); i > 0; --i) {
    const int what = pick(1, 10);
    if (what <= 4)
      sql += message(written);
    else if (what <= 8)
      sql += outbox_row(written, outbox);
    else
      sql += refused_message(written);
  }
  return sql;
}

std::string DomainEventWriter::message(WrittenEvents& written) {
  const std::string stream = std::string(kCategories[static_cast<std::size_t>(pick(0, 2))]) + "/" +
                             kKeys[static_cast<std::size_t>(pick(0, 6))];
  const std::string number = std::to_string(++serial_);
  switch (pick(1, 4)) {
    case 1: {
      const std::string bytes = std::string("\0\xff'\\", 4) + number;
      written.lines.push_back(event_line(stream, "message", bytes));
      return emit("millrace:" + stream, "'\\x" + to_hex(bytes) + "'::bytea");
    }
    case 2:
      return emit("millrace:Never@" + stream, "'in no transaction'", false) + message(written);
    default: {
      const std::string json = "{\"n\": " + number + "}";
      written.lines.push_back(event_line(stream, "Told", json));
      return emit("millrace:Told@" + stream, "'" + json + "'");
    }
  }
}

std::string DomainEventWriter::refused_message(WrittenEvents& written) {
  constexpr std::array kRefused{"millrace:nowhere", "millrace:A@public.items/1",
                                "millrace:A@$capture/1", "millrace:@cart/1", "note"};
  const std::string prefix = kRefused[static_cast<std::size_t>(pick(0, 4))];
  const std::string number = std::to_string(++serial_);
  written.lines.push_back(refused_line(prefix, number));
  return emit(prefix, "'" + number + "'");
}

std::string DomainEventWriter::outbox_row(WrittenEvents& written, const std::string& outbox) {
  const std::string category = kCategories[static_cast<std::size_t>(pick(0, 2))];
  const std::string key = kKeys[static_cast<std::size_t>(pick(0, 6))];
  const std::string id = std::to_string(++serial_);
  const bool refused = pick(1, 8) == 1, empty = pick(1, 8) == 1, stays = pick(1, 4) == 1;
  const std::string payload = empty ? "" : R"({"box": )" + id + "}";
  written.lines.push_back(refused ? refused_line("outbox:public." + outbox, id)
                                  : event_line(category + "/" + key, "Boxed", payload, id));
  if (stays) written.left.push_back(written.lines.back());
  return insert_into(outbox) + "VALUES (" + id + ", '" + category + "', " +
         (refused ? "NULL" : "'" + key + "'") + ", 'Boxed', " +
         (empty ? "NULL" : "'" + payload + "'") + ");" +
         (stays ? "" : "DELETE FROM " + outbox + " WHERE id = " + id + ";");
}

std::string DomainEventWriter::write_many(WrittenEvents& written, int count,
                                          const std::string& outbox) {
  const std::uint64_t from = serial_ + 1;
  serial_ += static_cast<std::uint64_t>(count);
  const bool boxed = pick(0, 1) == 0;
  for (std::uint64_t n = from; n <= serial_; ++n) {
    const std::string number = std::to_string(n), stream = "cart/" + std::to_string(n % 3 + 1);
    written.lines.push_back(
        boxed ? event_line(stream, "Many", "\"" + number + std::string(300, 'x') + "\"", number)
              : event_line(stream, "Many", number + std::string(300, 'x')));
  }
  const std::string series =
      "generate_series(" + std::to_string(from) + ", " + std::to_string(serial_) + ") g;";
  if (!boxed)
    return "SELECT count(pg_logical_emit_message(true, 'millrace:Many@cart/' || g % 3 + 1, g || "
           "repeat('x', 300))) FROM " +
           series;
  return insert_into(outbox) +
         "SELECT g, 'cart', g % 3 + 1, 'Many', to_jsonb(g || repeat('x', 300)) FROM " + series +
         "DELETE FROM " + outbox + " WHERE id BETWEEN " + std::to_string(from) + " AND " +
         std::to_string(serial_) + ";";
}

OtherAppends::OtherAppends(Path store, unsigned seed)
    : store_(std::move(store)),
      random_(seed),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void OtherAppends::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

/// An append that nobody answered is sent again until somebody does.
void OtherAppends::run(const std::stop_token& stop) {
  const auto opened = SharedStore::open(store_);
  if (!opened) {
    failure_ = opened.error().to_string();
    return;
  }
  std::map<std::string, std::uint64_t> next_versions;
  std::mutex mutex;
  std::condition_variable_any pace;
  for (int number = 1; !stop.stop_requested(); ++number) {
    const std::string key = kKeys[random_() % kKeys.size()];
    const std::string payload = "append " + std::to_string(number);
    const auto known = next_versions.find(key);
    ExpectedVersion expected;
    if (known != next_versions.end() && random_() % 2 == 0)
      expected = ExpectedVersion::exact(known->second - 1);
    const std::array events{NewStreamEvent{.type = "Appended", .payload = payload}};
    const std::array parts{
        StreamAppend{.stream = {"cart", key}, .expected = expected, .events = events}};
    auto result = (*opened)->append_durably({.streams = parts, .idempotency_key = payload});
    while (!result && (result.error().code() == ErrorCode::kUnavailable ||
                       result.error().code() == ErrorCode::kLocked))
      result = (*opened)->append_durably({.streams = parts, .idempotency_key = payload});
    if (result) {
      lines_.push_back(event_line("cart/" + key, "Appended", payload));
      next_versions[key] = result->next_versions.at(0);
    } else if (result.error().code() == ErrorCode::kConflict) {
      ++conflicts_;
      next_versions.erase(key);
    } else {
      failure_ = payload + ": " + result.error().to_string();
      return;
    }
    // So that the log does not become larger than what a test can look through.
    std::unique_lock lock(mutex);
    pace.wait_for(lock, stop, std::chrono::milliseconds(5), [] { return false; });
  }
}

LoggedEvents read_domain_events(const Path& store) {
  LoggedEvents events;
  std::map<std::string, std::uint64_t> next;
  const auto reader = require(LogReader::open(store));
  while (Batch* batch = require(reader->next())) {
    const bool captured = batch->info.source.epoch != 0;
    while (const EventView* event = batch->next()) {
      if (event->category == "$messages") {
        v1::Change change;
        if (!change.ParseFromArray(event->payload.data(), static_cast<int>(event->payload.size())))
          throw std::runtime_error("payload is no Change");
        events.captured.push_back(line_of_message(change));
        continue;
      }
      if (event->type.empty() || event->category == "$capture") continue;
      const std::string stream = std::string(event->category) + "/" + std::string(event->key);
      std::string line = event_line(stream, event->type, event->payload,
                                    require(decode_metadata(event->metadata)).event_id);
      if (const std::uint64_t due = next[stream]++; event->version != due)
        events.faults.push_back(line + " at offset " + std::to_string(event->offset.value) +
                                " has version " +
                                (event->version ? std::to_string(*event->version) : "none") +
                                ", not " + std::to_string(due));
      (captured ? events.captured : events.appended).push_back(std::move(line));
    }
    if (const auto status = batch->status(); !status)
      throw std::runtime_error(status.error().to_string());
  }
  return events;
}

std::string first_difference(const std::vector<std::string>& expected,
                             const std::vector<std::string>& found) {
  std::size_t at = 0;
  while (at < expected.size() && at < found.size() && expected[at] == found[at]) ++at;
  if (at == expected.size() && at == found.size()) return {};
  const auto there = [at](const std::vector<std::string>& list) {
    return at < list.size() ? list[at] : "the end";
  };
  return "number " + std::to_string(at) + " of " + std::to_string(expected.size()) + " and " +
         std::to_string(found.size()) + " is not " + there(expected) + " but " + there(found);
}

}  // namespace millrace::test
