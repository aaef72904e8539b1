#pragma once

#include <concepts>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "projections/change.h"
#include "projections/event.h"
#include "projections/value.h"

namespace millrace::projections {

namespace sqlite {
class Database;
class Statement;
}  // namespace sqlite
class SinkKind;
struct SinkShape;

/// Of what a view's functions compute. Raise it whenever the same events give another view than
/// before: the program then refuses to go on with the old one until it is rebuilt.
struct Version {
  std::uint32_t value = 1;
  auto operator<=>(const Version&) const = default;
};

enum class ColumnType : std::uint8_t { kInteger, kReal, kText, kBlob, kNumeric };

/// A column of a view: integer("id"), text("name"), real("weight"), blob("image"),
/// counter("orders"), numeric("total"), an exact decimal that stays as it is written. Any value
/// fits any column, as SQLite has it; the type says how numbers and text are converted and
/// compared.
struct Column {
  std::string name;
  ColumnType type = ColumnType::kText;
  bool counter = false;  ///< Starts at 0 and is never null.
};
inline Column integer(std::string name) { return {std::move(name), ColumnType::kInteger}; }
inline Column real(std::string name) { return {std::move(name), ColumnType::kReal}; }
inline Column text(std::string name) { return {std::move(name), ColumnType::kText}; }
inline Column blob(std::string name) { return {std::move(name), ColumnType::kBlob}; }
inline Column numeric(std::string name) { return {std::move(name), ColumnType::kNumeric}; }
inline Column counter(std::string name) { return {std::move(name), ColumnType::kInteger, true}; }

/// Says that a function takes back what the old row had put into the view, so it can't do without
/// it. The program then refuses to start unless the table has REPLICA IDENTITY FULL, and stops at a
/// change without its old row.
struct NeedsOldRows {};
inline constexpr NeedsOldRows kNeedsOldRows;

inline constexpr std::size_t kColumnsMax = 256;
inline constexpr std::size_t kKeysSetAsideMax = 100;  ///< Where a view does not say otherwise.

namespace internal {

/// Leaves a function of a view; why is what its writer says.
class WriterFailed : public std::exception {
 public:
  const char* what() const noexcept override { return "the view could not be read"; }
};

/// What a function of a view writes to, as the engine sees it. The first failure sticks: what comes
/// after it does nothing, and the engine asks after each event, so that functions need not check
/// every call.
class ViewWriter {
 public:
  virtual ~ViewWriter() = default;

  /// Carries out what was put off. Comes before each commit that a reader may see: what an erase()
  /// and a put() are to each other in a change of key must hold across those that nobody sees.
  virtual void flush() = 0;
  /// Rows may be put off, a few at a time, to be written by one statement. With `true`, each is
  /// written when it is put, so that an error is the fault of the event at hand. Comes when none is
  /// put off.
  virtual void write_at_once(bool) {}
  /// The error was met when rows were written that had been put off: another event's, maybe.
  virtual bool failed_late() const { return false; }
  /// What changes do is put off until flush(), for many of them at once: an error there may be any
  /// one's.
  virtual bool gathers() const { return false; }
  /// Of one that gathers: it had to write to the file before the flush() that is to come.
  virtual bool has_spilled() const { return false; }
  /// Comes after flush(), where a commit at the end of a source transaction follows.
  virtual Result<void> before_commit(Offset) { return {}; }
  /// At the end of a source transaction, in one of the database, before that is committed: shows
  /// what was applied below `offset` to readers in this process. `is_all`: the log has no more.
  /// True if they see it.
  virtual Result<bool> show(Offset /*offset*/, bool /*is_all*/) { return false; }
  /// Where a state in memory may go on without its file for a while, this is false: show() is then
  /// all that happens.
  virtual bool wants_commit() const { return true; }
  /// What it has in memory may be ahead of the file. Another connection's work is then only seen by
  /// one that is made anew.
  virtual bool is_ahead_of_file() const { return false; }
  /// Made anew in the middle of a transaction, in the place of `before`, which is not used again.
  virtual void take_over_from(ViewWriter& /*before*/) {}
  /// Of a source that needs a key, before the first change and whenever the schema is another one:
  /// `columns` name the key of the row in `change`.
  virtual Result<void> keyed_by(const RawChange&, const std::string& /*columns*/) { return {}; }

  void at(const RawChange& change) { change_ = &change; }
  bool failed() const { return failure_ != nullptr; }
  /// The first failure, which is forgotten here.
  Error take_failure() {
    Error error = std::move(*failure_);
    failure_.reset();
    return error;
  }

