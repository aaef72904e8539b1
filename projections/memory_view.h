#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "projections/view.h"

namespace millrace::projections {

/// A type of your own that a view in memory is held in: anything that can be written down and read
/// again.
///
///     struct Ranking {
///       std::map<std::int64_t, std::string> by_score;
///       std::string encode() const;
///       static Result<Ranking> decode(std::string_view bytes);
///     };
///
/// The same content must give the same bytes, by which `verify` compares: write what is in a hash
/// table in an order. Or give `rows()`, pairs of texts (a std::map<std::string, std::string>): they
/// are compared in place of the bytes, and tell where a difference is. Where encode() writes what
/// an older decode() can't read, or the other way round, say so by another `static constexpr
/// std::uint32_t kFormat`, which is 1 without one: the program then asks for a rebuild.
template <typename S>
concept MemoryState = std::default_initializable<S> && std::movable<S> &&
    requires(const S& state, std::string_view bytes) {
  { state.encode() } -> std::convertible_to<std::string>;
  { S::decode(bytes) } -> std::convertible_to<Result<S>>;
};

struct MemoryViewOptions {
  /// A snapshot of the state is written once so many events were folded since the last one ...
  std::uint64_t snapshot_events = 500'000;
  /// ... or it is so old. Larger: a start folds more; less is written. Writing never takes more
  /// than a tenth of the time, whatever is said here; an orderly stop writes one in any case.
  std::chrono::milliseconds snapshot_interval{30'000};
  /// The view stops where its state is encoded as more than this. Encoding takes as much memory
  /// again as the state.
  std::size_t snapshot_bytes_max = std::size_t{4} << 30;
};

namespace internal {

/// A state, whatever its type is.
class AnyState {
 public:
  using VisitRow = std::function<Result<void>(std::string_view key, std::string_view value)>;

  virtual ~AnyState() = default;
  virtual std::string encode() const = 0;
  virtual Result<void> for_each_row(const VisitRow& visit) const = 0;
};

template <typename S>
concept HasRows = requires(const S& state) {
  state.rows();
};

template <MemoryState S>
class StateOf final : public AnyState {
 public:
  StateOf() = default;
  explicit StateOf(S state) : value(std::move(state)) {}

  std::string encode() const override { return value.encode(); }
  Result<void> for_each_row(const VisitRow& visit) const override {
    if constexpr (HasRows<S>)
      for (const auto& [key, row] : value.rows()) MILLRACE_RETURN_IF_ERROR(visit(key, row));
    return {};
  }

  S value{};
};

/// What the engine knows of a type of states.
struct StateType {
  std::unique_ptr<AnyState> (*make)();
  Result<std::unique_ptr<AnyState>> (*decode)(std::string_view bytes);
  std::uint32_t format = 1;
  bool has_rows = false;
};

template <MemoryState S>
constexpr StateType type_of_state() {
  StateType type{
      []() -> std::unique_ptr<AnyState> { return std::make_unique<StateOf<S>>(); },
      [](std::string_view bytes) -> Result<std::unique_ptr<AnyState>> {
        Result<S> state = S::decode(bytes);
        if (!state) return std::move(state).error();
        return std::unique_ptr<AnyState>(std::make_unique<StateOf<S>>(*std::move(state)));
      },
      1, HasRows<S>};
  if constexpr (requires { S::kFormat; }) type.format = S::kFormat;
  return type;
}

/// The state that readers of this process see, as of the end of a source transaction. One per view,
/// shared by its copies. Threads: readers, any number; one that changes it.
class Stage {
 public:
  /// Keeps the state from being changed while it lives; waits while it is changed.
  class Look {
   public:
    explicit Look(Stage& stage) : stage_(stage), state_(stage.enter()) {}
    ~Look() { stage_.leave(); }
    Look(const Look&) = delete;
    Look& operator=(const Look&) = delete;
    const AnyState* state() const { return state_; }  ///< nullptr if there is none.

   private:
    Stage& stage_;
    const AnyState* state_;
  };

  /// As of which offset it is; nothing if there is none.
  std::optional<Offset> offset();

  // --- for the writer ---
  /// From here on readers wait. Once for each end_change().
  void begin_change();
  /// Shows `state`, or that there is none.
  void end_change(std::shared_ptr<AnyState> state, Offset offset);
  /// Of the last state that was shown, also where there is none any more.
  Offset last_shown();

 private:
  const AnyState* enter();
  void leave();

  Mutex mutex_;
  ConditionVariable changed_;
  std::shared_ptr<AnyState> state_ MILLRACE_GUARDED_BY(mutex_);
  Offset offset_ MILLRACE_GUARDED_BY(mutex_);
  std::uint64_t readers_ MILLRACE_GUARDED_BY(mutex_) = 0;
  bool changing_ MILLRACE_GUARDED_BY(mutex_) = false;
};

/// Folds into a state that starts as the snapshot in the file.
class MemoryWriter : public ViewWriter {
 public:
  MemoryWriter(const StateType& type, const MemoryViewOptions& options,
               std::shared_ptr<Stage> stage, sqlite::Database& database);
  ~MemoryWriter() override;
  /// kCorruption if the snapshot is damaged.
  Result<void> load();

  void flush() override;
  Result<void> before_commit(Offset offset) override;
  void take_over_from(ViewWriter& before) override;
  Result<bool> show(Offset offset, bool is_all) override;
  bool wants_commit() const override;
  bool is_ahead_of_file() const override { return true; }

 protected:
  /// About to be changed by an event.
  AnyState& change() {
    if (!told_) [[unlikely]]
      tell_of_change();
    ++events_;
    return *state_;
  }

