#include "capture/pipeline/application_events.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "base/bytes.h"

namespace millrace {
namespace {

constexpr std::chrono::minutes kTellAgain{1};

Error invalid(std::string what) { return Error(ErrorCode::kInvalidArgument, std::move(what)); }

std::string sizes(std::string_view name, std::size_t max, std::size_t is) {
  return std::string(name) + " has 1 to " + std::to_string(max) + " bytes, not " +
         std::to_string(is);
}

}  // namespace

Result<EventAddress> parse_event_prefix(std::string_view prefix) {
  std::string_view rest = prefix.substr(kEventMessagePrefix.size());
  const std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return invalid("a stream is category/key: there is no '/'");
  EventAddress address{.type = kUntypedMessage, .category = {}, .key = rest.substr(slash + 1)};
  rest = rest.substr(0, slash);
  if (const std::size_t at = rest.find('@'); at != std::string_view::npos) {
    address.type = rest.substr(0, at);
    rest.remove_prefix(at + 1);
  }
  address.category = rest;
  return address;
}

Result<void> ApplicationEvents::check(const EventAddress& address) {
  const std::string_view category = address.category;
  if (category.empty() || category.size() > kCategoryBytesMax)
    return invalid(sizes("a category", kCategoryBytesMax, category.size()));
  if (address.type.empty() || address.type.size() > kCategoryBytesMax)
    return invalid(sizes("an event type", kCategoryBytesMax, address.type.size()));
  if (address.key.size() > kKeyBytesMax)
    return invalid("a key has at most " + std::to_string(kKeyBytesMax) + " bytes, not " +
                   std::to_string(address.key.size()));
  if (category.find('/') != std::string_view::npos)
    return invalid("category " + printable(category) + " has a '/', which ends one");
  if (category.starts_with('$'))
    return invalid("category " + printable(category) +
                   " is millrace's own, as all that begin with '$'");
  const auto table = schemas_.latest(category);
  if (table) return invalid("category " + printable(category) + " is a captured table's");
  if (table.error().code() != ErrorCode::kNotFound) return table.error();
  return {};
}

std::optional<NewEvent> ApplicationEvents::event_of(const pgoutput::LogicalMessage& message) {
  auto address = parse_event_prefix(message.prefix);
  Result<void> checked = address ? check(*address) : Result<void>(address.error());
  if (!checked) {
    refuse("the logical message with prefix " + printable(message.prefix, 200), checked.error());
    return std::nullopt;
  }
  return NewEvent{.category = address->category,
                  .key = address->key,
                  .type = address->type,
                  .payload = message.content,
                  .metadata = {},
                  .flags = EventFlags::kNone,
                  .versioned = true};
}

void ApplicationEvents::refuse(std::string_view what, const Error& why) {
  const Clock::Monotonic now = clock_.monotonic();
  if (++refused_ > 1 && now - told_at_ < kTellAgain) return;
  const std::uint64_t others = refused_ - std::exchange(told_, refused_) - 1;
  told_at_ = now;
  spdlog::warn(
      "{} is no domain event: {}. It is kept as an event of {}; {} so far{}. Mend what writes "
      "them: docs/streams.md tells how they are addressed",
      what, why.message(), kMessagesCategory, refused_,
      others == 0 ? "" : ", " + std::to_string(others) + " of them untold since the last warning");
}

}  // namespace millrace
