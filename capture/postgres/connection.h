#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/wakeup.h"
#include "capture/postgres/source_address.h"
#include "schemas/lsn.h"

struct pg_conn;
struct pg_result;

namespace millrace {

/// A libpq connection, for what libpqxx does not speak: the replication protocol, and COPY of any
/// query with its lines untouched (libpqxx 6 and 7 differ there).
///
/// Every wait but the look-up of a host's name ends within a moment of `stop` being asked.
/// Connecting takes 10 s a host at most, if the source does not say otherwise. Errors: kUnavailable
/// (network, server going down, too many connections, authentication), kCancelled (stop), else
/// kFailedPrecondition with PostgreSQL's own words; sqlstate() has the code of the last one.
/// Threads: one.
class PostgresConnection {
 public:
  using Row = std::vector<std::optional<std::string>>;

  static Result<std::unique_ptr<PostgresConnection>> open(const SourceAddress& address,
                                                          bool replication,
                                                          const std::stop_token& stop);
  ~PostgresConnection();

  Result<std::vector<Row>> query(const std::string& sql);
  /// Runs `COPY ... TO STDOUT`; `on_line` gets each line without its newline.
  Result<void> copy_out(const std::string& sql,
                        const std::function<Result<void>(std::string_view)>& on_line);

  /// Sends `sql`, whose last statement is a `COPY ... TO STDOUT`, and returns: the server works on
  /// it while the caller does something else. next_copied() gives what comes, to its end.
  Result<void> send_copy_out(const std::string& sql);
  /// One message of that copy, untouched: a line with its newline, or a row of the binary format
  /// (https://www.postgresql.org/docs/15/sql-copy.html). Valid until the next call; waits for it.
  /// nullopt: the copy is whole.
  Result<std::optional<std::string_view>> next_copied();

  /// Enters streaming with a START_REPLICATION command.
  Result<void> start_copy_both(const std::string& command);
  /// The next message of the stream if one is here: valid until the next call. nullopt: nothing
  /// yet, see wait(). kUnavailable where the server ends the stream.
  Result<std::optional<std::string_view>> receive();
  /// Sends one message of the stream; may leave a part for the next wait().
  Result<void> send(std::string_view message);
  /// Waits until the server has sent something, `wakeup` was notified or `timeout` passed. True:
  /// something came, be it a part of a message only.
  Result<bool> wait(std::chrono::milliseconds timeout, const Wakeup& wakeup);
  /// Ends streaming in good order: when the server has closed its part, it has read our last status
  /// and let go of the slot. Gives up after `limit`, whatever `stop` says.
  void end_copy_both(std::chrono::milliseconds limit = std::chrono::seconds(5));

  const std::string& sqlstate() const { return sqlstate_; }
  int server_version() const;

 private:
  explicit PostgresConnection(const std::stop_token& stop)
      : stop_(stop), on_stop_(stop, [this] { stopped_.notify(); }) {}
  Result<void> connect(const SourceAddress& address, bool replication);
  Result<bool> wait_for_connection();
  bool leave_out_silent_host(SourceAddress::Parameters& parameters) const;
  Error refusal(const SourceAddress& address);
  Result<bool> wait_for_socket(short events, std::chrono::milliseconds timeout, int other);
  Result<std::shared_ptr<pg_result>> next_result();
  Error failure(const pg_result* result, std::string_view what);

  std::stop_token stop_;
  Wakeup stopped_;
  std::stop_callback<std::function<void()>> on_stop_;
  pg_conn* connection_ = nullptr;
  char* buffer_ = nullptr;  ///< libpq's, of the message that receive() gave last.
  bool copying_ = false;    ///< The copy that was sent has begun to come.
  std::string sqlstate_;
};

/// Whether open() failed because server or client don't trust the other: wrong password, no such
/// role, a certificate. Trying again at once is of no use and may lock an account.
bool was_refused(const Error& error);

}  // namespace millrace
