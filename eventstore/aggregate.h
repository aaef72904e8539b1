#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "eventstore/appender.h"
#include "eventstore/event_metadata.h"
#include "eventstore/stream_reader.h"
#include "eventstore/stream_snapshots.h"

// Aggregates: things whose state is the fold of the events of one stream, and which turn a command
// into events only after a look at that state. What an aggregate does is written as pure functions;
// this is the shell around them that reads and appends.
//
// The words are Jérémie Chassaing's ("Functional Event Sourcing Decider", 2021).
namespace millrace {

/// An event of an aggregate as it is stored.
struct EncodedEvent {
  std::string type;
  std::string payload;
};

/// A kind of aggregate: a struct with static members and nothing else.
///
///     struct Cart {
///       static constexpr std::string_view kCategory = "cart";
///       struct State { ... };     // value-initialised: that of a stream without events
///       using Event = std::variant<ItemAdded, CheckedOut>;
///       using Command = std::variant<AddItem, CheckOut>;
///
///       static Result<std::vector<Event>> decide(const State&, const Command&);
///       static void evolve(State&, const Event&);
///       static EncodedEvent encode(const Event&);
///       static Result<Event> decode(std::string_view type, std::string_view payload);
///     };
///
/// `decide` refuses a command with an error of its own; `evolve` can't fail, for what it is given
/// has happened. None of them may look at anything but its arguments.
template <typename A>
concept Aggregate = std::default_initializable<typename A::State> &&
    std::copyable<typename A::State> &&
    requires(typename A::State state, const typename A::State& known,
             const typename A::Event& event, const typename A::Command& command,
             std::string_view text) {
  { A::kCategory } -> std::convertible_to<std::string_view>;
  { A::decide(known, command) } -> std::same_as<Result<std::vector<typename A::Event>>>;
  A::evolve(state, event);
  { A::encode(event) } -> std::same_as<EncodedEvent>;
  { A::decode(text, text) } -> std::same_as<Result<typename A::Event>>;
};

/// One whose state can be kept in snapshots. `kFold` names the fold: change it with State, evolve
/// or save, or a state that another fold made would be taken for this one's.
template <typename A>
concept SnapshotAggregate = Aggregate<A> &&
    requires(const typename A::State& state, std::string_view bytes) {
  { A::kFold } -> std::convertible_to<std::string_view>;
  { A::save(state) } -> std::same_as<std::string>;
  { A::restore(bytes) } -> std::same_as<Result<typename A::State>>;
};

/// The state of one aggregate and how far it was folded.
template <Aggregate A>
struct Loaded {
  typename A::State state{};
  std::optional<std::uint64_t> version = {};  ///< Of its last event; nothing before the first.
  Offset offset = {};                         ///< Of that event.

  ExpectedVersion expected() const {
    return version ? ExpectedVersion::exact(*version) : ExpectedVersion::none();
  }
};

struct RepositoryOptions {
  /// A command whose stream changed between reading and appending is decided again, so often at
  /// most.
  int attempts_max = 10;
  /// A snapshot is saved when so many events were folded since the last one. Smaller: loads fold
  /// less, more files are written. For a SnapshotAggregate only.
  std::uint64_t snapshot_every = 100;
};

/// What goes with a command into the log.
struct CommandContext {
  std::string_view idempotency_key = {};  ///< As in AppendRequest.
  EventMetadata metadata = {};            ///< Of every event that the command leads to.
};

/// Loads aggregates of one kind and runs commands on them.
///
/// Threads: one at a time (the reader's rule); any number of repositories, in any processes, may
/// run commands on the same aggregates.
template <Aggregate A>
class Repository {
 public:
  /// Reads through `reader`, appends through `appender`, both of the store in `snapshots`; all
  /// three outlive it.
  Repository(Appender& appender, StreamReader& reader, const StreamSnapshots& snapshots,
             RepositoryOptions options = {})
      : appender_(appender), reader_(reader), snapshots_(snapshots), options_(options) {}

  /// The state as far as it is durable. Errors: as StreamReader, and those of A::decode.
  Result<Loaded<A>> load(std::string_view key) {
    Loaded<A> loaded;
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t from_snapshot, load_snapshot(key, loaded));
    MILLRACE_ASSIGN_OR_RETURN(const bool whole, fold(key, loaded));
    if (!whole) {
      // The snapshot tells of another history: the store was put back to an older copy.
      loaded = {};
      MILLRACE_RETURN_IF_ERROR(fold(key, loaded));
    }
    save_if_due(key, loaded, from_snapshot);
    return loaded;
  }