 protected:
  void fail(Error error) {
    if (!failure_) failure_ = std::make_unique<Error>(std::move(error));
  }
  /// fail() where the function has asked for something, and must not go on without it.
  [[noreturn]] void fail_and_throw(Error error) {
    fail(std::move(error));
    throw WriterFailed();
  }
  const RawChange* change_ = nullptr;  ///< The one being applied.

 private:
  std::unique_ptr<Error> failure_;
};

/// What the functions of a view are given beside the change: its writer, or what that gives.
template <typename Writer>
auto& given_by(Writer& writer) {
  if constexpr (requires { writer.given(); })
    return writer.given();
  else
    return writer;
}
template <typename Writer>
using GivenBy = decltype(given_by(std::declval<Writer&>()));

/// A function of a view with the row objects that it reuses; one per worker.
class Applier {
 public:
  virtual ~Applier() = default;
  virtual Result<void> apply(const RawChange& change) = 0;
};

template <typename Row, typename Writer, typename Apply>
class TypedApplier final : public Applier {
 public:
  TypedApplier(Apply function, Writer& writer) : apply_(std::move(function)), writer_(writer) {}

  Result<void> apply(const RawChange& raw) override {
    if (!change_.assign(raw)) [[unlikely]]
      return bad_row(BadRow(*Row::descriptor()));
    writer_.at(raw);
    try {
      using Returned = std::invoke_result_t<Apply&, const Change<Row>&, GivenBy<Writer>>;
      if constexpr (std::is_convertible_v<Returned, Result<void>>)
        MILLRACE_RETURN_IF_ERROR(apply_(std::as_const(change_), given_by(writer_)));
      else
        apply_(std::as_const(change_), given_by(writer_));
    } catch (const BadRow& bad) {  // columns are parsed as they are asked for
      return bad_row(bad);
    } catch (const WriterFailed&) {
    }
    if (writer_.failed()) [[unlikely]]
      return writer_.take_failure();
    return {};
  }

 private:
  static Error bad_row(const BadRow& bad) { return Error(ErrorCode::kCorruption, bad.what()); }

  Change<Row> change_;
  Apply apply_;
  Writer& writer_;
};

/// As TypedApplier, of the events of a category. Messages of another prefix than `prefix`, unless
/// it is empty, are passed over.
template <typename Decode, typename Writer, typename Apply>
class EventApplier final : public Applier {
 public:
  EventApplier(EventMaker<Decode> maker, std::string prefix, Apply function, Writer& writer)
      : maker_(std::move(maker)),
        event_(maker_.make()),
        prefix_(std::move(prefix)),
        apply_(std::move(function)),
        writer_(writer) {}

  Result<void> apply(const RawChange& raw) override {
    if (!prefix_.empty() && raw.key != prefix_) return {};
    event_.assign(raw);
    writer_.at(raw);
    try {
      using Returned =
          std::invoke_result_t<Apply&, decltype(std::as_const(event_)), GivenBy<Writer>>;
      if constexpr (std::is_convertible_v<Returned, Result<void>>)
        MILLRACE_RETURN_IF_ERROR(apply_(std::as_const(event_), given_by(writer_)));
      else
        apply_(std::as_const(event_), given_by(writer_));
    } catch (const BadEvent& bad) {  // it is decoded when its function asks for it
      return Error(ErrorCode::kInvalidArgument, bad.what())
          .hint(
              "The view stays as it was before this event. Mend the function, or the program's "
              "idea of such events, then start again.");
    } catch (const WriterFailed&) {
    }
    if (writer_.failed()) [[unlikely]]
      return writer_.take_failure();
    return {};
  }

