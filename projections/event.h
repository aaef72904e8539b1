#pragma once

#include <google/protobuf/message.h>

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "eventstore/event_metadata.h"
#include "eventstore/types.h"
#include "projections/change.h"
#include "projections/value.h"
#include "schemas/lsn.h"

// Events that applications append to streams, and logical messages, as views get them.

namespace millrace::projections {

namespace internal {

/// An event whose payload or metadata can't be read as what its function asks for.
class BadEvent : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The members of a JSON payload.
class JsonMembers;

/// An event apart from what its payload is decoded to.
class EventFields {
 public:
  EventFields();
  EventFields(EventFields&&) noexcept;
  EventFields& operator=(EventFields&&) noexcept;
  ~EventFields();

  /// "9f3a" of the stream cart/9f3a; of a logical message its prefix.
  std::string_view key() const { return key_; }
  /// "ItemAdded"; of a logical message its prefix.
  std::string_view type() const { return type_; }
  /// Its place in its stream, from 0; nothing of logical messages and of what capture itself tells.
  std::optional<std::uint64_t> version() const { return version_; }
  /// The payload as it was appended.
  std::string_view data() const;
  Offset offset() const { return offset_; }
  UnixMicros time() const { return time_; }  ///< When it was appended, or committed at the source.
  Lsn commit_lsn() const { return commit_lsn_; }  ///< Of its transaction; 0 if it was not captured.
  /// What the application said beside it. Valid as long as the event.
  EventMetadata metadata() const;

  /// A member of a payload that is a JSON object: text, a number or null, also where it is not
  /// there. A number with a fraction or an exponent is text with its digits, as a numeric column
  /// is: say decimal(member("price")) to compare it. "/customer/id" goes into what is nested
  /// (RFC 6901). Throws where the member is an object or a list, and if the payload is no JSON.
  Value operator[](std::string_view member) const;

  /// Every event of the stream that was before this one was erased from the log; this stands for
  /// them, and has nothing but key() and where it is. Functions of on_event() see such; relations
  /// take back by themselves what those events had put in.
  bool is_erased() const { return is_erased_; }

  /// "key", "type", "version", "data", "time" (microseconds since 1970) or "offset".
  Value column(std::string_view name) const;
  static bool has_column(std::string_view name);

  // --- for the engine ---
  /// Views of `change`, which must live as long.
  void assign(const RawChange& change);
  /// Takes a copy of what encode_event() made.
  void assign_copy(Offset offset, std::string_view bytes);

 protected:
  std::string called() const;  ///< "event 17 'ItemAdded'"

 private:
  std::string_view key_, type_, payload_, metadata_;
  std::optional<std::uint64_t> version_;
  Offset offset_;
  UnixMicros time_;
  Lsn commit_lsn_;
  bool is_erased_ = false;
  std::vector<char> copy_;  // a vector: its bytes stay where they are when it is moved
  mutable std::unique_ptr<JsonMembers> members_;
  mutable bool is_parsed_ = false;
};

/// An event as a view keeps it.
std::string encode_event(const RawChange& change);
/// The key of the stream of an encoded event.
std::string_view stream_of(std::string_view encoded);

/// From type and payload to what they mean.
template <typename T>
using Decoder = std::function<Result<T>(std::string_view type, std::string_view payload)>;

}  // namespace internal

/// A domain event of a stream, or a logical message, with its payload decoded:
///
///     [](const Event<Cart::Event>& event) { return event.match(
///         [](const Cart::ItemAdded& added) { return added.count; },
///         [](const auto&) { return 0u; }); }
///
/// Event<> has the payload as it is, and the members of one that is JSON: event["sku"]. Valid
/// during the call that got it.
template <typename T = void>
class Event : public internal::EventFields {
 public:
  /// The payload. Decoded when it is asked for first; throws if it can't be.
  const T& operator*() const {
    if (decoded_) return *decoded_;
    if (is_erased()) static_cast<void>(data());  // which throws
    auto decoded = (*decoder_)(type(), data());
    if (!decoded)
      throw internal::BadEvent("the payload of " + called() +
                               " can't be decoded: " + decoded.error().message());
    return decoded_.emplace(*std::move(decoded));
  }
  const T* operator->() const { return &**this; }

