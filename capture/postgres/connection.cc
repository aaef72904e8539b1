#include "capture/postgres/connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <array>
#include <cerrno>

#include "base/bytes.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

/// How long at most before a wait for a copied row looks again.
constexpr milliseconds kCopyWait{1000};

/// PostgreSQL's text without its trailing newline and "connection to server ... failed: " noise
/// kept: it names the host.
std::string trimmed(const char* message) {
  std::string text = message == nullptr ? "" : message;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

/// Classes of SQLSTATE that time or somebody else's action may mend: connection, authorization,
/// insufficient resources, operator intervention, object in use
/// (https://www.postgresql.org/docs/15/errcodes-appendix.html).
ErrorCode code_for(std::string_view sqlstate) {
  if (sqlstate.empty() || sqlstate.starts_with("08") || sqlstate.starts_with("28") ||
      sqlstate.starts_with("53") || sqlstate.starts_with("57"))
    return ErrorCode::kUnavailable;
  if (sqlstate == "55006") return ErrorCode::kLocked;
  return ErrorCode::kFailedPrecondition;
}

}  // namespace

Result<std::unique_ptr<PostgresConnection>> PostgresConnection::open(const SourceAddress& address,
                                                                     bool replication,
                                                                     const std::stop_token& stop) {
  std::unique_ptr<PostgresConnection> connection(new PostgresConnection(stop));
  if (auto opened = connection->connect(address, replication); !opened)
    return std::move(opened).error().context("connect to " + address.describe());
  return connection;
}

Result<void> PostgresConnection::connect(const SourceAddress& address, bool replication) {
  std::vector<const char*> names, values;
  const auto parameters = address.parameters(replication);
  for (const auto& [name, value] : parameters) {
    names.push_back(name.c_str());
    values.push_back(value.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  // libpq walks hosts and honours connect_timeout only in the blocking call; its limit is ours.
  connection_ = PQconnectdbParams(names.data(), values.data(), 0);
  if (connection_ == nullptr) return Error(ErrorCode::kIo, "out of memory");
  if (PQstatus(connection_) != CONNECTION_OK) {
    const bool password = PQconnectionNeedsPassword(connection_) == 1;
    return Error(ErrorCode::kUnavailable, trimmed(PQerrorMessage(connection_)))
        .hint(password ? "The server asks for a password: put it into ~/.pgpass (mode 0600), into "
                         "PGPASSWORD, or into MILLRACE_SOURCE."
                       : "Check host, port, database, user and password, that the server runs, and "
                         "that its pg_hba.conf lets this user in.");
  }
  PQsetNoticeProcessor(
      connection_, [](void*, const char*) {}, nullptr);
  MILLRACE_RETURN_IF_ERROR(query(std::string(pin_session_settings())));
  if (PQsetnonblocking(connection_, 1) != 0)
    return failure(nullptr, "make the socket non-blocking");
  return {};
}

PostgresConnection::~PostgresConnection() {
  PQfreemem(buffer_);
  PQfinish(connection_);
}

int PostgresConnection::server_version() const { return PQserverVersion(connection_); }

Error PostgresConnection::failure(const pg_result* result, std::string_view what) {
  const char* state = result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_SQLSTATE);
  sqlstate_ = state == nullptr ? "" : state;
  std::string text =
      trimmed(result == nullptr ? PQerrorMessage(connection_) : PQresultErrorMessage(result));
  if (text.empty()) text = "the server closed the connection";
  return Error(code_for(sqlstate_), std::string(what) + ": " + text);
}

Result<void> PostgresConnection::wait_for_socket(short events, milliseconds timeout, int other) {
  if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
  std::array<pollfd, 3> polled{
      {{PQsocket(connection_), events, 0}, {stopped_.descriptor(), POLLIN, 0}, {other, POLLIN, 0}}};
  const int count = ::poll(polled.data(), other < 0 ? 2 : 3, static_cast<int>(timeout.count()));
  if (count < 0 && errno != EINTR) return Error::from_errno(errno, "poll");
  return {};
}

Result<std::shared_ptr<pg_result>> PostgresConnection::next_result() {
  for (;;) {
    const int unsent = PQflush(connection_);
    if (unsent < 0) return failure(nullptr, "send");
    if (unsent == 0 && PQisBusy(connection_) == 0) break;
    MILLRACE_RETURN_IF_ERROR(
        wait_for_socket(static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)), milliseconds(-1), -1));
    if (PQconsumeInput(connection_) == 0) return failure(nullptr, "receive");
  }
  return std::shared_ptr<pg_result>(PQgetResult(connection_), PQclear);
}

