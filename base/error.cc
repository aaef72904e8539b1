#include "base/error.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace millrace {

std::string_view name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "INVALID_ARGUMENT";
    case ErrorCode::kNotFound: return "NOT_FOUND";
    case ErrorCode::kConflict: return "CONFLICT";
    case ErrorCode::kFailedPrecondition: return "FAILED_PRECONDITION";
    case ErrorCode::kUnavailable: return "UNAVAILABLE";
    case ErrorCode::kLocked: return "LOCKED";
    case ErrorCode::kCorruption: return "CORRUPTION";
    case ErrorCode::kIo: return "IO";
    case ErrorCode::kNoSpace: return "NO_SPACE";
    case ErrorCode::kUnsupported: return "UNSUPPORTED";
    case ErrorCode::kGone: return "GONE";
    case ErrorCode::kCancelled: return "CANCELLED";
    case ErrorCode::kInternal: return "INTERNAL";
  }
  return "UNKNOWN";
}

int exit_code_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return kExitUsage;
    case ErrorCode::kCorruption: return kExitCorruption;
    case ErrorCode::kUnavailable: return kExitUnavailable;
    default: return kExitFailed;
  }
}

Error&& Error::context(std::string_view what) && {
  message_.insert(0, ": ").insert(0, what);
  return std::move(*this);
}

Error&& Error::hint(std::string hint) && {
  if (hint_.empty()) hint_ = std::move(hint);
  return std::move(*this);
}

std::string Error::to_string() const {
  return hint_.empty() ? message_ : message_ + "\n  " + hint_;
}

Error Error::from_errno(int error_number, std::string_view what) {
  const std::string text = std::string(what) + ": " + std::generic_category().message(error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Error(ErrorCode::kNoSpace, text)
          .hint(
              "Free some space on that file system (or raise the quota), then start again; "
              "nothing that was acknowledged is lost.");
    case ENOENT: return Error(ErrorCode::kNotFound, text);
    case EACCES:
    case EPERM:
      return Error(ErrorCode::kIo, text)
          .hint("This runs as user " + std::to_string(::geteuid()) +
                ", who may not do that: run it as the owner of the file, or see with `ls -l` what "
                "belongs to somebody else and give it back with `chown`.");
    case EROFS:
      return Error(ErrorCode::kIo, text)
          .hint(
              "The file system is read-only. The kernel does that after an error of the disk: see "
              "`dmesg`, then mount it for writing again.");
    default: return Error(ErrorCode::kIo, text);
  }
}

}  // namespace millrace
