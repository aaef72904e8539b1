#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "capture/check.h"

namespace millrace {

struct SetupReport {
  bool made_publication = false;
  std::vector<Finding> findings;  ///< As of check_source(), after what was done.
};

/// Makes the publication if it is missing, in a database where nothing of the tables keeps it from
/// that, and looks at everything else. A slot is made by the first run, for from then on the server
/// keeps its WAL for it. Changes nothing more when called again. Errors: as check_source().
Result<SetupReport> set_up_source(const CheckOptions& options);

struct TeardownOptions {
  std::string source;
  /// Empty: what `store` was fed from; without a store "millrace".
  std::string slot{}, publication{};
  /// The store that was fed from them; empty: not told. Its source.json must know them.
  Path store{};
  bool yes = false;  ///< Do it.
};

/// What a teardown finds of one thing.
struct TeardownStep {
  enum class State { kAbsent, kWouldRemove, kRemoved, kKept };
  State state = State::kAbsent;
  std::string subject;    ///< "slot millrace"
  std::string message{};  ///< A sentence.
  std::string fix{};      ///< kKept: the statement that removes it all the same.
};

/// Removes slot and publication, or, without `yes`, says what it would remove. What is not
/// capture's stays: a slot of another plugin or database, a publication that capture has not made
/// (it says so in its comment). Called again it finds nothing to do.
///
/// Errors: kLocked (the slot is in use, by whom), kFailedPrecondition (the store was fed from
/// another slot, database or server; a right is missing), kNotFound (no such store), kUnavailable,
/// kInvalidArgument.
Result<std::vector<TeardownStep>> tear_down_source(const TeardownOptions& options);

}  // namespace millrace