  /// Loads, decides, appends durably what was decided; gives the state after it. A command that
  /// leads to no event appends nothing. Errors: those of load and of A::decide; kConflict (the
  /// stream changed attempts_max times meanwhile); as Appender.
  Result<Loaded<A>> execute(std::string_view key, const typename A::Command& command,
                            const CommandContext& context = {}) {
    for (int attempt = 1;; ++attempt) {
      MILLRACE_ASSIGN_OR_RETURN(Loaded<A> loaded, load(key));
      MILLRACE_ASSIGN_OR_RETURN(const auto events, A::decide(loaded.state, command));
      if (events.empty()) return loaded;
      auto appended = append(key, loaded, events, context);
      if (appended) {
        if (appended->repeated) return load(key);
        for (const auto& event : events) A::evolve(loaded.state, event);
        loaded.version = appended->next_versions.front() - 1;
        loaded.offset = {appended->end.value - 1};
        return loaded;
      }
      if (appended.error().code() != ErrorCode::kConflict || attempt >= options_.attempts_max)
        return std::move(appended).error();
    }
  }

 private:
  Result<AppendResult> append(std::string_view key, const Loaded<A>& loaded,
                              const std::vector<typename A::Event>& events,
                              const CommandContext& context) {
    const std::string metadata = encode_metadata(context.metadata);
    std::vector<EncodedEvent> encoded;
    std::vector<NewStreamEvent> stored;
    encoded.reserve(events.size());
    for (const auto& event : events) {
      encoded.push_back(A::encode(event));
      stored.push_back(
          {.type = encoded.back().type, .payload = encoded.back().payload, .metadata = metadata});
    }
    const StreamAppend part{
        .stream = {A::kCategory, key}, .expected = loaded.expected(), .events = stored};
    return appender_.append_durably(
        {.streams = {&part, 1}, .idempotency_key = context.idempotency_key});
  }

  /// Folds what comes behind `loaded`; false if the stream does not hold what `loaded` says.
  Result<bool> fold(std::string_view key, Loaded<A>& loaded) {
    bool whole = !loaded.version;
    std::optional<Error> error;
    const auto take = [&](const EventView& event, const TransactionInfo&) {
      if (!event.version) return true;  // captured, or not of this kind
      if (loaded.version && *event.version == *loaded.version && !whole) {
        whole = event.offset == loaded.offset;
        return whole;
      }
      if (!whole && *event.version != *loaded.version + 1) return false;
      whole = true;  // the stream was cut off behind the snapshot's last event
      auto decoded = A::decode(event.type, event.payload);
      if (!decoded) {
        error = std::move(decoded).error().context("event " + std::to_string(event.offset.value));
        return false;
      }
      A::evolve(loaded.state, *decoded);
      loaded.version = event.version;
      loaded.offset = event.offset;
      return true;
    };
    // Begins with the snapshot's own last event, which shows that it is of this history.
    MILLRACE_RETURN_IF_ERROR(reader_.read({A::kCategory, key}, {.from = loaded.version}, take));
    if (error) return *std::move(error);
    return whole;
  }

  /// Gives the version of the snapshot that was taken plus 1; 0 without one.
  Result<std::uint64_t> load_snapshot(std::string_view key, Loaded<A>& loaded) {
    if constexpr (SnapshotAggregate<A>) {
      MILLRACE_ASSIGN_OR_RETURN(const auto snapshot,
                                snapshots_.load({A::kCategory, key}, fingerprint()));
      if (!snapshot) return std::uint64_t{0};
      auto state = A::restore(snapshot->state);
      if (!state) return std::uint64_t{0};  // as good as none: the events have it all
      loaded = {
          .state = *std::move(state), .version = snapshot->version, .offset = snapshot->offset};
      return snapshot->version + 1;
    }
    return std::uint64_t{0};
  }

  void save_if_due(std::string_view key, const Loaded<A>& loaded, std::uint64_t from_snapshot) {
    if constexpr (SnapshotAggregate<A>) {
      if (!loaded.version || *loaded.version + 1 < from_snapshot + options_.snapshot_every) return;
      // A cache: where it can't be kept, the next load folds again.
      static_cast<void>(snapshots_.save({A::kCategory, key}, {.version = *loaded.version,
                                                              .offset = loaded.offset,
                                                              .fingerprint = fingerprint(),
                                                              .state = A::save(loaded.state)}));
    }
  }

  static std::uint64_t fingerprint() {
    return snapshot_fingerprint(A::kCategory, std::string_view(A::kFold));
  }

  Appender& appender_;
  StreamReader& reader_;
  const StreamSnapshots& snapshots_;
  const RepositoryOptions options_;
};

}  // namespace millrace
