#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.h"
#include "projections/relational/byte_map.h"
#include "projections/sqlite/database.h"

// What a relational view keeps beside its rows, in tables of the view's own file: so it changes in
// the same transaction as the view and the checkpoint. What was written since the last flush() is
// in memory.

namespace millrace::projections::internal {

/// Carries an Error through functions of operators, which return rows. Caught where the flow is
/// entered.
class StateFailure : public std::exception {
 public:
  explicit StateFailure(Error error) : error_(std::move(error)) {}
  const char* what() const noexcept override { return "the state of a view can't be read"; }
  Error take() { return std::move(error_); }

 private:
  Error error_;
};

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};
template <typename T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

/// Bytes by key. Errors are thrown as StateFailure but by create(), open() and flush(). Threads:
/// one.
class StateTable {
 public:
  static Result<void> create(sqlite::Database& database, std::string_view name);
  Result<void> open(sqlite::Database& database, std::string_view name);

  /// Valid until the next call. Reading goes on until the next one or rest().
  std::optional<std::string_view> find(std::string_view key);
  /// Ends what find() has begun, which would keep the file's readers' lock outside a transaction.
  void rest() { find_.reset(); }
  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  /// Every row, in no order. `visit` must not change the table.
  void for_each(const std::function<void(std::string_view key, std::string_view value)>& visit);

  /// Into the database's transaction.
  Result<void> flush();
  /// Of what flush() would write, about.
  std::size_t bytes_in_memory() const { return written_.bytes(); }

 private:
  sqlite::Statement find_, put_, erase_, all_;
  bool has_stored_rows_ = false;  ///< If not, no read needs the database.
  ByteMap written_;               ///< Without a value where the row is gone.
};

/// For each key an ordered set of members, each with how often it was added. Errors and threads as
/// of a StateTable.
class StateIndex {
 public:
  static Result<void> create(sqlite::Database& database, std::string_view name);
  Result<void> open(sqlite::Database& database, std::string_view name);

  /// Adds it `times` more often, which may be negative; one that is there zero times is not there.
  void add(std::string_view key, std::string_view member, std::int64_t times);
  /// How often it is there.
  std::int64_t times(std::string_view key, std::string_view member);
  /// In order, until `visit` returns false. It must not change the index.
  void for_each(std::string_view key,
                const std::function<bool(std::string_view member, std::int64_t times)>& visit) {
    walk(key, visit, true);
  }
  void for_each_from_end(
      std::string_view key,
      const std::function<bool(std::string_view member, std::int64_t times)>& visit) {
    walk(key, visit, false);
  }

  Result<void> flush();
  std::size_t bytes_in_memory() const { return bytes_; }

 private:
  using Members = std::map<std::string, std::int64_t, std::less<>>;
  void walk(std::string_view key, const std::function<bool(std::string_view, std::int64_t)>& visit,
            bool forwards);

  sqlite::Statement forwards_, backwards_, times_, add_, erase_;
  bool has_stored_rows_ = false;
  StringMap<Members> added_;  ///< How much more often than stored.
  std::size_t bytes_ = 0;
};

}  // namespace millrace::projections::internal