  /// Of a std::variant: calls the one of `functions` that takes what it holds. That each can be
  /// taken is checked when this is compiled.
  template <typename... Functions>
  decltype(auto) match(Functions&&... functions) const {
    struct Overloaded : std::remove_cvref_t<Functions>... {
      using std::remove_cvref_t<Functions>::operator()...;
    };
    return std::visit(Overloaded{std::forward<Functions>(functions)...}, **this);
  }

  // --- for the engine ---
  void use(const internal::Decoder<T>& decoder) { decoder_ = &decoder; }
  void assign(const internal::RawChange& change) {
    decoded_.reset();
    EventFields::assign(change);
  }
  void assign_copy(Offset offset, std::string_view bytes) {
    decoded_.reset();
    EventFields::assign_copy(offset, bytes);
  }

 private:
  const internal::Decoder<T>* decoder_ = nullptr;
  mutable std::optional<T> decoded_;
};

template <>
class Event<void> : public internal::EventFields {};

/// What is none of the types of a protobuf<...>().
struct OtherEvent {};

namespace internal {

/// A payload as it is.
struct AsItIs {};

template <typename A>
concept AggregateEvents = requires(std::string_view text) {
  { A::kCategory } -> std::convertible_to<std::string_view>;
  typename A::Event;
  { A::decode(text, text) } -> std::convertible_to<Result<typename A::Event>>;
};

template <typename T>
struct Unwrapped {
  using type = T;
};
template <typename T>
struct Unwrapped<Result<T>> {
  using type = T;
};

template <typename Decode>
struct DecodedBy {
  using type = typename Unwrapped<
      std::remove_cvref_t<std::invoke_result_t<Decode&, std::string_view, std::string_view>>>::type;
};
template <>
struct DecodedBy<AsItIs> {
  using type = void;
};
/// What a function of (type, payload) makes of an event.
template <typename Decode>
using Decoded = typename DecodedBy<Decode>::type;

template <typename Decode>
concept DecodesEvents = std::is_same_v<Decode, AsItIs> ||
    std::is_invocable_v<Decode&, std::string_view, std::string_view>;

/// Event<T> with the means to decode it.
template <typename Decode>
class EventMaker {
 public:
  using T = Decoded<Decode>;
  explicit EventMaker(Decode decode) {
    if constexpr (!kAsItIs)
      decoder_ = std::make_shared<Decoder<T>>(
          [decode = std::move(decode)](std::string_view type,
                                       std::string_view payload) -> Result<T> {
            return decode(type, payload);
          });
  }
  /// Lives no longer than this.
  Event<T> make() const {
    Event<T> event;
    if constexpr (!kAsItIs) event.use(*decoder_);
    return event;
  }

 private:
  static constexpr bool kAsItIs = std::is_same_v<Decode, AsItIs>;
  std::shared_ptr<const Decoder<std::conditional_t<kAsItIs, int, T>>> decoder_;
};

template <typename M, typename Out>
bool decode_message(std::string_view type, std::string_view payload,
                    std::optional<Result<Out>>& out) {
  if constexpr (std::is_same_v<M, OtherEvent>) {
    return false;
  } else {
    if (type != M::descriptor()->name() && type != M::descriptor()->full_name()) return false;
    M message;
    if (message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
      out.emplace(std::move(message));
    else
      out.emplace(
          Error(ErrorCode::kCorruption, "it is no message " + M::descriptor()->full_name()));
    return true;
  }
}

}  // namespace internal

/// Decodes payloads that are Protobuf messages, which an event's type names, with or without its
/// package: protobuf<cart::ItemAdded, cart::CheckedOut>(). Gives the message, or of several a
/// std::variant. A type that is none of them is an error, unless OtherEvent is among them.
template <typename... Messages>
auto protobuf() {
  static_assert(((std::derived_from<Messages, google::protobuf::Message> ||
                  std::is_same_v<Messages, OtherEvent>)&&...),
                "protobuf<Message...>: messages that protoc made, and OtherEvent");
  return [](std::string_view type, std::string_view payload) {
    using First = std::tuple_element_t<0, std::tuple<Messages...>>;
    using Out = std::conditional_t<sizeof...(Messages) == 1, First, std::variant<Messages...>>;
    std::optional<Result<Out>> out;
    if ((internal::decode_message<Messages, Out>(type, payload, out) || ...))
      return *std::move(out);
    if constexpr ((std::is_same_v<Messages, OtherEvent> || ...))
      return Result<Out>(OtherEvent{});
    else
      return Result<Out>(Error(ErrorCode::kUnsupported, "its type is none that the view names"));
  };
}

}  // namespace millrace::projections