 private:
  EventMaker<Decode> maker_;
  Event<Decoded<Decode>> event_;
  const std::string prefix_;
  Apply apply_;
  Writer& writer_;
};

/// Logical messages that are no domain events.
inline constexpr std::string_view kMessagesCategory = "$messages";

/// What a view does with a column of a table, or with its key, where the table's types can make
/// nonsense of it.
struct ColumnUse {
  enum class Kind : std::uint8_t {
    kOrdered,   ///< Values of the column are compared by size.
    kMatched,   ///< They are compared with others for being equal.
    kReferred,  ///< Rows of the table are referred to by a value of this type.
    kKey,       ///< What names the view's rows is called so, and is the key of the table.
  };
  Kind kind = Kind::kOrdered;
  std::string column;                   ///< kReferred: the one that refers; empty for a function.
  ColumnType type = ColumnType::kBlob;  ///< kReferred; kBlob where it is not known.
};

/// One table, or one category of events, that a view is made of.
struct Source {
  std::string category;
  const google::protobuf::Descriptor* row = nullptr;
  bool needs_old_rows = false;
  bool needs_key = false;  ///< Rows must be told apart by it.
  std::function<std::unique_ptr<Applier>(ViewWriter&)> make_applier;
  bool is_events = false;  ///< Of streams, or messages: no table, and `row` is nullptr.
  std::vector<ColumnUse> uses{};
  std::string prefix{};  ///< Of the messages that are taken; empty for all.
};

/// A query whose rows are the view's content in a definite order; the first column is the key, to
/// be shown.
struct Comparison {
  std::string what;
  std::string setup;  ///< Statements to run before it, in the connection's temporary schema.
  std::string sql;
  /// Comes after `setup`, where statements alone can't do it.
  std::function<Result<void>(sqlite::Database&)> prepare{};
};

}  // namespace internal

/// A named, versioned function of the log, kept in a SQLite file: what App runs. Made by
/// SearchIndex, CacheTable, memory_view() or view().
class View {
 public:
  virtual ~View() = default;

  /// Also the name of its table and of its file; lower case letters, digits and '_'.
  const std::string& name() const { return name_; }
  Version version() const { return version_; }
  const std::vector<internal::Source>& sources() const { return sources_; }
  /// With more keys set aside the view stops. 0: it stops at the first event it can't take.
  std::size_t keys_set_aside_max() const { return keys_set_aside_max_; }

  // --- for the engine ---
  /// kInvalidArgument if what was declared can't be a view.
  Result<void> check() const;
  /// Everything that was declared, a line each. A view whose shape is another than its file's must
  /// be rebuilt.
  std::string shape() const;
  virtual Result<void> create(sqlite::Database& database) const = 0;
  /// Before and after writing all of it at once.
  virtual Result<void> begin_bulk(sqlite::Database& database) const = 0;
  virtual Result<void> end_bulk(sqlite::Database& database) const = 0;
  virtual Result<std::unique_ptr<internal::ViewWriter>> make_writer(
      sqlite::Database& database) const = 0;
  virtual std::vector<internal::Comparison> comparisons() const = 0;
  virtual std::string count_query() const = 0;  ///< Empty where there is nothing to count.
  /// What check() and shape() ask of a kind of view.
  virtual Result<void> check_shape() const = 0;
  virtual void describe(std::string& shape) const = 0;
  /// Where else it is kept, if anywhere, and what of it.
  virtual const SinkKind* sink() const { return nullptr; }
  virtual SinkShape sink_shape() const;

 protected:
  View(std::string name, Version version) : name_(std::move(name)), version_(version) {}

  std::vector<internal::Source> sources_;
  std::size_t keys_set_aside_max_ = 0;

 private:
  std::string name_;
  Version version_;
};

/// Adds on() to a view.
template <typename Derived>
class ViewBuilder : public View {
 public:
  /// Calls `apply` with each change of `category` ("public.products"), in the order of the log. It
  /// takes (const Change<Row>&, Derived::Writer&) and returns nothing or a Result<void>.
  ///
  /// It must depend on nothing but its arguments: the same events must give the same view at any
  /// time. Where it throws or returns an error, what it wrote is taken back and the event is set
  /// aside: its key waits, all others go on (docs/projections.md). An error that is not the event's
  /// fault, such as kUnavailable or kIo, stops the view before this event instead. Threads: one at
  /// a time per worker; `run`, `rebuild` and `verify` each use a copy.
  template <typename Row, typename Apply>
  Derived&& on(std::string category, Apply apply) && {
    return std::move(add_source<Row>(std::move(category), false, std::move(apply)));
  }
  template <typename Row, typename Apply>
  Derived&& on(std::string category, NeedsOldRows, Apply apply) && {
    return std::move(add_source<Row>(std::move(category), true, std::move(apply)));
  }
  template <typename Row, typename Apply>
  Derived& on(std::string category, Apply apply) & {
    return add_source<Row>(std::move(category), false, std::move(apply));
  }
  template <typename Row, typename Apply>
  Derived& on(std::string category, NeedsOldRows, Apply apply) & {
    return add_source<Row>(std::move(category), true, std::move(apply));
  }

