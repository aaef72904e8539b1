#include "capture/postgres/connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "base/bytes.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

/// How long at most before a wait for a copied row looks again.
constexpr milliseconds kCopyWait{1000};
/// And any wait under TLS: libpq before 15.19 may hold decrypted bytes, of which poll() knows
/// nothing.
constexpr milliseconds kTlsWait{200};

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

/// How soon a stop is seen while it connects.
constexpr milliseconds kConnectLook{1000};

constexpr std::string_view kRefused = "No way in: ";

/// One parameter as libpq has resolved it, from service file and environment too.
std::string conninfo_value(pg_conn* connection, std::string_view name) {
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(PQconninfo(connection),
                                                                             &PQconninfoFree);
  for (const PQconninfoOption* option = options.get(); option && option->keyword; ++option)
    if (name == option->keyword && option->val != nullptr) return option->val;
  return "";
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  if (list.empty()) return parts;
  for (std::size_t begin = 0, end = 0; end != list.npos; begin = end + 1) {
    end = list.find(',', begin);
    parts.push_back(list.substr(begin, end - begin));
  }
  return parts;
}

std::string current_host(const pg_conn* connection) {
  const char* host = PQhost(connection);
  const char* port = PQport(connection);
  return std::string(host == nullptr ? "" : host) + " " + (port == nullptr ? "" : port);
}

/// Takes the codes and the places in the server's source, which only a verbose message has, out of
/// "FATAL:  28P01: password authentication failed ...\nLOCATION:  auth_failed, auth.c:326"; gives
/// the last code.
std::string take_sqlstate(std::string& text) {
  std::string code, kept;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("LOCATION:")) continue;
    for (std::size_t at = line.find(":  "); at != line.npos; at = line.find(":  ", at + 1)) {
      const std::string state = line.substr(at + 3, 5);
      if (line.compare(std::min(at + 8, line.size()), 2, ": ") != 0 || state.size() != 5 ||
          !std::all_of(state.begin(), state.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); }))
        continue;
      code = state;
      line.erase(at + 3, 7);
    }
    kept += line + "\n";
  }
  text = kept;
  return code;
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
  auto parameters = address.parameters(replication);
  for (;;) {
    std::vector<const char*> names, values;
    for (const auto& [name, value] : parameters) {
      names.push_back(name.c_str());
      values.push_back(value.c_str());
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    PQfinish(std::exchange(connection_, PQconnectStartParams(names.data(), values.data(), 0)));
    if (connection_ == nullptr) return Error(ErrorCode::kIo, "out of memory");
    PQsetErrorVerbosity(connection_, PQERRORS_VERBOSE);  // for the SQLSTATE of a refusal
    MILLRACE_ASSIGN_OR_RETURN(const bool answered, wait_for_connection());
    if (PQstatus(connection_) == CONNECTION_OK) break;
    if (answered) return refusal(address);
    if (!leave_out_silent_host(parameters))
      return Error(ErrorCode::kUnavailable, "the server does not answer (connect_timeout)")
          .hint("Check host and port, that the server runs, and the network between.");
  }
  PQsetErrorVerbosity(connection_, PQERRORS_DEFAULT);
  PQsetNoticeProcessor(
      connection_, [](void*, const char*) {}, nullptr);
  MILLRACE_RETURN_IF_ERROR(query(std::string(pin_session_settings())));
  if (PQsetnonblocking(connection_, 1) != 0)
    return failure(nullptr, "make the socket non-blocking");
  return {};
}

