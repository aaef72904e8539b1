#include "eventstore/consumers.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "eventstore/log/checked_json.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kNameBytesMax = 100;
constexpr std::uint64_t kFileBytesMax = 16 << 20;
/// Further ones are not told apart.
constexpr std::size_t kLostMax = 100;

Path directory_of(const Path& store) { return store / "consumers"; }
Path file_of(const Path& store, std::string_view name) { return directory_of(store) / name; }

bool is_name_byte(char byte) {
  return std::isalnum(static_cast<unsigned char>(byte)) != 0 || byte == '.' || byte == '_' ||
         byte == '-';
}

Error damaged(const Path& file) {
  return Error(ErrorCode::kCorruption, file.string() + ": is not what a consumer's file holds")
      .hint("Remove the consumer with `millrace log consumers --remove` and register it again.");
}

Json json_of(const Consumer& consumer) {
  Json lost = Json::array();
  for (const RemovedEvents& one : consumer.lost) {
    // Names may hold any byte; JSON may not.
    lost.push_back({{"category_hex", to_hex(one.category)},
                    {"reason", one.reason},
                    {"first", one.first.value},
                    {"last", one.last.value},
                    {"count", one.count}});
    if (lost.size() == kLostMax) break;
  }
  return {{"offset", consumer.offset.value},
          {"policy", name_of(consumer.policy)},
          {"updated", consumer.updated.value},
          {"lost", std::move(lost)}};
}

/// As it is written, and nothing else that could be made one: no -1, no 1.5.
std::uint64_t number(const Json& json, const char* name) {
  return json.at(name).get_ref<const Json::number_unsigned_t&>();
}

Result<Consumer> parse(std::string_view name, const Path& file, const std::string& text) {
  if (!log::has_right_checksum(text)) return damaged(file);
  try {
    const Json json = Json::parse(text);
    Consumer consumer{.name = std::string(name),
                      .offset = {number(json, "offset")},
                      .policy = ConsumerPolicy::kHold,
                      .updated = {json.at("updated").get_ref<const Json::number_integer_t&>()},
                      .lost = {}};
    const auto policy = json.at("policy").get<std::string>();
    if (policy == name_of(ConsumerPolicy::kLose))
      consumer.policy = ConsumerPolicy::kLose;
    else if (policy != name_of(ConsumerPolicy::kHold))
      return damaged(file);
    for (const Json& one : json.at("lost")) {
      auto category = from_hex(one.at("category_hex").get<std::string>());
      if (!category) return damaged(file);
      consumer.lost.push_back({.category = *std::move(category),
                               .reason = one.at("reason").get<std::string>(),
                               .first = {number(one, "first")},
                               .last = {number(one, "last")},
                               .count = number(one, "count")});
    }
    return consumer;
  } catch (const nlohmann::json::exception&) {
    return damaged(file);
  }
}

Result<Consumer> read(const Path& store, std::string_view name, FileSystem& files) {
  const Path file = file_of(store, name);
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, read_file(files, file, kFileBytesMax));
  return parse(name, file, text);
}

}  // namespace

std::string_view name_of(ConsumerPolicy policy) {
  return policy == ConsumerPolicy::kHold ? "hold" : "lose";
}

Result<void> check_consumer_name(std::string_view name) {
  const bool good = !name.empty() && name.size() <= kNameBytesMax &&
                    std::all_of(name.begin(), name.end(), is_name_byte) &&
                    std::isalnum(static_cast<unsigned char>(name.front())) != 0 &&
                    !name.ends_with(".tmp");
  if (good) return {};
  return Error(ErrorCode::kInvalidArgument,
               "a consumer's name has 1 to 100 letters, digits, dots, underscores and dashes, the "
               "first a letter or digit, and does not end in .tmp: " +
                   printable(name));
}

Result<std::vector<std::string>> consumer_names(const Path& store, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(directory_of(store)));
  if (!there) return std::vector<std::string>();
  MILLRACE_ASSIGN_OR_RETURN(auto names, files.list(directory_of(store)));
  std::erase_if(names, [](const std::string& name) { return !check_consumer_name(name); });
  return names;
}

