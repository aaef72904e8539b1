#include "capture/pipeline/transaction_spill.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"

// clang-format off
// A file, little-endian; it is read by the process that wrote it, never by another one.
//
//   file     frame *
//   frame    u32(size of the body) u64(number of its first message) u64(checksum of the body, seeded with that number) body
//   body     message *
//   message  u32(part) u64(wal_start) u32(size) bytes
// clang-format on
namespace millrace {
namespace {

constexpr std::string_view kSuffix = ".spill";
constexpr std::size_t kFrameHead = 4 + 8 + 8;
constexpr std::size_t kMessageHead = 4 + 8 + 4;
/// A frame that has become so large is written; only a single large message makes one larger.
constexpr std::size_t kFrameBytes = 256 << 10;
constexpr std::size_t kKeptBytesMax = 1 << 20;  // a buffer beyond it is given back
/// libpq hands over none that is larger.
constexpr std::size_t kMessageBytesMax = 0x7FFF'FFFF;
/// Two for every backend that PostgreSQL can have (262,143), for each may have prepared one.
constexpr std::size_t kTransactionsMax = 1 << 19;

void give_back(std::string& buffer) {
  if (buffer.capacity() > kKeptBytesMax) std::string().swap(buffer);
}

std::string name_of(std::uint32_t xid) { return "transaction " + std::to_string(xid); }

}  // namespace

Result<std::unique_ptr<TransactionSpill>> TransactionSpill::open(const Path& directory,
                                                                 FileSystem& files) {
  std::unique_ptr<TransactionSpill> spill(new TransactionSpill(directory, files));
  if (auto removed = spill->remove_leftovers(); !removed)
    return std::move(removed).error().context("remove what is left in " + directory.string());
  return spill;
}

TransactionSpill::~TransactionSpill() {
  if (auto cleared = clear(); !cleared)
    spdlog::warn("{}; the next start removes it", printable(cleared.error().message()));
}

Path TransactionSpill::path_of(std::uint32_t xid) const {
  return directory_ / (std::to_string(xid) + std::string(kSuffix));
}

Error TransactionSpill::not_kept(std::uint32_t xid, Error error) {
  ran_full_ = ran_full_ || error.code() == ErrorCode::kNoSpace;
  return std::move(error).context("keep " + name_of(xid) + " in " + path_of(xid).string());
}

Result<void> TransactionSpill::remove_leftovers() {
  MILLRACE_ASSIGN_OR_RETURN(directory_made_, files_.exists(directory_));
  if (!directory_made_) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files_.list(directory_));
  for (const std::string& name : names)
    if (name.ends_with(kSuffix)) MILLRACE_RETURN_IF_ERROR(files_.remove(directory_ / name));
  return {};
}

Result<void> TransactionSpill::start_block(std::uint32_t xid, bool first) {
  if (writing_)
    return Error(ErrorCode::kCorruption,
                 "a stream block of " + name_of(xid) + " in one of " + name_of(*writing_));
  if (first == has(xid))
    return Error(ErrorCode::kCorruption,
                 first ? name_of(xid) + " begins a second time"
                       : "a stream block of " + name_of(xid) + ", whose beginning never came");
  if (first && kept_.size() >= kTransactionsMax)
    return Error(ErrorCode::kCorruption, "more transactions in progress than PostgreSQL can have");
  if (first && !directory_made_) {
    if (auto made = files_.make_directory(directory_); !made)
      return not_kept(xid, std::move(made).error());
    directory_made_ = true;
  }
  if (first || file_ == nullptr || file_xid_ != xid) {
    file_.reset();
    auto file = files_.open(path_of(xid), first ? OpenMode::kCreate : OpenMode::kReadWrite);
    if (!file) return not_kept(xid, std::move(file).error());
    file_ = *std::move(file);
    file_xid_ = xid;
  }
  if (first) kept_.try_emplace(xid);
  writing_ = xid;
  frame_.assign(kFrameHead, '\0');
  return {};
}

Result<void> TransactionSpill::add(std::uint32_t part, Lsn wal_start, std::string_view bytes) {
  MILLRACE_CHECK(writing_);
  if (bytes.size() > kMessageBytesMax)
    return Error(ErrorCode::kUnsupported,
                 "a message of " + std::to_string(bytes.size()) + " bytes");
  if (frame_.size() == kFrameHead) frame_number_ = next_number_;
  ++next_number_;
  append_le<std::uint32_t>(frame_, part);
  append_le<std::uint64_t>(frame_, wal_start.value);
  append_le<std::uint32_t>(frame_, static_cast<std::uint32_t>(bytes.size()));
  frame_ += bytes;
  return frame_.size() < kFrameBytes ? Result<void>{} : write_frame();
}

