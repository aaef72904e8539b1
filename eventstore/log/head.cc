#include "eventstore/log/head.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/bytes.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

// clang-format off
// HEAD, 256 bytes:
//     0  u32 sequence, the futex word: changes with every write
//     4  "MRHEAD1\0"                12  u32 zero
//    16  16 bytes store id          32  u64 XXH3-64 of the boot id
//    40  u64 inode of this file
//    48  u64 durable end offset
//    56  u64 segment and            64  u64 byte of it
//    72  u32 epoch                  80  u64 commit               88  u64 end: durable source position
//    96  i64 commit time           104  u8 durability of the writer: 0 group, 1 always, 2 os
//   112  u64 synced end offset
//   120  u64 segment and           128  u64 byte of it
//   136  u32 sequence of the write that told of the last swap of a segment, or of the start
//   140  zeros                     248  u64 XXH3-64 of all before
// clang-format on
constexpr std::size_t kChecksumAt = 248;
constexpr std::string_view kMagic("MRHEAD1\0", 8);
constexpr int kTornReadsMax = 100;
constexpr std::chrono::nanoseconds kUntrustedPoll = std::chrono::milliseconds(20);
constexpr std::chrono::nanoseconds kTrustedPoll = std::chrono::seconds(1);

}  // namespace

void encode_head(const PublishedHead& head, char* to) {
  const LogMark& durable = head.durable;
  std::memset(to, 0, kHeadBytes);
  store_le<std::uint32_t>(to, head.sequence);
  std::memcpy(to + 4, kMagic.data(), kMagic.size());
  std::memcpy(to + 16, head.store.bytes.data(), head.store.bytes.size());
  store_le<std::uint64_t>(to + 32, head.boot);
  store_le<std::uint64_t>(to + 40, head.identity);
  store_le<std::uint64_t>(to + 48, durable.end.value);
  store_le<std::uint64_t>(to + 56, durable.segment);
  store_le<std::uint64_t>(to + 64, durable.position);
  store_le<std::uint32_t>(to + 72, durable.source.epoch);
  store_le<std::uint64_t>(to + 80, durable.source.commit);
  store_le<std::uint64_t>(to + 88, durable.source.end);
  store_le<std::uint64_t>(to + 96, static_cast<std::uint64_t>(durable.commit_time.value));
  to[104] = static_cast<char>(head.durability);
  store_le<std::uint64_t>(to + 112, head.synced.end.value);
  store_le<std::uint64_t>(to + 120, head.synced.segment);
  store_le<std::uint64_t>(to + 128, head.synced.position);
  store_le<std::uint32_t>(to + 136, head.swapped);
  store_le<std::uint64_t>(to + kChecksumAt, checksum({to, kChecksumAt}));
}

std::optional<PublishedHead> decode_head(std::string_view bytes) {
  if (bytes.size() < kHeadBytes || bytes.substr(4, kMagic.size()) != kMagic) return std::nullopt;
  const char* from = bytes.data();
  if (load_le<std::uint64_t>(from + kChecksumAt) != checksum({from, kChecksumAt}))
    return std::nullopt;
  if (static_cast<std::uint8_t>(from[104]) > static_cast<std::uint8_t>(Durability::kOs))
    return std::nullopt;
  PublishedHead head{
      .sequence = load_le<std::uint32_t>(from),
      .store = {},
      .boot = load_le<std::uint64_t>(from + 32),
      .identity = load_le<std::uint64_t>(from + 40),
      .durable = {.end = {load_le<std::uint64_t>(from + 48)},
                  .segment = load_le<std::uint64_t>(from + 56),
                  .position = load_le<std::uint64_t>(from + 64),
                  .source = {.epoch = load_le<std::uint32_t>(from + 72),
                             .commit = load_le<std::uint64_t>(from + 80),
                             .end = load_le<std::uint64_t>(from + 88)},
                  .commit_time = {static_cast<std::int64_t>(load_le<std::uint64_t>(from + 96))}},
      .durability = static_cast<Durability>(from[104]),
      .synced = {.end = {load_le<std::uint64_t>(from + 112)},
                 .segment = load_le<std::uint64_t>(from + 120),
                 .position = load_le<std::uint64_t>(from + 128),
                 .source = {},
                 .commit_time = {}},
      .swapped = load_le<std::uint32_t>(from + 136)};
  std::memcpy(head.store.bytes.data(), from + 16, head.store.bytes.size());
  return head;
}