/// Until it is made or refused; false where a host has not answered in its time. libpq's own
/// connect_timeout works in its blocking call only, which could not be stopped.
Result<bool> PostgresConnection::wait_for_connection() {
  using SteadyClock = std::chrono::steady_clock;
  const int seconds = std::atoi(conninfo_value(connection_, "connect_timeout").c_str());
  std::string host;
  SteadyClock::time_point deadline;
  PostgresPollingStatusType next = PGRES_POLLING_WRITING;
  if (PQstatus(connection_) == CONNECTION_BAD) return true;
  for (;; next = PQconnectPoll(connection_)) {
    if (next == PGRES_POLLING_OK || next == PGRES_POLLING_FAILED) return true;
    const std::string now_at = current_host(connection_);
    if (now_at != host) {
      host = now_at;
      deadline = SteadyClock::now() + std::chrono::seconds(std::max(seconds, 2));
    }
    // PQconnectPoll() must not be called before the socket is ready.
    pollfd ready{PQsocket(connection_),
                 static_cast<short>(next == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0};
    while (::poll(&ready, 1, 0) == 0) {
      const auto left =
          seconds <= 0 ? kConnectLook
                       : std::chrono::duration_cast<milliseconds>(deadline - SteadyClock::now());
      if (left.count() <= 0) return false;
      MILLRACE_RETURN_IF_ERROR(wait_for_socket(ready.events, std::min(left, kConnectLook), -1));
    }
  }
}

/// Of several hosts, those up to the one that was silent; false if it was the last one.
bool PostgresConnection::leave_out_silent_host(SourceAddress::Parameters& parameters) const {
  const std::string silent = current_host(connection_);
  auto hosts = split(conninfo_value(connection_, "host"));
  auto addresses = split(conninfo_value(connection_, "hostaddr"));
  auto ports = split(conninfo_value(connection_, "port"));
  const std::size_t count = std::max(hosts.size(), addresses.size());
  const auto at = [](const std::vector<std::string>& list, std::size_t i) {
    return list.size() == 1 ? list.front() : i < list.size() ? list[i] : std::string();
  };
  std::size_t tried = 0;
  while (tried < count &&
         (hosts.empty() ? at(addresses, tried) : at(hosts, tried)) + " " + at(ports, tried) !=
             silent)
    ++tried;
  if (++tried >= count) return false;
  const auto rest = [&](const char* name, const std::vector<std::string>& list) {
    if (list.size() < count) return;  // one for all of them, or none
    std::string joined;
    for (std::size_t i = tried; i < count; ++i) joined += (i > tried ? "," : "") + list[i];
    std::erase_if(parameters, [&](const auto& entry) { return entry.first == name; });
    parameters.emplace_back(name, joined);
  };
  rest("host", hosts);
  rest("hostaddr", addresses);
  rest("port", ports);
  return true;
}

/// What libpq says of the attempt that failed, with the code of what the server said.
Error PostgresConnection::refusal(const SourceAddress& address) {
  std::string text = PQerrorMessage(connection_) == nullptr ? "" : PQerrorMessage(connection_);
  sqlstate_ = take_sqlstate(text);
  const bool untrusted = text.find("certificate") != text.npos ||
                         text.find("SSL error") != text.npos ||
                         text.find("channel binding") != text.npos;
  Error error(ErrorCode::kUnavailable, trimmed(text.c_str()));
  if (PQconnectionNeedsPassword(connection_) == 1 || sqlstate_.starts_with("28"))
    return std::move(error).hint(
        std::string(kRefused) +
        "check user and password, that the role exists and may log in, and pg_hba.conf. A password "
        "goes into ~/.pgpass (mode 0600), PGPASSWORD or MILLRACE_SOURCE." +
        address.passfile_note());
  if (untrusted)
    return std::move(error).hint(std::string(kRefused) +
                                 "check sslmode, sslrootcert and sslcert, the names in the "
                                 "certificates and until when they are valid.");
  return std::move(error).hint(address.connect_hint(text));
}

bool was_refused(const Error& error) { return error.hint().starts_with(kRefused); }

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

/// True if the socket can be read.
Result<bool> PostgresConnection::wait_for_socket(short events, milliseconds timeout, int other) {
  if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
  if (PQsslInUse(connection_) != 0)
    timeout = timeout.count() < 0 ? kTlsWait : std::min(timeout, kTlsWait);
  std::array<pollfd, 3> polled{
      {{PQsocket(connection_), events, 0}, {stopped_.descriptor(), POLLIN, 0}, {other, POLLIN, 0}}};
  const int count = ::poll(polled.data(), other < 0 ? 2 : 3, static_cast<int>(timeout.count()));
  if (count < 0 && errno != EINTR) return Error::from_errno(errno, "poll");
  return count > 0 && (polled[0].revents & POLLIN) != 0;
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
  Result<void> outcome = Error(copying_ ? ErrorCode::kNotFound : ErrorCode::kUnavailable,
                               "the server has ended the stream");
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<pg_result> result, next_result());
    if (!result) break;
    const ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_FATAL_ERROR) {
      outcome = failure(result.get(), "PostgreSQL");
      // Of a stream nothing is wanted any more: what does not end it shall not hold us up.
      if (!copying_ || PQstatus(connection_) == CONNECTION_BAD) break;
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

Result<bool> PostgresConnection::wait(milliseconds timeout, const Wakeup& wakeup) {
  const int unsent = PQflush(connection_);
  if (unsent < 0) return failure(nullptr, "send");
  MILLRACE_ASSIGN_OR_RETURN(const bool heard,
                            wait_for_socket(static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)),
                                            timeout, wakeup.descriptor()));
  if (PQconsumeInput(connection_) == 0) return failure(nullptr, "receive");
  return heard;
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