 private:
  using Steady = std::chrono::steady_clock;
  void tell_of_change();
  Result<void> save();

  const StateType type_;
  const MemoryViewOptions options_;
  const std::shared_ptr<Stage> stage_;
  sqlite::Database& database_;
  std::shared_ptr<AnyState> state_;
  bool on_stage_ = false;     ///< Readers see state_, or wait to.
  bool holds_stage_ = false;  ///< Readers wait.
  bool told_ = false;         ///< tell_of_change() has nothing to do.
  bool changed_ = false;      ///< Since the snapshot.
  bool is_written_ = false;   ///< The snapshot, in a transaction that is open.
  std::uint64_t events_ = 0;  ///< Since the snapshot.
  Steady::time_point saved_;  ///< The snapshot was.
  Steady::duration cost_{};   ///< Of writing it.
  Offset shown_before_;       ///< By an earlier process.
  std::unique_ptr<sqlite::Statement> tell_shown_;
};

Result<void> create_memory_tables(sqlite::Database& database);
/// The state that a view's file has. kCorruption if the snapshot is damaged; kFailedPrecondition if
/// its type can't decode it.
Result<std::unique_ptr<AnyState>> load_state(const StateType& type, sqlite::Database& database);
Result<std::unique_ptr<AnyState>> load_state(const StateType& type, const Path& file);
/// How far the process that runs the view has shown it, if one does; nothing of other views.
Result<std::optional<Offset>> read_shown(sqlite::Database& database);
/// What one file's process has shown, that of the next one must not unsee.
Result<void> take_over_shown(sqlite::Database& from, sqlite::Database& to);
std::vector<Comparison> compare_states(const StateType& type);
Error not_in_memory(const std::string& view);

}  // namespace internal

/// A view that is held in the memory of the program that runs it, for it to read: made by
/// memory_view(). Copies are the same view.
///
/// Its file holds snapshots of the state, each with the checkpoint in one transaction: a start
/// folds only what came after the last one.
template <MemoryState State>
class MemoryView final : public ViewBuilder<MemoryView<State>> {
 public:
  class Writer;

  MemoryView(std::string name, Version version, MemoryViewOptions options)
      : ViewBuilder<MemoryView>(std::move(name), version), options_(options) {}

  /// What `read` makes of the state as of the end of a source transaction. kUnavailable where the
  /// view is not in memory: before `run` has got that far, or after it has failed.
  ///
  /// `read` takes (const State&). It must not keep references, and not read the same view again:
  /// the worker waits for it, as it waits while the worker folds a transaction.
  /// Threads: any number.
  template <std::invocable<const State&> Read>
  auto read(Read read) const -> Result<std::decay_t<std::invoke_result_t<Read, const State&>>> {
    const internal::Stage::Look look(*stage_);
    if (look.state() == nullptr) return internal::not_in_memory(this->name());
    const State& state = static_cast<const internal::StateOf<State>&>(*look.state()).value;
    if constexpr (std::is_void_v<std::invoke_result_t<Read, const State&>>)
      return read(state), Result<void>();
    else
      return read(state);
  }

  /// Everything below is in what read() gives; nothing where that gives kUnavailable.
  std::optional<Offset> shown() const { return stage_->offset(); }

  /// The snapshot in a file of this view: one that `build --into` made, or its live file.
  Result<State> load(const Path& file) const {
    MILLRACE_ASSIGN_OR_RETURN(const auto state, internal::load_state(kType, file));
    return std::move(static_cast<internal::StateOf<State>&>(*state).value);
  }

  // --- for the engine ---
  Result<void> create(sqlite::Database& database) const override {
    return internal::create_memory_tables(database);
  }
  Result<void> begin_bulk(sqlite::Database&) const override { return {}; }
  Result<void> end_bulk(sqlite::Database&) const override { return {}; }
  Result<std::unique_ptr<internal::ViewWriter>> make_writer(
      sqlite::Database& database) const override {
    auto writer = std::make_unique<Writer>(kType, options_, stage_, database);
    MILLRACE_RETURN_IF_ERROR(writer->load());
    return std::unique_ptr<internal::ViewWriter>(std::move(writer));
  }
  std::vector<internal::Comparison> comparisons() const override {
    return internal::compare_states(kType);
  }
  std::string count_query() const override { return {}; }
  Result<void> check_shape() const override { return {}; }
  void describe(std::string& shape) const override {
    shape += "in memory, state format " + std::to_string(kType.format) + "\n";
  }

 private:
  static constexpr internal::StateType kType = internal::type_of_state<State>();

  MemoryViewOptions options_;
  std::shared_ptr<internal::Stage> stage_ = std::make_shared<internal::Stage>();
};

template <MemoryState State>
class MemoryView<State>::Writer final : public internal::MemoryWriter {
 public:
  using MemoryWriter::MemoryWriter;
  State& given() { return static_cast<internal::StateOf<State>&>(change()).value; }
};

/// A view in memory. Its functions take (const Change<Row>&, State&) and (const Event<T>&, State&).
///
///     auto ranking = memory_view<Ranking>("ranking", Version{1})
///                        .on<Orders>("public.orders", [](const Change<Orders>& change,
///                                                        Ranking& ranking) { ... });
///     app.add(ranking);
///     ...
///     ranking.read([](const Ranking& ranking) { return ranking.by_score.size(); });
template <MemoryState State>
MemoryView<State> memory_view(std::string name, Version version, MemoryViewOptions options = {}) {
  return MemoryView<State>(std::move(name), version, options);
}

}  // namespace millrace::projections
