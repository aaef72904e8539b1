#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace millrace {

/// Something about a source that capture depends on.
struct Finding {
  enum class Severity {
    kFine,
    kNote,  ///< A difference that the next run of the capture mends by itself.
    kWarning,
    kProblem,
  };
  Severity severity = Severity::kFine;
  std::string subject;  ///< "wal_level", "table public.log", "replication right".
  std::string message;  ///< A sentence: what is so, and what follows from it.
  std::string fix;      ///< The statement that mends it; empty where none is needed.
};

struct CheckOptions {
  std::string source;
  std::vector<std::string> tables;  ///< As in CaptureOptions; empty: public.*.
  std::string slot = "millrace";
  std::string publication = "millrace";
  std::vector<std::string> outbox = {};  ///< As in CaptureOptions.
};

/// Looks at everything that capture needs from a source: settings, rights, free slots and senders,
/// the tables' replica identity, slot and publication. A publication that capture has made and that
/// differs from `tables` is only a note where a slot is there to go on from: the next run brings it
/// in step. Changes nothing. Errors: kUnavailable (can't
/// connect), kInvalidArgument (bad URI or pattern).
Result<std::vector<Finding>> check_source(const CheckOptions& options);

}  // namespace millrace
