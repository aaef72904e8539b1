#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace millrace {

/// Where a source is and how to get in, parsed once from what the user gave (a URI or key=value
/// pairs). Holds the password: print only describe().
class SourceAddress {
 public:
  using Parameters = std::vector<std::pair<std::string, std::string>>;

  /// Errors: kInvalidArgument, without a word of the source that might be a secret.
  static Result<SourceAddress> parse(const std::string& source);

  /// All parameters for a connection: the user's, and ours where the user is silent: time-outs that
  /// find a dead peer within half a minute, application_name, no GSS encryption. `replication` asks
  /// for a walsender.
  Parameters parameters(bool replication) const;
  /// The same as a key=value string with every value quoted, for libpqxx.
  std::string connection_string() const;

  /// The same with another value of one parameter.
  SourceAddress with(std::string_view name, std::string_view value) const;

  /// "shop on localhost:5432 as millrace": no secret in it.
  std::string describe() const;
  /// One parameter's value as given; empty if it was not.
  std::string value(std::string_view name) const;
  /// A sentence with a blank before it where libpq passes over a password file without a word since
  /// others may read it; else empty.
  std::string passfile_note() const;
  /// What to do about a connection that could not be made, for `message`.
  std::string connect_hint(std::string_view message) const;
  /// "localhost:5432" or the socket's folder.
  std::string host() const;

 private:
  Parameters given_;
};

/// The statement that pins every setting that the text of a value depends on (RELIABILITY: the same
/// bytes whatever role or database say), and those that could end a long read.
std::string_view pin_session_settings();

}  // namespace millrace
