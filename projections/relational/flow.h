#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "projections/relational/byte_map.h"
#include "projections/relational/datum.h"
#include "projections/relational/state.h"
#include "projections/view.h"

// The working of relational views. A relation is a tree of operators over source tables; a Flow is
// that tree at work over one file.
//
// Changes of rows are gathered per source and key until flush(); then each goes through the tree as
// a delta (the row before, the row after), and the keys of the result that it touched are written.
// A view is thereby a function of its tables' present rows alone: in what portions events come
// makes no difference, which is why a rebuild and a tail can't differ.
//
// A join counts nothing twice, also of a table with itself or with what was made of it:
//   d(L * R) = dL * R(before) + L(after) * dR
// For that the left side must have taken a delta wholly before the right one gets any of it. It
// has, since a relation that is used twice is built twice, and a source serves its leaves in the
// order in which they were built. So what the right side keeps is as of before while the left one's
// deltas come; only the sources must be told which of the two is meant.

namespace millrace::projections::internal {

enum class When : std::uint8_t { kBefore, kAfter };

/// A row of a relation as it was and as it is; one of them may be absent. For a consumer that needs
/// no rows both may be.
template <typename T>
struct Delta {
  std::string_view key;
  const T* before = nullptr;
  const T* after = nullptr;
};

template <typename T>
class Consumer {
 public:
  virtual ~Consumer() = default;
  virtual void take(const Delta<T>& delta) = 0;
  /// If not, the key alone is enough: what only collects them spares everyone before it the work.
  virtual bool needs_rows() const { return true; }
};

/// One of the two inputs of an operator.
template <typename T, typename Operator, void (Operator::*kTake)(const Delta<T>&)>
class Input final : public Consumer<T> {
 public:
  /// `only_passes_on`: the operator needs the rows only if what it feeds does.
  explicit Input(Operator& to, bool only_passes_on = false)
      : to_(to), only_passes_on_(only_passes_on) {}
  void take(const Delta<T>& delta) override { (to_.*kTake)(delta); }
  bool needs_rows() const override { return !only_passes_on_ || to_.rows_are_needed(); }

 private:
  Operator& to_;
  const bool only_passes_on_;
};

/// An operator with its result. Keys are bytes of its own; visible_key() is what a view shows.
template <typename T>
class Node {
 public:
  virtual ~Node() = default;
  void feed(Consumer<T>& consumer) { consumer_ = &consumer; }
  bool rows_are_needed() const { return consumer_->needs_rows(); }

  /// Puts the row of that key into `row`. Valid until the next change.
  virtual bool find(std::string_view key, When when, std::optional<T>& row) = 0;
  virtual Datum visible_key(std::string_view key) const = 0;
  /// The key of the row that a reference with this value names. Asked only where the plan's Shape
  /// says that rows can be referred to.
  virtual std::string key_of(const Datum& reference) const = 0;

 protected:
  void emit(const Delta<T>& delta) { consumer_->take(delta); }

 private:
  Consumer<T>* consumer_ = nullptr;
};

/// What feeds on a source table.
class Leaf {
 public:
  virtual ~Leaf() = default;
  /// Both rows are valid during the call.
  virtual void changed(std::string_view key, std::optional<std::string_view> before,
                       std::optional<std::string_view> after) = 0;
  virtual bool rows_are_needed() const = 0;
};

/// The present rows of one source: of a captured table, unless a derived class says otherwise.
class SourceTable {
 public:
  SourceTable(std::string category, StateTable& rows)
      : category_(std::move(category)), rows_(rows) {}
  virtual ~SourceTable() = default;

  const std::string& category() const { return category_; }
  void add(Leaf& leaf) { leaves_.push_back(&leaf); }
  /// Valid until the next call.
  std::optional<std::string_view> find(std::string_view key, When when);

  /// Gathers a change.
  virtual void take(const RawChange& change);
  /// Lets all that was gathered through. What a function of the view throws comes as an error that
  /// names the row, but for std::bad_alloc, which is no row's fault. After an error this is of no
  /// use. Calls `relieve` now and then, where nothing is on its way.
  Result<void> drain(const std::function<Result<void>()>& relieve);
  /// Twice what is gathered: as it goes through, it is held once more as what is to be written.
  std::size_t bytes_in_memory() const { return 2 * gathered_.bytes() - passed_bytes_; }

