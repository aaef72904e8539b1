#include "eventstore/stream_snapshots.h"

#include <spdlog/spdlog.h>

#include "base/bytes.h"
#include "base/checksum.h"

namespace millrace {
namespace {

constexpr std::string_view kMagic("MRSNAP1\0", 8);
constexpr std::size_t kChecksumBytes = 8;
constexpr std::uint64_t kFileBytesMax = 1 << 30;
constexpr std::string_view kSuffix = ".snapshot";
/// Of what write_file_atomically() has not finished.
constexpr std::string_view kTemporarySuffix = ".tmp";

// SNAPSHOT = "MRSNAP1" NUL, 16 bytes store id, u64 version, u64 offset, u64 fingerprint,
//            bytes category, bytes key, bytes state, u64 XXH3-64 of all before
// bytes    = u64 size, that many bytes
std::string encode(const StoreId& id, const StreamName& stream, const StreamSnapshot& snapshot) {
  std::string out(kMagic);
  out.append(id.bytes.data(), id.bytes.size());
  append_le<std::uint64_t>(out, snapshot.version);
  append_le<std::uint64_t>(out, snapshot.offset.value);
  append_le<std::uint64_t>(out, snapshot.fingerprint);
  for (const std::string_view bytes :
       {stream.category, stream.key, std::string_view(snapshot.state)}) {
    append_le<std::uint64_t>(out, bytes.size());
    out += bytes;
  }
  append_le<std::uint64_t>(out, checksum(out));
  return out;
}

/// Nothing if it is damaged, or another stream's or store's.
std::optional<StreamSnapshot> decode(std::string_view bytes, const StoreId& id,
                                     const StreamName& stream) {
  if (bytes.size() < kChecksumBytes) return std::nullopt;
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (load_le<std::uint64_t>(bytes.data() + body.size()) != checksum(body)) return std::nullopt;
  ByteReader in(body);
  const bool ours = in.bytes(kMagic.size()) == kMagic &&
                    in.bytes(id.bytes.size()) == std::string_view(id.bytes.data(), id.bytes.size());
  StreamSnapshot snapshot;
  snapshot.version = in.u64_le();
  snapshot.offset = {in.u64_le()};
  snapshot.fingerprint = in.u64_le();
  const std::string_view category = in.bytes(in.u64_le());
  const std::string_view key = in.bytes(in.u64_le());
  snapshot.state = in.bytes(in.u64_le());
  if (!ours || in.failed() || in.remaining() != 0 || category != stream.category ||
      key != stream.key)
    return std::nullopt;
  return snapshot;
}

}  // namespace

std::uint64_t snapshot_fingerprint(std::string_view category, std::string_view fold) {
  return checksum(fold, checksum(category));
}

/// A name never becomes a path: it is hashed. Should two streams meet in one file, the last one
/// that was saved has it.
Path StreamSnapshots::path_of(const StreamName& stream) const {
  std::string name(stream.category);
  name += '\0';
  name += stream.key;
  std::string hash;
  append_be<std::uint64_t>(hash, checksum(name, 0));
  append_be<std::uint64_t>(hash, checksum(name, 1));
  return folder() / (to_hex(hash) + std::string(kSuffix));
}

Result<void> StreamSnapshots::save(const StreamName& stream, const StreamSnapshot& snapshot) const {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files_->exists(folder()));
  if (!there) {
    MILLRACE_RETURN_IF_ERROR(files_->make_directory(folder()));
    MILLRACE_RETURN_IF_ERROR(files_->sync_directory(store_));
  }
  return write_file_atomically(*files_, path_of(stream), encode(id_, stream, snapshot));
}

Result<std::optional<StreamSnapshot>> StreamSnapshots::load(const StreamName& stream,
                                                            std::uint64_t fingerprint) const {
  const Path path = path_of(stream);
  const auto bytes = read_file(*files_, path, kFileBytesMax);
  std::optional<StreamSnapshot> none;
  if (!bytes) {
    if (bytes.error().code() == ErrorCode::kNotFound) return none;
    if (bytes.error().code() != ErrorCode::kCorruption) return bytes.error();
  }
  auto snapshot = bytes ? decode(*bytes, id_, stream) : none;
  if (!snapshot) {
    spdlog::warn("{} is no snapshot of its stream: it is not used", path.string());
    return none;
  }
  if (snapshot->fingerprint != fingerprint) return none;
  return snapshot;
}

Result<void> StreamSnapshots::remove(const StreamName& stream) const {
  const Path path = path_of(stream);
  bool removed = false;
  for (const Path& file : {path, Path(path.string() + std::string(kTemporarySuffix))}) {
    MILLRACE_ASSIGN_OR_RETURN(const bool there, files_->exists(file));
    if (there) MILLRACE_RETURN_IF_ERROR(remove_file(file));
    removed = removed || there;
  }
  return removed ? files_->sync_directory(folder()) : Result<void>{};
}

Result<void> StreamSnapshots::remove_leftovers() const {
  MILLRACE_ASSIGN_OR_RETURN(const bool any, files_->exists(folder()));
  if (!any) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files_->list(folder()));
  bool removed = false;
  for (const std::string& name : names) {
    if (!name.ends_with(std::string(kSuffix) + std::string(kTemporarySuffix))) continue;
    MILLRACE_RETURN_IF_ERROR(remove_file(folder() / name));
    removed = true;
  }
  return removed ? files_->sync_directory(folder()) : Result<void>{};
}

/// Whoever saves or erases beside this one may have been faster.
Result<void> StreamSnapshots::remove_file(const Path& file) const {
  auto removed = files_->remove(file);
  if (!removed && removed.error().code() != ErrorCode::kNotFound) return removed;
  return {};
}

}  // namespace millrace