Result<std::vector<Consumer>> list_consumers(const Path& store, FileSystem& files) {
  std::vector<Consumer> consumers;
  MILLRACE_ASSIGN_OR_RETURN(const auto names, consumer_names(store, files));
  for (const std::string& name : names) {
    auto consumer = read(store, name, files);
    if (!consumer && consumer.error().code() == ErrorCode::kNotFound) continue;  // just removed
    if (!consumer) return std::move(consumer).error();
    consumers.push_back(*std::move(consumer));
  }
  return consumers;
}

Result<Consumer> find_consumer(const Path& store, std::string_view name, FileSystem& files) {
  MILLRACE_RETURN_IF_ERROR(check_consumer_name(name));
  auto consumer = read(store, name, files);
  if (!consumer && consumer.error().code() == ErrorCode::kNotFound)
    return Error(ErrorCode::kNotFound,
                 "store " + store.string() + " knows no consumer " + std::string(name))
        .hint("`millrace log consumers` lists them; register it there.");
  return consumer;
}

Result<void> check_has_all(const Consumer& consumer) {
  if (consumer.lost.empty()) return {};
  const RemovedEvents& lost = consumer.lost.front();
  return Error(ErrorCode::kGone,
               "OFFSET_GONE: consumer " + consumer.name + " stood at offset " +
                   std::to_string(consumer.offset.value) + " when " + std::to_string(lost.count) +
                   " events of " + printable(lost.category) + " between the offsets " +
                   std::to_string(lost.first.value) + " and " + std::to_string(lost.last.value) +
                   " went (" + lost.reason + ")" + (consumer.lost.size() > 1 ? ", and others" : ""))
      .hint(
          "Build anew what it feeds: remove the consumer, register it at offset 0 and read from "
          "the beginning. With the policy `hold` the store waits for it.");
}

Result<std::unique_ptr<LogReader>> open_consumer(const Path& store, std::string_view name,
                                                 FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const Consumer consumer, find_consumer(store, name, files));
  MILLRACE_RETURN_IF_ERROR(check_has_all(consumer));
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            LogReader::open(store, {.from = consumer.offset, .files = &files}));
  if (consumer.offset <= reader->durable_end()) return reader;
  return Error(ErrorCode::kGone, "OFFSET_GONE: consumer " + consumer.name + " stands at offset " +
                                     std::to_string(consumer.offset.value) +
                                     ", and the store ends at " +
                                     std::to_string(reader->durable_end().value) +
                                     ": what it has read was taken back")
      .hint(
          "A power loss in mode os does that, or an older copy of the store. Build anew what it "
          "feeds: remove the consumer, register it at offset 0 and read from the beginning.");
}

Result<void> ConsumerFiles::write(const Consumer& consumer) {
  MILLRACE_RETURN_IF_ERROR(check_consumer_name(consumer.name));
  MILLRACE_ASSIGN_OR_RETURN(const bool known, files_.exists(file_of(store_, consumer.name)));
  if (!known) {
    // Also where the directory is there: who made it may have failed before its name was durable.
    MILLRACE_RETURN_IF_ERROR(files_.make_directory(directory_of(store_)));
    MILLRACE_RETURN_IF_ERROR(files_.sync_directory(store_));
  }
  return write_file_atomically(files_, file_of(store_, consumer.name),
                               log::with_checksum(json_of(consumer).dump(2)));
}

Result<void> ConsumerFiles::remove(std::string_view name) {
  // A damaged file can be removed as well: only its name matters.
  auto consumer = find_consumer(store_, name, files_);
  if (!consumer && consumer.error().code() != ErrorCode::kCorruption)
    return std::move(consumer).error();
  MILLRACE_RETURN_IF_ERROR(files_.remove(file_of(store_, name)));
  return files_.sync_directory(directory_of(store_));
}

}  // namespace millrace
