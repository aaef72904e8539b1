#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/file.h"
#include "base/result.h"
#include "schemas/lsn.h"

namespace millrace {

/// A set of transaction numbers, a bit for each: those of one transaction's parts lie close
/// together, and there may be millions.
class XidSet {
 public:
  void insert(std::uint32_t xid) { pages_[xid / kPage].set(xid % kPage); }
  bool contains(std::uint32_t xid) const {
    const auto page = pages_.find(xid / kPage);
    return page != pages_.end() && page->second.test(xid % kPage);
  }
  bool empty() const { return pages_.empty(); }

 private:
  static constexpr std::uint32_t kPage = 512;
  std::unordered_map<std::uint32_t, std::bitset<kPage>> pages_;
};

/// What streamed transactions have brought so far, in a file each, until they commit or abort.
///
/// The files are never synced: after a crash the server sends again what was not committed, so what
/// an earlier process left is removed, unread. Whatever the number of transactions, one file is
/// open for writing and one for reading, with a buffer each; in memory remains how long each file
/// is, and which parts (subtransactions) were rolled back: a bit each.
///
/// Errors: kNoSpace, kIo, and kCorruption for blocks that do not fit what came before and for a
/// file that does not read back as it was written (every frame has a checksum). After an error
/// clear() is what is left to do. Threads: one.
class TransactionSpill {
 public:
  /// A kept message. `bytes` live until the next call.
  struct Message {
    std::uint64_t number = 0;  ///< As it was given by add().
    Lsn wal_start;
    std::string_view bytes;
  };

  /// Removes leftovers. `directory` is made when the first transaction needs it; nobody else may
  /// have files in it.
  static Result<std::unique_ptr<TransactionSpill>> open(const Path& directory, FileSystem& files);
  /// Removes the files, if it can.
  ~TransactionSpill();
  TransactionSpill(const TransactionSpill&) = delete;
  TransactionSpill& operator=(const TransactionSpill&) = delete;

  /// What is added now belongs to transaction `xid`; `first`: which begins with it.
  Result<void> start_block(std::uint32_t xid, bool first);
  /// `part`: the (sub)transaction within it.
  Result<void> add(std::uint32_t part, Lsn wal_start, std::string_view bytes);
  Result<void> end_block();
  bool in_block() const { return writing_.has_value(); }
  bool has(std::uint32_t xid) const { return kept_.contains(xid); }
  /// What `part` brought to `xid`, which is kept, shall not be read.
  void leave_out(std::uint32_t xid, std::uint32_t part);
  Result<void> drop(std::uint32_t xid);
  /// Drops all.
  Result<void> clear();

  /// Gives the next number of the row that add() numbers messages from, so that what is not kept
  /// has its place among them.
  std::uint64_t take_number() { return next_number_++; }

  /// Begins reading what was kept of `xid`, which is; one at a time.
  Result<void> start_reading(std::uint32_t xid);
  /// In the order in which it came, without the parts left out; nothing at its end.
  Result<std::optional<Message>> next();

  std::size_t transactions() const { return kept_.size(); }
  /// The disk had no room for what was to be kept, since the last clear().
  bool ran_full() const { return ran_full_; }

 private:
  struct Kept {
    std::uint64_t end = 0;  // bytes in its file
    XidSet left_out;
  };
  struct Reader {
    std::uint32_t xid = 0;
    std::unique_ptr<File> file;
    std::uint64_t position = 0;  // of the next frame
    std::string frame;
    std::size_t at = 0;  // in `frame`
    std::uint64_t number = 0;
  };

  TransactionSpill(Path directory, FileSystem& files)
      : directory_(std::move(directory)), files_(files) {}

  Path path_of(std::uint32_t xid) const;
  Error not_kept(std::uint32_t xid, Error error);
  Result<void> remove_leftovers();
  Result<void> write_frame();
  Result<bool> read_frame(const Kept& kept);

  const Path directory_;
  FileSystem& files_;
  bool directory_made_ = false, ran_full_ = false;
  std::map<std::uint32_t, Kept> kept_;
  std::optional<std::uint32_t> writing_;  // whose block is open
  std::unique_ptr<File> file_;            // of file_xid_; stays open until another one is written
  std::uint32_t file_xid_ = 0;
  std::string frame_;  // room for the head, then messages
  std::uint64_t next_number_ = 0, frame_number_ = 0;
  std::optional<Reader> reader_;
};

}  // namespace millrace
