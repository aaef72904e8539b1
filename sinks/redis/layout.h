#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "projections/sink.h"
#include "sinks/redis/connection.h"

namespace millrace::projections::redis {

/// The keys of a view: one, or all that begin so.
struct Keys {
  std::string text;
  bool begin_so = false;

  bool may_be_of(const Keys& other) const;
  /// "=balances", "*balances:".
  std::string encoded() const;
  static Keys decoded(std::string_view text);
};

/// How the rows of a view stand in Redis. Threads: may be used by several at once.
class Layout {
 public:
  using Send = std::function<void(const Words&)>;
  /// Sends a command whose answer is looked at when it comes.
  using Answer = std::function<Result<void>(const Reply&)>;
  using Ask = std::function<void(const Words&, Answer)>;
  using Visit = Sink::Visit;

  virtual ~Layout() = default;
  /// Changes when the same rows are to be written otherwise.
  virtual std::string shape() const = 0;
  virtual std::string describe() const = 0;
  virtual Keys keys() const = 0;
  virtual Result<void> write(const SinkRow& row, const Send& send) const = 0;
  /// Some key that is there already; empty if none is.
  virtual Result<std::string> find_any(Connection& connection) const = 0;
  /// Sends what removes everything, or a part of it: false when nothing was left.
  virtual Result<bool> clear_some(Connection& connection, const Send& send) const = 0;
  virtual Result<void> read(Connection& connection, const Visit& visit) const = 0;
  /// Asks for what must be right before a transaction, since Redis goes on after an error in it.
  virtual void check_types(const Ask&) const {}
};

/// A hash a row: "<prefix><key>", where the prefix is "<view>:" if it is empty.
std::shared_ptr<const Layout> hashes(SinkShape shape, std::string prefix);
/// The keys of the rows.
std::shared_ptr<const Layout> set(std::string key);
/// The keys of the rows by their only column.
std::shared_ptr<const Layout> sorted_set(SinkShape shape, std::string key);

}  // namespace millrace::projections::redis
