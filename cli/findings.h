#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "capture/check.h"
#include "cli/json.h"

namespace millrace {

inline std::string_view name_of(Finding::Severity severity) {
  switch (severity) {
    case Finding::Severity::kFine: return "ok";
    case Finding::Severity::kNote: return "note";
    case Finding::Severity::kWarning: return "warning";
    case Finding::Severity::kProblem: return "problem";
  }
  return "?";
}

/// "ok       wal_level: ..." and a second line with what mends it.
inline std::string finding_text(std::string_view kind, const std::string& subject,
                                const std::string& message, const std::string& fix) {
  std::string text(kind);
  text.resize(std::max<std::size_t>(text.size() + 1, 9), ' ');
  text += subject + ": " + message + "\n";
  if (!fix.empty()) text += "         fix: " + fix + "\n";
  return text;
}

inline std::string finding_text(const Finding& finding) {
  return finding_text(name_of(finding.severity), finding.subject, finding.message, finding.fix);
}

inline std::string finding_json(const Finding& finding) {
  return to_line({{"severity", name_of(finding.severity)},
                  {"subject", finding.subject},
                  {"message", finding.message},
                  {"fix", finding.fix.empty() ? Json() : Json(finding.fix)}});
}

}  // namespace millrace
