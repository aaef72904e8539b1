#include "capture/postgres/source_address.h"

#include <libpq-fe.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/bytes.h"

namespace millrace {
namespace {

struct FreeConninfo {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

std::string quoted(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

}  // namespace

Result<SourceAddress> SourceAddress::parse(const std::string& source) {
  if (source.empty())
    return Error(ErrorCode::kInvalidArgument, "no source given")
        .hint("Name the database, for example --source postgresql://user@localhost/shop");
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, FreeConninfo> options(
      PQconninfoParse(source.c_str(), &message));
  if (message != nullptr) PQfreemem(message);  // may quote a part of a mistyped password
  if (!options)
    return Error(ErrorCode::kInvalidArgument, "the source is no valid connection string")
        .hint(
            "It is a URI (postgresql://user@host:5432/database) or pairs (host=... dbname=...); "
            "write special characters of a URI as %XX.");
  SourceAddress address;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option)
    if (option->val != nullptr) address.given_.emplace_back(option->keyword, option->val);
  if (address.value("host").find_first_of("@ ") !=
      std::string::npos)  // a password's rest: not shown
    return Error(ErrorCode::kInvalidArgument, "the source's host can't hold '@' or a blank")
        .hint(
            "Write special characters of the user and the password in a URI as %XX: '@' is %40, a "
            "blank %20.");
  return address;
}

SourceAddress::Parameters SourceAddress::parameters(bool replication) const {
  Parameters all = given_;
  const auto unless_given = [&](std::string_view name, std::string_view fallback) {
    if (value(name).empty()) all.emplace_back(name, fallback);
  };
  unless_given("application_name", "millrace");
  unless_given("connect_timeout", "10");
  unless_given("keepalives_idle", "10");
  unless_given("keepalives_interval", "5");
  unless_given("keepalives_count", "3");
  unless_given("tcp_user_timeout", "30000");
  unless_given("gssencmode", "disable");
  std::erase_if(all, [](const auto& entry) {
    return entry.first == "replication" || entry.first == "client_encoding" ||
           entry.first == "options";
  });
  all.emplace_back("client_encoding", "UTF8");
  // Also when a library connects again by itself, names must come out qualified.
  all.emplace_back("options", value("options") + " -c search_path=pg_catalog");
  if (replication) all.emplace_back("replication", "database");
  return all;
}

std::string SourceAddress::connection_string() const {
  std::string text;
  for (const auto& [name, value] : parameters(false)) text += name + "=" + quoted(value) + " ";
  return text;
}

SourceAddress SourceAddress::with(std::string_view name, std::string_view value) const {
  SourceAddress changed = *this;
  std::erase_if(changed.given_, [&](const auto& entry) { return entry.first == name; });
  changed.given_.emplace_back(name, value);
  return changed;
}

std::string SourceAddress::value(std::string_view name) const {
  const auto found = std::find_if(given_.begin(), given_.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  return found == given_.end() ? std::string() : found->second;
}

std::string SourceAddress::host() const {
  std::string host = value("host");
  if (host.empty()) host = value("hostaddr");
  if (host.empty()) host = "local socket";
  const std::string port = value("port");
  return port.empty() ? host : host + ":" + port;
}

std::string SourceAddress::passfile_note() const {
  std::string path = value("passfile");
  if (const char* given = std::getenv("PGPASSFILE"); path.empty() && given != nullptr) path = given;
  if (const char* home = std::getenv("HOME"); path.empty() && home != nullptr)
    path = std::string(home) + "/.pgpass";
  struct stat status {};
  if (path.empty() || ::stat(path.c_str(), &status) != 0) return "";
  if (S_ISREG(status.st_mode) && (status.st_mode & (S_IRWXG | S_IRWXO)) == 0) return "";
  return " The password file " + printable(path) +
         " is ignored since others than its owner may read it: chmod 600 it.";
}

std::string SourceAddress::connect_hint(std::string_view message) const {
  if (message.find("unsupported startup parameter") != message.npos)
    return "A pooler such as pgbouncer is in between, which passes no replication on: connect to "
           "PostgreSQL itself.";
  return "Check host, port, database, user and password, that the server runs, and that its "
         "pg_hba.conf lets this user in. A password goes into ~/.pgpass (mode 0600), PGPASSWORD or "
         "MILLRACE_SOURCE." +
         passfile_note();
}

std::string SourceAddress::describe() const {
  const std::string database = value("dbname"), user = value("user"), service = value("service");
  std::string text = database.empty() ? "the default database" : "database " + database;
  text += " on " + (service.empty() ? host() : "service " + service);
  return user.empty() ? text : text + " as " + user;
}

std::string_view pin_session_settings() {
  return "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; "
         "SET bytea_output = 'hex'; SET TimeZone = 'UTC'; SET row_security = off; "
         "SET xmlbinary = 'base64'; SET lc_monetary = 'C'; "
         "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
         "SET synchronous_commit = local; SET standard_conforming_strings = on; SET "
         "quote_all_identifiers = off; SET search_path = "
         "pg_catalog; "
         // A database in SQL_ASCII may hold any bytes: asked for as UTF8, it would refuse those
         // that are none.
         "SELECT set_config('client_encoding', CASE getdatabaseencoding() WHEN 'SQL_ASCII' "
         "THEN 'SQL_ASCII' ELSE 'UTF8' END, false); "
         "SELECT set_config(name, '0', false) FROM pg_settings "  // PostgreSQL 14 and 17 brought
                                                                  // them
         "WHERE name IN ('idle_session_timeout', 'transaction_timeout')";
}

}  // namespace millrace
