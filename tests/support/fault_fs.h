#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"

namespace millrace::test {

/// What a power loss leaves of the changes that were not synced: of the 512-byte sectors, sizes and
/// names.
enum class CrashPolicy : std::uint8_t {
  kNothing,     ///< None of them.
  kEverything,  ///< All of them.
  kPrefix,      ///< What came before some moment, and sectors of the write at that moment.
  kSectors,     ///< Any sectors, each as it was at any moment; a prefix of sizes and of names.
  kReordered,   ///< Files and folders at moments of their own; any of the names.
  kNamesOnly,   ///< Names and sizes are there, the data is not: zeros.
  kDataOnly,    ///< The data is there, no name is.
  kGarbage,     ///< As kSectors, and one of the sectors that were being written holds noise.
  kStale,       ///< As kNamesOnly, but new space holds bytes of other files in place of zeros.
};
inline constexpr int kCrashPolicies = 9;

/// How a sync of a file fails.
enum class SyncFailure : std::uint8_t {
  kNewStays,    ///< Error; reads show what was written, but it will never be.
  kOldReturns,  ///< Error; reads show what was there before.
  kLate,        ///< Success, though nothing was written nor will be; the next sync gives the error.
  kLie,         ///< Success, though the disk only has it in its memory; a later sync writes it.
};

/// A file system in memory that remembers what was synced, and fails, dies and forgets on demand.
/// Threads: any. With one thread at a time, what happens depends on the calls alone.
class FaultFs final : public FileSystem {
 public:
  static constexpr std::size_t kSector = 512;

  FaultFs();

  // --- faults: operations that change or sync something are counted from 1
  // -------------------------

  /// The operation number `number` from now on fails with `code`, once. A write leaves half of its
  /// sectors.
  void fail_at(std::uint64_t number, ErrorCode code);
  /// Like fail_at, but counts only syncs of files.
  void fail_sync_at(std::uint64_t number, SyncFailure how = SyncFailure::kNewStays);
  /// Like fail_at, but counts only reads.
  void fail_read_at(std::uint64_t number);
  /// Files can grow by so many bytes; nothing: without end. A write fills what there is.
  void set_space_left(std::optional<std::uint64_t> bytes);
  /// From the operation number `number` from now on, every one fails: the machine is going down.
  void die_at(std::uint64_t number);
  void clear_faults();
  /// Hard links are not to be had (or are again).
  void allow_links(bool allowed);
  bool fault_was_hit() const;
  /// die_at's moment has come.
  bool is_down() const;
  /// Some sync gave success for what would not survive a power loss now.
  bool has_lied() const;
  /// How often a file showed older content, after a sync that failed with kOldReturns.
  std::uint64_t times_gone_back() const;
  std::uint64_t operations() const;
  /// Syncs asked of a file handle after a sync of it had failed.
  std::uint64_t syncs_after_failed_sync() const;
  std::uint64_t syncs() const;

  // --- crashes: open files and locks are gone, whoever had them
  // --------------------------------------

  /// Everybody who used the file system was killed; it lives on. Objects of the dead should be gone
  /// by then (with die_at before, so that they change nothing more): only their open files are cut
  /// off.
  void kill_processes();
  /// The same for the process that holds locks and files open for writing; readers live on.
  void kill_writer();
  /// The machine lost power and starts again.
  void lose_power(CrashPolicy policy, std::uint64_t seed);
  /// Without a seed all that was not synced is gone, with one a random part.
  void lose_power(std::optional<std::uint64_t> seed = std::nullopt) {
    lose_power(seed ? CrashPolicy::kSectors : CrashPolicy::kNothing, seed.value_or(0));
  }

  // --- looking at it and changing it from outside
  // ------------------------------------------------------

  std::string content(const Path& path) const;
  void set_content(const Path& path, std::string bytes);
  void erase(const Path& path);
  /// The folder with all that is in it, as if it had never been.
  void erase_tree(const Path& directory);
  std::vector<std::string> names(const Path& directory);
  /// Every file by its path.
  std::map<std::string, std::string> contents() const;
  /// A copy with the same files, all synced.
  std::unique_ptr<FaultFs> clone() const;
  /// Puts the files of `backup` in place of those that are here, all synced. Nobody has one open.
  void restore(const FaultFs& backup);

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override;
  Result<void> make_directory(const Path& path) override;
  Result<std::vector<std::string>> list(const Path& directory) override;
  Result<bool> exists(const Path& path) override;
  Result<void> rename(const Path& from, const Path& to) override;
  Result<void> link(const Path& from, const Path& to) override;
  Result<void> remove(const Path& path) override;
  Result<void> sync_directory(const Path& path) override;
  Result<std::unique_ptr<FileLock>> lock(const Path& path) override;
  Result<std::string> lock_holder(const Path& path) override;
  Result<std::unique_ptr<SharedWord>> shared_word(const Path& path,
                                                  std::uint64_t position) override;
  std::string boot_id() override;

 private:
  friend class FaultFile;
  friend class FaultLock;
  friend class FaultWord;

  /// Of one file, not yet synced.
  struct Change {
    std::uint64_t sequence = 0;
    std::uint64_t size = 0;  // of the file, behind it
    bool cuts = false;
    std::size_t first_sector = 0;
    std::string bytes;  // the sectors that were touched, whole, behind it
  };
  struct Node {
    bool directory = false;
    std::uint64_t identity = 0;
    std::string current, durable;
    std::vector<Change> changes;
    bool lied = false;     // what a sync called durable is not
    std::string promised;  // then: the content that it was called durable for
    bool late_error = false;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;
  struct NameChange {
    std::uint64_t sequence = 0;
    std::string directory;
    std::function<void(Names&)> apply;
  };
  struct Crash;

  Result<void> operation(std::string_view what, bool is_sync = false);
  bool is_dying() const;
  Result<void> take_space(std::uint64_t bytes);
  void change_names(const std::string& directory, std::function<void(Names&)> apply);
  std::shared_ptr<Node> new_node(bool directory);
  void restart();
  void restore(const Names& names);

  mutable std::mutex mutex_;
  std::condition_variable written_;
  Names names_, durable_names_;
  std::vector<NameChange> name_changes_;
  std::map<std::string, std::string> locks_;  // held, by path
  std::uint64_t life_ = 0, writer_life_ = 0;  // handles of an older one are dead
  std::uint64_t boot_ = 0;
  bool links_ = true;
  std::uint64_t next_identity_ = 1;
  std::uint64_t sequence_ = 0;
  std::uint64_t operations_ = 0, syncs_ = 0, reads_ = 0, syncs_after_failure_ = 0,
                times_gone_back_ = 0;
  std::uint64_t fail_at_ = 0, fail_sync_at_ = 0, fail_read_at_ = 0, die_at_ = 0;
  std::optional<std::uint64_t> space_left_;
  ErrorCode fail_code_ = ErrorCode::kIo;
  SyncFailure sync_failure_ = SyncFailure::kNewStays;
  bool hit_ = false;
};

}  // namespace millrace::test
