#pragma once

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"

namespace millrace::test {

/// A table that DomainEventWriter can write to. Its columns may become others of such types.
std::string create_outbox(const std::string& name);

/// What a transaction has written of domain events, each a line as read_domain_events() gives it
/// once the transaction is in the log.
struct WrittenEvents {
  std::vector<std::string> lines;
  std::vector<std::string> left;  ///< Those of them whose rows stay in the outbox.

  struct Mark {
    std::size_t lines = 0, left = 0;
  };
  Mark mark() const { return {lines.size(), left.size()}; }
  /// What was written since then was rolled back.
  void undo(const Mark& to) {
    lines.resize(to.lines);
    left.resize(to.left);
  }
};

/// Statements that write domain events, the same for the same seed: messages with JSON and with
/// bytes, rows of an outbox that are deleted at once or stay, and some of either kind that name no
/// stream. No two events are alike.
class DomainEventWriter {
 public:
  explicit DomainEventWriter(unsigned seed) : random_(seed) {}

  /// SQL, with a ';' at its end, of a few, for a transaction that is open; they are added to what
  /// it has `written`. `outbox` is in schema public.
  std::string write(WrittenEvents& written, const std::string& outbox = "outbox");
  /// As write(), but so many, of about 300 bytes each.
  std::string write_many(WrittenEvents& written, int count, const std::string& outbox = "outbox");

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string message(WrittenEvents& written);
  std::string refused_message(WrittenEvents& written);
  std::string outbox_row(WrittenEvents& written, const std::string& outbox);

  std::minstd_rand random_;
  std::uint64_t serial_ = 0;
};

/// Appends to the streams that DomainEventWriter writes to, from a thread of its own, to a store
/// that others hold, give back and are killed over. Those that expect a version sometimes conflict.
class OtherAppends {
 public:
  OtherAppends(Path store, unsigned seed);
  ~OtherAppends() { stop(); }
  /// Ends with the append that is under way.
  void stop();

  // Once it was stopped:
  /// Lines of those that were done, in order.
  const std::vector<std::string>& lines() const { return lines_; }
  int conflicts() const { return conflicts_; }
  /// What an append failed with that was no conflict; empty for nothing.
  const std::string& failure() const { return failure_; }

 private:
  void run(const std::stop_token& stop);

  const Path store_;
  std::minstd_rand random_;
  std::vector<std::string> lines_;
  int conflicts_ = 0;
  std::string failure_;
  std::jthread thread_;
};

/// The domain events of a log and those that were refused, in its order, as lines:
/// "category/key type payload #id", "$messages prefix content".
struct LoggedEvents {
  std::vector<std::string> captured;  ///< Of transactions of PostgreSQL.
  std::vector<std::string> appended;  ///< By others.
  /// Versions that a stream lacks or has twice; events without one.
  std::vector<std::string> faults;
};

/// Throws std::runtime_error if the store can't be read.
LoggedEvents read_domain_events(const Path& store);

/// Where two lists differ first, with what both have there; empty if they don't.
std::string first_difference(const std::vector<std::string>& expected,
                             const std::vector<std::string>& found);

}  // namespace millrace::test