Result<std::vector<PostgresConnection::Row>> PostgresConnection::query(const std::string& sql) {
  if (PQsendQuery(connection_, sql.c_str()) == 0) return failure(nullptr, "send query");
  std::vector<Row> rows;
  Result<void> outcome;
  for (;;) {  // every result must be fetched, also after an error
    MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<pg_result> result, next_result());
    if (!result) break;
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
      if (outcome) outcome = failure(result.get(), "PostgreSQL");
      continue;
    }
    rows.clear();
    for (int row = 0; row < PQntuples(result.get()); ++row) {
      Row& values = rows.emplace_back();
      for (int column = 0; column < PQnfields(result.get()); ++column)
        values.push_back(
            PQgetisnull(result.get(), row, column) != 0
                ? std::nullopt
                : std::optional<std::string>(
                      std::in_place, PQgetvalue(result.get(), row, column),
                      static_cast<std::size_t>(PQgetlength(result.get(), row, column))));
    }
  }
  if (!outcome) return std::move(outcome).error();
  return rows;
}

Result<void> PostgresConnection::send_copy_out(const std::string& sql) {
  copying_ = false;
  if (PQsendQuery(connection_, sql.c_str()) == 0 || PQflush(connection_) < 0)
    return failure(nullptr, "send query");
  return {};
}

Result<std::optional<std::string_view>> PostgresConnection::next_copied() {
  while (!copying_) {
    MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<pg_result> result, next_result());
    const ExecStatusType status = PQresultStatus(result.get());
    copying_ = status == PGRES_COPY_OUT;
    if (!copying_ && status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
      return failure(result.get(), "PostgreSQL");
  }
  for (;;) {
    auto message = receive();
    if (!message) {
      copying_ = false;
      if (message.error().code() != ErrorCode::kNotFound) return message;
      return std::optional<std::string_view>();  // the copy is whole
    }
    if (*message) return message;
    MILLRACE_RETURN_IF_ERROR(wait_for_socket(POLLIN, kCopyWait, -1));
  }
}

Result<void> PostgresConnection::copy_out(
    const std::string& sql, const std::function<Result<void>(std::string_view)>& on_line) {
  MILLRACE_RETURN_IF_ERROR(send_copy_out(sql));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(auto line, next_copied());
    if (!line) return {};
    if (line->ends_with('\n')) line->remove_suffix(1);
    MILLRACE_RETURN_IF_ERROR(on_line(*line));
  }
}

Result<void> PostgresConnection::start_copy_both(const std::string& command) {
  if (PQsendQuery(connection_, command.c_str()) == 0) return failure(nullptr, "send command");
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<pg_result> result, next_result());
  if (!result || PQresultStatus(result.get()) != PGRES_COPY_BOTH)
    return failure(result.get(), "start replication");
  return {};
}

Result<std::optional<std::string_view>> PostgresConnection::receive() {
  PQfreemem(std::exchange(buffer_, nullptr));
  int size = PQgetCopyData(connection_, &buffer_, 1);
  if (size == 0) {  // libpq holds no more of it, the socket may
    if (PQconsumeInput(connection_) == 0) return failure(nullptr, "receive");
    size = PQgetCopyData(connection_, &buffer_, 1);
  }
  if (size > 0) [[likely]]
    return std::optional(std::string_view(buffer_, static_cast<std::size_t>(size)));
  if (size == 0) return std::optional<std::string_view>();
  if (size == -2) return failure(nullptr, "receive");
  // -1: the server ended the stream; its result says why.
  Result<void> outcome = Error(ErrorCode::kNotFound, "the stream has ended");
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<pg_result> result, next_result());
    if (!result) break;
    const ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_FATAL_ERROR) {
      outcome = failure(result.get(), "PostgreSQL");
      if (PQstatus(connection_) == CONNECTION_BAD) break;
    } else if (status == PGRES_COPY_BOTH || status == PGRES_COPY_IN) {
      break;  // only half of it has ended
    }
  }
  return std::move(outcome).error();
}

Result<void> PostgresConnection::send(std::string_view message) {
  if (PQputCopyData(connection_, message.data(), static_cast<int>(message.size())) < 0 ||
      PQflush(connection_) < 0)
    return failure(nullptr, "send");
  return {};
}

Result<void> PostgresConnection::wait(milliseconds timeout, const Wakeup& wakeup) {
  const int unsent = PQflush(connection_);
  if (unsent < 0) return failure(nullptr, "send");
  MILLRACE_RETURN_IF_ERROR(wait_for_socket(static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)),
                                           timeout, wakeup.descriptor()));
  if (PQconsumeInput(connection_) == 0) return failure(nullptr, "receive");
  return {};
}

void PostgresConnection::end_copy_both(milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  if (PQputCopyEnd(connection_, nullptr) != 1) return;
  for (;;) {
    if (PQflush(connection_) < 0) return;
    PQfreemem(std::exchange(buffer_, nullptr));
    const int size = PQgetCopyData(connection_, &buffer_, 1);
    if (size < 0) return;  // the end, or an error that no longer matters
    if (size > 0) continue;
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd polled{PQsocket(connection_), POLLIN, 0};
    if (left.count() <= 0 ||
        (::poll(&polled, 1, static_cast<int>(left.count())) < 0 && errno != EINTR))
      return;
    if (PQconsumeInput(connection_) == 0) return;
  }
}

}  // namespace millrace