 protected:
  void gather(std::string_view key, std::optional<std::string_view> row) {
    gathered_.put_soon(key, row);
  }
  ByteMap& gathered() { return gathered_; }
  StateTable& rows() { return rows_; }
  /// Keys of rows in rows() that are gone though that was not gathered, as drain() begins.
  virtual std::vector<std::string> gone();
  /// Names the row that goes through, in errors.
  virtual std::string called(std::string_view key);

 private:
  std::optional<std::string_view> newest(std::string_view key);
  std::optional<std::string_view> before(const RawChange& change);
  void pass(std::string_view key, std::optional<std::string_view> row, bool rows_are_needed);
  void keep(std::string_view key, std::optional<std::string_view> row);

  std::string category_;
  StateTable& rows_;
  std::vector<Leaf*> leaves_;
  ByteMap gathered_;              ///< The newest row of each key, or that it is gone.
  std::size_t passed_bytes_ = 0;  ///< Of them, while they go through.
  bool warned_ = false;           ///< Of columns that were never sent.
  bool truncated_ = false;        ///< Of what was there before what is gathered, nothing is left.
  std::optional<std::string> moved_;  ///< The row that the last delete removed, if it was known.
  Offset moved_offset_;               ///< Of that delete.
  // The change that goes through:
  bool passing_ = false;
  std::string_view key_;
  std::optional<std::string> before_;
};

/// The tree at work. Made by a relation's plan; owns all of it. Threads: one.
class Flow {
 public:
  /// State that an operator keeps in another form while it works on it.
  class Cache {
   public:
    virtual ~Cache() = default;
    /// Puts what has changed into the state's tables.
    virtual void write_back() = 0;
    virtual std::size_t bytes_in_memory() const = 0;
  };

  /// kCreate makes the tables of the state, and nothing else; kOpen takes them as they are.
  enum class Purpose : std::uint8_t { kCreate, kOpen };
  Flow(sqlite::Database& database, std::string name, Purpose purpose)
      : database_(database), name_(std::move(name)), purpose_(purpose) {}

  sqlite::Database& database() { return database_; }
  const std::string& name() const { return name_; }

  // --- for plans ---
  template <typename Source = SourceTable>
  SourceTable& source(std::string_view category) {
    if (SourceTable* there = find_source(category)) return *there;
    sources_.push_back(std::make_unique<Source>(std::string(category), state_table()));
    return *sources_.back();
  }
  template <typename N, typename... Arguments>
  N& add(Arguments&&... arguments) {
    auto node = std::make_shared<N>(std::forward<Arguments>(arguments)...);
    nodes_.push_back(node);
    if constexpr (std::is_base_of_v<Cache, N>) caches_.push_back(node.get());
    return *node;
  }
  /// The next state of this flow, which creation and opening number alike.
  StateTable& state_table();
  StateIndex& state_index();

  // --- at work ---
  void take(const RawChange& change);
  /// Lets through what was gathered. `relieve`, which is called meanwhile, may flush().
  Result<void> drain(const std::function<Result<void>()>& relieve);
  /// State that is in memory goes to the file.
  Result<void> flush();
  std::size_t bytes_in_memory() const;
  /// The first thing that went wrong while the tree was made.
  Result<void> made() const;

 private:
  SourceTable* find_source(std::string_view category);
  template <typename State>
  void prepare(State& state);

  sqlite::Database& database_;
  std::string name_;
  Purpose purpose_;
  int states_ = 0;
  std::vector<std::unique_ptr<SourceTable>> sources_;
  std::vector<std::unique_ptr<StateTable>> tables_;
  std::vector<std::unique_ptr<StateIndex>> indexes_;
  std::vector<std::shared_ptr<void>> nodes_;
  std::vector<Cache*> caches_;
  std::optional<Error> failure_;
};

}  // namespace millrace::projections::internal
