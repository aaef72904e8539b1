#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>

#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "eventstore/log/format.h"
#include "eventstore/log/store_files.h"

// HEAD: a small file in which the writer says how far the log is durable, so that readers in other
// processes need not look, and on whose first word they sleep until it changes.
//
// It is written in one piece with its own checksum and read the same way: what is torn by a write
// at the same moment is read again. It is synced only when a writer starts and when it ends, so
// after a power loss it may be an older one. A reader takes it for the end only if it was written
// since the machine started, in this very file, for this store. An older one still is a lower
// bound: what it calls synced was synced before, and whatever became of the machine, it is there.
// (With Durability::kOs what it calls durable reaches further, and need not be.)
//
// It also says when a segment was last replaced by a new generation: a file that is open lives on
// without its name, with what was taken out of it, until nobody has it open. So whoever keeps
// segments open looks here before he uses them again.
namespace millrace::log {

inline constexpr std::size_t kHeadBytes = 256;

/// What the file holds.
struct PublishedHead {
  std::uint32_t sequence = 0;
  StoreId store{};
  std::uint64_t boot = 0;      ///< When and ...
  std::uint64_t identity = 0;  ///< ... where it was written.
  LogMark durable{};
  Durability durability = Durability::kGroup;
  LogMark synced{};  ///< `end`, `segment` and `position` only.
  /// The sequence of the write that told of the last swap of a segment, or of the writer's start;
  /// 0: not told.
  std::uint32_t swapped = 0;
  bool operator==(const PublishedHead&) const = default;
};

/// Fills `kHeadBytes` at `to`.
void encode_head(const PublishedHead& head, char* to);
/// Nothing if it is torn, or no HEAD.
std::optional<PublishedHead> decode_head(std::string_view bytes);

/// Publishes the durable end; the writer has one. Threads: any.
class HeadWriter {
 public:
  /// Makes HEAD or takes the one that is there, in place: readers that sleep on it go on.
  static Result<HeadWriter> open(FileSystem& files, const StorePaths& paths, const StoreId& store,
                                 Durability durability);

  /// `durable` is for readers, `synced` for recovery. Errors: as File::write_at.
  Result<void> publish(const LogMark& durable, const LogMark& synced);
  /// Tells that a segment was, or may have been, replaced. Should it fail, the next write tells.
  Result<void> publish_swap();
  /// Makes what was published survive a power loss.
  Result<void> sync() { return file_->sync(); }

 private:
  Result<void> write() MILLRACE_REQUIRES(*mutex_);

  std::unique_ptr<File> file_;
  std::unique_ptr<SharedWord> word_;
  StoreId store_;
  Durability durability_ = Durability::kGroup;
  std::uint64_t boot_ = 0;
  std::uint64_t identity_ = 0;
  std::unique_ptr<Mutex> mutex_ = std::make_unique<Mutex>();  // so that it can be moved
  LogMark durable_ MILLRACE_GUARDED_BY(*mutex_), synced_ MILLRACE_GUARDED_BY(*mutex_);
  std::uint32_t sequence_ MILLRACE_GUARDED_BY(*mutex_) = 0;
  std::uint32_t swapped_ MILLRACE_GUARDED_BY(*mutex_) = 0;
};

/// What HEAD says, if it can be trusted.
struct HeadView {
  std::uint32_t sequence = 0;        ///< The word to sleep on.
  std::optional<LogMark> durable{};  ///< Nothing: find the end by reading the log.
  /// What was synced, also before the machine started: the log ends here or further on. Tells
  /// `end`, `segment` and `position` only.
  std::optional<LogMark> at_least{};
  /// That of the last writer.
  std::optional<Durability> durability{};
  /// While this stays the same, no segment was replaced. Nothing: it is not known.
  struct SwapMark {
    std::uint64_t identity = 0;  ///< Of HEAD.
    std::uint32_t sequence = 0;
    bool operator==(const SwapMark&) const = default;
  };
  std::optional<SwapMark> swapped{};
};

class HeadReader {
 public:
  HeadReader(FileSystem& files, StorePaths paths, const StoreId& store);

  /// Errors: kIo. A HEAD that is missing or can't be trusted is no error.
  Result<HeadView> read();
  /// Sleeps while the word is `sequence`, at most `timeout` or until `stop` is asked. Wakes early
  /// at times, at the latest after a second, for the file may have been replaced.
  void wait(std::uint32_t sequence, std::chrono::nanoseconds timeout, const std::stop_token& stop);

 private:
  Result<void> reopen();

  FileSystem& files_;
  StorePaths paths_;
  StoreId store_;
  std::uint64_t boot_;
  std::unique_ptr<File> file_;
  std::unique_ptr<SharedWord> word_;
  std::uint64_t identity_ = 0;
  std::chrono::steady_clock::time_point opened_at_{};
};

}  // namespace millrace::log