  /// Calls `apply` with each event of the streams "<category>/...", in the order of the log, also
  /// with one that says that a stream was erased (Event::is_erased). It takes (const Event<T>&,
  /// Derived::Writer&), where T is what `decode(type, payload)` gives, directly or as a Result<T>;
  /// without it Event<>. An aggregate brings both: on_event<Cart>(apply).
  template <typename Decode, typename Apply>
  Derived&& on_event(std::string category, Decode decode, Apply apply) && {
    return std::move(add_events(std::move(category), {}, std::move(decode), std::move(apply)));
  }
  template <typename Apply>
  Derived&& on_event(std::string category, Apply apply) && {
    return std::move(add_events(std::move(category), {}, internal::AsItIs{}, std::move(apply)));
  }
  template <internal::AggregateEvents A, typename Apply>
  Derived&& on_event(Apply apply) && {
    return std::move(add_events(std::string(A::kCategory), {}, &A::decode, std::move(apply)));
  }
  template <typename Decode, typename Apply>
  Derived& on_event(std::string category, Decode decode, Apply apply) & {
    return add_events(std::move(category), {}, std::move(decode), std::move(apply));
  }
  template <typename Apply>
  Derived& on_event(std::string category, Apply apply) & {
    return add_events(std::move(category), {}, internal::AsItIs{}, std::move(apply));
  }
  template <internal::AggregateEvents A, typename Apply>
  Derived& on_event(Apply apply) & {
    return add_events(std::string(A::kCategory), {}, &A::decode, std::move(apply));
  }

  /// Calls `apply` with each logical message that is no domain event and has that prefix, or with
  /// all of them if it is empty. It takes (const Event<>&, Derived::Writer&).
  template <typename Apply>
  Derived&& on_message(std::string prefix, Apply apply) && {
    return std::move(add_events(std::string(internal::kMessagesCategory), std::move(prefix),
                                internal::AsItIs{}, std::move(apply)));
  }
  template <typename Apply>
  Derived& on_message(std::string prefix, Apply apply) & {
    return add_events(std::string(internal::kMessagesCategory), std::move(prefix),
                      internal::AsItIs{}, std::move(apply));
  }

  /// So many keys may wait for an event of theirs that a function can't take; with one more the
  /// view stops, since so many are hardly the events' fault. 0: it stops at the first.
  Derived&& set_aside_at_most(std::size_t keys) && {
    keys_set_aside_max_ = keys;
    return std::move(static_cast<Derived&>(*this));
  }
  Derived& set_aside_at_most(std::size_t keys) & {
    keys_set_aside_max_ = keys;
    return static_cast<Derived&>(*this);
  }

 protected:
  ViewBuilder(std::string name, Version version) : View(std::move(name), version) {
    keys_set_aside_max_ = kKeysSetAsideMax;
  }

 private:
  template <typename Row, typename Apply>
  Derived& add_source(std::string category, bool needs_old_rows, Apply apply) {
    using Writer = typename Derived::Writer;
    static_assert(std::derived_from<Row, google::protobuf::Message>,
                  "on<Row>: Row is a message that protoc made of `millrace schema export`");
    static_assert(
        std::is_invocable_v<Apply&, const Change<Row>&, internal::GivenBy<Writer>>,
        "the function takes (const Change<Row>&, Writer&); of a view in memory (..., State&)");
    sources_.push_back({std::move(category), Row::descriptor(), needs_old_rows, false,
                        [function = std::move(apply)](
                            internal::ViewWriter& writer) -> std::unique_ptr<internal::Applier> {
                          return std::make_unique<internal::TypedApplier<Row, Writer, Apply>>(
                              function, static_cast<Writer&>(writer));
                        }});
    return static_cast<Derived&>(*this);
  }

  template <typename Decode, typename Apply>
  Derived& add_events(std::string category, std::string prefix, Decode decode, Apply apply) {
    using Writer = typename Derived::Writer;
    static_assert(internal::DecodesEvents<Decode>,
                  "an event is decoded by a function of (type, payload), two std::string_view");
    using Given = Event<internal::Decoded<Decode>>;
    static_assert(std::is_invocable_v<Apply&, const Given&, internal::GivenBy<Writer>>,
                  "the function takes (const Event<T>&, Writer&), T being what is decoded; of a "
                  "view in memory (..., State&)");
    sources_.push_back({std::move(category),
                        nullptr,
                        false,
                        false,
                        [maker = internal::EventMaker<Decode>(std::move(decode)), prefix,
                         function = std::move(apply)](
                            internal::ViewWriter& writer) -> std::unique_ptr<internal::Applier> {
                          return std::make_unique<internal::EventApplier<Decode, Writer, Apply>>(
                              maker, prefix, function, static_cast<Writer&>(writer));
                        },
                        true,
                        {},
                        std::move(prefix)});
    return static_cast<Derived&>(*this);
  }
};

}  // namespace millrace::projections
