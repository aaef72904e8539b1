#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

// A writer reads its sealed segments again and again, slowly, so that a disk that forgets is found
// out while there is still a copy of what it forgot. How far it is, and what it has found, is in
// the small file `scrub.json` of the store. It only tells; nothing depends on it.
namespace millrace {

struct ScrubFault {
  std::string file;            ///< Within the store.
  std::uint64_t position = 0;  ///< Byte in it.
  std::string what;
  UnixMicros found;  ///< When, first.
};

struct ScrubReport {
  UnixMicros pass_began;                ///< Of the present pass, or the last one.
  Offset next;                          ///< Segments before this were read in it.
  std::optional<UnixMicros> completed;  ///< When a pass was last at its end.
  std::vector<ScrubFault> faults;       ///< The first one of each damaged segment.
};

/// Nothing if there is none, or none that can be read. Errors: kIo.
Result<std::optional<ScrubReport>> read_scrub_report(const Path& store,
                                                     FileSystem& files = FileSystem::real());
/// For the store's writer. Errors: kNoSpace, kIo.
Result<void> write_scrub_report(const Path& store, const ScrubReport& report, FileSystem& files);
/// What it says is not true any more. Errors: kIo.
Result<void> remove_scrub_report(const Path& store, FileSystem& files);

}  // namespace millrace