Result<HeadWriter> HeadWriter::open(FileSystem& files, const StorePaths& paths,
                                    const StoreId& store, Durability durability) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(paths.head()));
  HeadWriter head;
  MILLRACE_ASSIGN_OR_RETURN(
      head.file_, files.open(paths.head(), there ? OpenMode::kReadWrite : OpenMode::kCreate));
  MILLRACE_ASSIGN_OR_RETURN(head.identity_, head.file_->identity());
  char word[4] = {};
  MILLRACE_RETURN_IF_ERROR(head.file_->read_at(0, word));
  {
    MutexLock lock(*head.mutex_);
    head.sequence_ = load_le<std::uint32_t>(word);
  }
  MILLRACE_RETURN_IF_ERROR(head.file_->truncate(kHeadBytes));
  MILLRACE_ASSIGN_OR_RETURN(head.word_, files.shared_word(paths.head(), 0));
  head.store_ = store;
  head.durability_ = durability;
  head.boot_ = checksum(files.boot_id());
  return head;
}

Result<void> HeadWriter::publish(const LogMark& durable, const LogMark& synced) {
  MutexLock lock(*mutex_);
  durable_ = durable;
  synced_ = synced;
  return write();
}

Result<void> HeadWriter::publish_swap() {
  MutexLock lock(*mutex_);
  swapped_ = sequence_ + 1;
  return write();
}

Result<void> HeadWriter::write() {
  ++sequence_;
  // The writer before may have died between a swap and telling of it.
  if (swapped_ == 0) swapped_ = sequence_;
  char bytes[kHeadBytes];
  encode_head({.sequence = sequence_,
               .store = store_,
               .boot = boot_,
               .identity = identity_,
               .durable = durable_,
               .durability = durability_,
               .synced = synced_,
               .swapped = swapped_},
              bytes);
  MILLRACE_RETURN_IF_ERROR(file_->write_at(0, {bytes, sizeof bytes}));
  word_->wake_all();
  return {};
}

HeadReader::HeadReader(FileSystem& files, StorePaths paths, const StoreId& store)
    : files_(files), paths_(std::move(paths)), store_(store), boot_(checksum(files.boot_id())) {}

Result<void> HeadReader::reopen() {
  opened_at_ = std::chrono::steady_clock::now();
  auto file = files_.open(paths_.head(), OpenMode::kRead);
  if (!file) {
    // Whoever removed it, the writer goes on with the file that is open here as well.
    if (file_ || file.error().code() == ErrorCode::kNotFound) return {};
    return std::move(file).error();
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t identity, (*file)->identity());
  if (file_ && identity == identity_) return {};
  file_ = *std::move(file);
  identity_ = identity;
  MILLRACE_ASSIGN_OR_RETURN(word_, files_.shared_word(paths_.head(), 0));
  return {};
}

Result<HeadView> HeadReader::read() {
  if (!file_ || std::chrono::steady_clock::now() - opened_at_ >= kTrustedPoll)
    MILLRACE_RETURN_IF_ERROR(reopen());
  if (!file_) return HeadView{};
  char bytes[kHeadBytes];
  for (int attempt = 0; attempt < kTornReadsMax; ++attempt) {
    MILLRACE_ASSIGN_OR_RETURN(const std::size_t size, file_->read_at(0, bytes));
    if (size < kHeadBytes) return HeadView{};
    if (const auto head = decode_head({bytes, sizeof bytes})) {
      HeadView view{.sequence = head->sequence};
      if (head->store != store_ || head->identity != identity_) return view;
      view.at_least = head->synced;
      view.durability = head->durability;
      if (head->boot != boot_) return view;
      view.durable = head->durable;
      if (head->swapped != 0) view.swapped = {.identity = identity_, .sequence = head->swapped};
      return view;
    }
    std::this_thread::yield();
  }
  return HeadView{.sequence = load_le<std::uint32_t>(bytes)};
}

void HeadReader::wait(std::uint32_t sequence, std::chrono::nanoseconds timeout,
                      const std::stop_token& stop) {
  if (!word_) return std::this_thread::sleep_for(std::min(timeout, kUntrustedPoll));
  // A wake that comes just before we sleep is lost, so the one who stops us wakes until we are up.
  std::atomic<bool> up = false;
  const std::thread::id sleeper = std::this_thread::get_id();
  const std::stop_callback wake(stop, [&] {
    while (!up && std::this_thread::get_id() != sleeper) {
      word_->wake_all();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  if (!stop.stop_requested()) word_->wait(sequence, std::min(timeout, kTrustedPoll));
  up = true;
}

}  // namespace millrace::log
