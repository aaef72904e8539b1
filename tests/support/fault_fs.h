#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"

namespace millrace::test {

/// A file system in memory that remembers what was synced, and fails, dies and forgets on demand.
///
/// What a power loss takes back: any of the 512-byte sectors written since the file's last sync,
/// its size, and any tail of the creations, renames and removals since the directory's last sync. A
/// failed sync drops what it should have written, yet reads still show it (as Linux does). Threads:
/// any.
class FaultFs final : public FileSystem {
 public:
  FaultFs();

  // --- faults: operations that change or sync something are counted from 1
  // -------------------------

  /// The operation number `number` from now on fails with `code`, once. A write leaves half of its
  /// sectors.
  void fail_at(std::uint64_t number, ErrorCode code);
  /// Like fail_at, but counts only syncs of files.
  void fail_sync_at(std::uint64_t number);
  /// From the operation number `number` from now on, every one fails: the machine is going down.
  void die_at(std::uint64_t number);
  void clear_faults();
  bool fault_was_hit() const;
  /// Syncs asked of a file handle after a sync of it had failed.
  std::uint64_t syncs_after_failed_sync() const;
  std::uint64_t syncs() const;

  // --- crashes: open files and locks are gone, whoever had them
  // --------------------------------------

  /// Everybody who used the file system was killed; it lives on. Objects of the dead should be gone
  /// by then (with die_at before, so that they change nothing more): only their open files are cut
  /// off.
  void kill_processes();
  /// The machine lost power and starts again. Without a seed all that was not synced is gone, with
  /// one a random part.
  void lose_power(std::optional<std::uint64_t> seed = std::nullopt);

  // --- looking at it and changing it from outside
  // ------------------------------------------------------

  std::string content(const Path& path) const;
  void set_content(const Path& path, std::string bytes);
  void erase(const Path& path);
  std::vector<std::string> names(const Path& directory);
  /// A copy with the same files, all synced.
  std::unique_ptr<FaultFs> clone() const;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override;
  Result<void> make_directory(const Path& path) override;
  Result<std::vector<std::string>> list(const Path& directory) override;
  Result<bool> exists(const Path& path) override;
  Result<void> rename(const Path& from, const Path& to) override;
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

  struct Node {
    bool directory = false;
    std::uint64_t identity = 0;
    std::string current, durable;
    std::set<std::size_t> dirty;  // sectors
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;
  struct NameChange {
    std::string directory;
    std::function<void(Names&)> apply;
  };

  Result<void> operation(std::string_view what, bool is_sync = false);
  void change_names(const std::string& directory, std::function<void(Names&)> apply);
  std::shared_ptr<Node> new_node(bool directory);
  void restart();

  mutable std::mutex mutex_;
  std::condition_variable written_;
  Names names_, durable_names_;
  std::vector<NameChange> name_changes_;
  std::map<std::string, std::string> locks_;  // held, by path
  std::uint64_t life_ = 0;                    // handles of an older one are dead
  std::uint64_t boot_ = 0;
  std::uint64_t next_identity_ = 1;
  std::uint64_t operations_ = 0, syncs_ = 0, syncs_after_failure_ = 0;
  std::uint64_t fail_at_ = 0, fail_sync_at_ = 0, die_at_ = 0;
  ErrorCode fail_code_ = ErrorCode::kIo;
  bool hit_ = false;
};

}  // namespace millrace::test
