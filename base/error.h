#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

/// What went wrong, named by what the caller can do about it. `action_for` says it in words.
enum class ErrorCode : std::uint8_t {
  kInvalidArgument,     ///< The request can never work as written: mend it.
  kNotFound,            ///< The thing that was named is not there.
  kConflict,            ///< Somebody else was first: read again, then retry.
  kFailedPrecondition,  ///< The world must be changed first; the hint says how.
  kUnavailable,         ///< A source or target can't be reached now: retry later.
  kLocked,              ///< Another process holds it.
  kCorruption,          ///< Stored bytes are not what was written: stop, keep the files.
  kIo,                  ///< The operating system refused; a writer stays read-only until reopened.
  kNoSpace,             ///< The disk is full.
  kUnsupported,         ///< Made by a newer version, or by something we don't speak.
  kGone,                ///< It was there and is not kept any more: start anew, the hint says how.
  kCancelled,           ///< Asked to stop.
  kInternal,            ///< Our own bug.
};

/// The exit codes of every command, as documented in docs/cli.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitCorruption = 3;
inline constexpr int kExitUnavailable = 4;

std::string_view name_of(ErrorCode code);
int exit_code_for(ErrorCode code);

/// What happened, where, and what to do next. It gains context on its way up:
/// "open store ./store: read store.json: no such file".
class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  /// Puts `what` in front: what the caller was doing when this happened.
  Error&& context(std::string_view what) &&;
  /// What the user can do next, a full sentence. The first hint, nearest to the cause, stays.
  Error&& hint(std::string hint) &&;

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }
  /// Message and hint, ready for a terminal.
  std::string to_string() const;

  /// From errno: ENOSPC, EDQUOT and EFBIG become kNoSpace, ENOENT kNotFound, the rest kIo.
  static Error from_errno(int error_number, std::string_view what);

 private:
  ErrorCode code_;
  std::string message_;
  std::string hint_;
};

}  // namespace millrace
