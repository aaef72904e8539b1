#include "sinks/postgres/session.h"

#include <libpq-fe.h>

#include <algorithm>

namespace millrace::projections::postgres {
namespace {

std::string quoted(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// By class and code of https://www.postgresql.org/docs/current/errcodes-appendix.html: what a new
/// attempt may mend.
bool passes(const std::string& state) {
  for (const char* prefix : {"08", "40", "53", "57", "58"})
    if (state.starts_with(prefix)) return true;
  return state == "25006" ||  // read-only: a standby, for now
         state == "55P03" || state == "55006";
}

/// What the user can do about a refusal; empty where that is the message's own matter.
std::string remedy(const std::string& state) {
  if (state == "42P01" || state == "42703")  // no such table, no such column
    return "If the view's table, or a column of it, was dropped: drop what is left of it and start "
           "the program again, which writes it anew. Else mend the trigger that the message names.";
  if (state == "42501" || state == "3F000")  // not allowed, no such schema
    return "The user needs CREATE and USAGE on the table's schema, and to own the table.";
  return "";
}

}  // namespace

Result<ServerAddress> ServerAddress::parse(const std::string& text) {
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(text.c_str(), &message), &PQconninfoFree);
  if (message != nullptr) PQfreemem(message);  // may quote a part of a mistyped password
  if (!options || text.empty())
    return Error(ErrorCode::kInvalidArgument,
                 text.empty() ? "no PostgreSQL server is given"
                              : "the PostgreSQL server is no valid connection string")
        .hint(
            "It is a URI (postgresql://user@host:5432/database) or pairs (host=... dbname=...); "
            "write special characters of a URI as %XX.");
  ServerAddress address;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option)
    if (option->val != nullptr) address.given_.emplace_back(option->keyword, option->val);
  return address;
}

std::string ServerAddress::value(const std::string& name) const {
  for (const auto& [key, value] : given_)
    if (key == name) return value;
  return "";
}

std::string ServerAddress::connection_string() const {
  auto all = given_;
  for (const auto& [name, fallback] :
       std::initializer_list<std::pair<const char*, const char*>>{{"application_name", "millrace"},
                                                                  {"connect_timeout", "10"},
                                                                  {"keepalives_idle", "10"},
                                                                  {"keepalives_interval", "5"},
                                                                  {"keepalives_count", "3"},
                                                                  {"tcp_user_timeout", "30000"}})
    if (value(name).empty()) all.emplace_back(name, fallback);
  std::erase_if(all, [](const auto& entry) { return entry.first == "client_encoding"; });
  all.emplace_back("client_encoding", "UTF8");
  std::string text;
  for (const auto& [name, value] : all) text += name + "=" + quoted(value) + " ";
  return text;
}

std::string ServerAddress::describe() const {
  std::string host = value("host").empty() ? value("hostaddr") : value("host");
  if (host.empty()) host = "the local socket";
  if (const std::string port = value("port"); !port.empty()) host += ":" + port;
  const std::string database = value("dbname");
  return (database.empty() ? "the default database" : "database " + database) + " on " + host;
}

Result<std::unique_ptr<Session>> Session::open(const ServerAddress& address) {
  std::unique_ptr<Session> session(new Session(address));
  MILLRACE_RETURN_IF_ERROR(session->run([&] {
    session->connection_ = std::make_unique<pqxx::connection>(address.connection_string());
  }));
  return session;
}

Result<void> Session::set_up() {
  return run([&] {
    pqxx::nontransaction(*connection_)
        .exec(
            "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; "
            "SET bytea_output = 'hex'; SET TimeZone = 'UTC'; SET standard_conforming_strings = "
            "on; SET client_min_messages = warning; SET search_path = pg_catalog; "
            "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '30s'");
  });
}

void Session::commit() {
  transaction_->commit();
  transaction_.reset();
}

pqxx::result Session::exec(const std::string& sql, const Parameters& parameters) {
#if PQXX_VERSION_MAJOR >= 7
  pqxx::params values;
  for (const std::string& parameter : parameters) values.append(parameter);
  return transaction_->exec_params(sql, values);
#else
  return transaction_->exec_params(sql, pqxx::prepare::make_dynamic_params(parameters));
#endif
}

Error Session::failure() const {
  const auto error = [&](ErrorCode code, const char* what) {
    return Error(code, where_ + ": " + one_line(what));
  };
  try {
    throw;
  } catch (const pqxx::broken_connection& e) {
    return error(ErrorCode::kUnavailable, e.what())
        .hint(
            "Check that the server runs, and the address, user and password that are given for "
            "it. A password may stand in ~/.pgpass (mode 0600) or PGPASSWORD.");
  } catch (const pqxx::sql_error& e) {
    const bool may_pass = e.sqlstate().empty() || passes(e.sqlstate());
    return error(may_pass ? ErrorCode::kUnavailable : ErrorCode::kFailedPrecondition, e.what())
        .hint(remedy(e.sqlstate()));
  } catch (const pqxx::failure& e) {  // rolled back for another's sake, or nobody knows whether
    return error(ErrorCode::kUnavailable, e.what());
  } catch (const std::exception& e) {
    return error(ErrorCode::kInternal, e.what());
  }
}

}  // namespace millrace::projections::postgres