Result<void> TransactionSpill::write_frame() {
  if (frame_.size() == kFrameHead) return {};
  const std::string_view body = std::string_view(frame_).substr(kFrameHead);
  store_le<std::uint32_t>(frame_.data(), static_cast<std::uint32_t>(body.size()));
  store_le<std::uint64_t>(frame_.data() + 4, frame_number_);
  store_le<std::uint64_t>(frame_.data() + 12, checksum(body, frame_number_));
  Kept& kept = kept_.at(*writing_);
  if (auto written = file_->write_at(kept.end, frame_); !written)
    return not_kept(*writing_, std::move(written).error());
  kept.end += frame_.size();
  frame_.resize(kFrameHead);
  if (frame_.capacity() > kKeptBytesMax) frame_ = std::string(kFrameHead, '\0');
  return {};
}

Result<void> TransactionSpill::end_block() {
  MILLRACE_CHECK(writing_);
  MILLRACE_RETURN_IF_ERROR(write_frame());
  writing_.reset();
  return {};
}

void TransactionSpill::leave_out(std::uint32_t xid, std::uint32_t part) {
  kept_.at(xid).left_out.insert(part);
}

Result<void> TransactionSpill::drop(std::uint32_t xid) {
  MILLRACE_CHECK(has(xid));
  if (file_xid_ == xid) file_.reset();
  if (reader_ && reader_->xid == xid) reader_.reset();
  if (writing_ == xid) writing_.reset();
  if (auto removed = files_.remove(path_of(xid));
      !removed && removed.error().code() != ErrorCode::kNotFound)
    return std::move(removed).error().context("drop " + name_of(xid));
  kept_.erase(xid);
  return {};
}

Result<void> TransactionSpill::clear() {
  Result<void> outcome;
  directory_made_ = ran_full_ = false;  // somebody may have removed it
  for (auto next = kept_.begin(); next != kept_.end();) {
    const std::uint32_t xid = (next++)->first;
    if (auto dropped = drop(xid); !dropped && outcome) outcome = std::move(dropped);
  }
  return outcome;
}

Result<void> TransactionSpill::start_reading(std::uint32_t xid) {
  MILLRACE_CHECK(has(xid) && !writing_);
  auto file = files_.open(path_of(xid), OpenMode::kRead);
  if (!file) return std::move(file).error().context("read " + name_of(xid));
  reader_.emplace();
  reader_->xid = xid;
  reader_->file = *std::move(file);
  return {};
}

Result<std::optional<TransactionSpill::Message>> TransactionSpill::next() {
  MILLRACE_CHECK(reader_);
  Reader& reader = *reader_;
  const Kept& kept = kept_.at(reader.xid);
  for (;;) {
    if (reader.at == reader.frame.size()) {
      auto more = read_frame(kept);
      if (!more)
        return std::move(more).error().context("read " + name_of(reader.xid) + " back from " +
                                               path_of(reader.xid).string());
      if (!*more) return std::optional<Message>();
    }
    // What has the checksum that we gave it is as we wrote it.
    ByteReader in(std::string_view(reader.frame).substr(reader.at));
    const std::uint32_t part = in.u32_le();
    Message message{.number = reader.number++, .wal_start = Lsn{in.u64_le()}, .bytes = {}};
    message.bytes = in.bytes(in.u32_le());
    MILLRACE_CHECK(!in.failed());
    reader.at += kMessageHead + message.bytes.size();
    if (kept.left_out.empty() || !kept.left_out.contains(part)) return message;
  }
}

/// The next frame of the file; false at its end.
Result<bool> TransactionSpill::read_frame(const Kept& kept) {
  const auto damaged = [&](const char* what) {
    return Error(ErrorCode::kCorruption,
                 std::string(what) + " at byte " + std::to_string(reader_->position))
        .hint("The source sends it again. Look after the disk.");
  };
  Reader& reader = *reader_;
  if (reader.position == kept.end) return false;
  char head[kFrameHead];
  MILLRACE_ASSIGN_OR_RETURN(std::size_t read, reader.file->read_at(reader.position, head));
  const std::uint64_t size = load_le<std::uint32_t>(head);
  if (read != kFrameHead || size > kept.end - reader.position - kFrameHead)
    return damaged("a frame that is not what was written");
  reader.number = load_le<std::uint64_t>(head + 4);
  reader.at = 0;
  reader.frame.clear();
  give_back(reader.frame);
  reader.frame.resize(size);
  MILLRACE_ASSIGN_OR_RETURN(read, reader.file->read_at(reader.position + kFrameHead, reader.frame));
  if (read != size || checksum(reader.frame, reader.number) != load_le<std::uint64_t>(head + 12))
    return damaged("a frame that is not what was written");
  reader.position += kFrameHead + size;
  return true;
}

}  // namespace millrace
