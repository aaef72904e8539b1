#include "capture/state/spill_sorter.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

// A record in memory and in the file: u32(key size) u64(value size) u64(order) u8(replaces) key
// value. Nothing here outlives the process, so there is no checksum and no version.
namespace millrace {
namespace {

constexpr std::size_t kHeadBytes = 4 + 8 + 8 + 1;
constexpr std::size_t kBlockBytes = 64 << 10;
constexpr std::size_t kWriteBytes = 1 << 20;

std::size_t size_of(const char* head) {
  return kHeadBytes + load_le<std::uint32_t>(head) +
         static_cast<std::size_t>(load_le<std::uint64_t>(head + 4));
}

SpillSorter::Record record_at(const char* head) {
  const std::size_t key = load_le<std::uint32_t>(head);
  return {.key = {head + kHeadBytes, key},
          .order = load_le<std::uint64_t>(head + 12),
          .replaces = head[20] != 0,
          .value = {head + kHeadBytes + key,
                    static_cast<std::size_t>(load_le<std::uint64_t>(head + 4))}};
}

void append(std::string& out, const SpillSorter::Record& record) {
  append_le(out, static_cast<std::uint32_t>(record.key.size()));
  append_le(out, static_cast<std::uint64_t>(record.value.size()));
  append_le(out, record.order);
  out += static_cast<char>(record.replaces);
  out += record.key;
  out += record.value;
}

std::uint64_t prefix_of(std::string_view key) {
  char bytes[8] = {};
  key.copy(bytes, sizeof bytes);
  return load_be<std::uint64_t>(bytes);
}

bool is_less(const SpillSorter::Record& a, const SpillSorter::Record& b) {
  const int order = a.key.compare(b.key);
  return order != 0 ? order < 0 : a.order < b.order;
}

}  // namespace

/// Reads one run, a block at a time; a record larger than a block makes its buffer larger.
class SpillSorter::Cursor {
 public:
  Cursor(int file, const Run& run) : file_(file), run_(run) {}

  /// False behind the last.
  Result<bool> advance() {
    at_ += std::exchange(size_, 0);
    if (buffer_.size() - at_ < kHeadBytes) MILLRACE_RETURN_IF_ERROR(fill(kHeadBytes));
    if (buffer_.size() == at_) return false;
    const std::size_t size = size_of(buffer_.data() + at_);
    if (buffer_.size() - at_ < size) MILLRACE_RETURN_IF_ERROR(fill(size));
    if (buffer_.size() - at_ < size)
      return Error(ErrorCode::kIo, "a temporary file has become shorter");
    size_ = size;
    record_ = record_at(buffer_.data() + at_);
    return true;
  }
  const Record& record() const { return record_; }

 private:
  Result<void> fill(std::size_t wanted) {
    buffer_.erase(0, std::exchange(at_, 0));
    const std::size_t have = buffer_.size();
    const std::uint64_t left = run_.end - run_.at;
    const auto more = static_cast<std::size_t>(
        std::min<std::uint64_t>(left, std::max(wanted - std::min(wanted, have), kBlockBytes)));
    buffer_.resize(have + more);
    for (std::size_t done = 0; done < more;) {
      const ssize_t count =
          ::pread(file_, buffer_.data() + have + done, more - done, static_cast<off_t>(run_.at));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Error::from_errno(errno, "read a temporary file");
      if (count == 0) return Error(ErrorCode::kIo, "a temporary file has become shorter");
      done += static_cast<std::size_t>(count);
      run_.at += static_cast<std::uint64_t>(count);
    }
    return {};
  }

  int file_;
  Run run_;
  std::string buffer_;
  std::size_t at_ = 0, size_ = 0;
  Record record_;
};

/// Appends one run to the file.
class SpillSorter::Writer {
 public:
  explicit Writer(SpillSorter& sorter) : sorter_(sorter), start_(sorter.file_end_) {}

  Result<void> add(const Record& record) {
    append(buffer_, record);
    return buffer_.size() < kWriteBytes ? Result<void>() : flush();
  }
  Result<Run> finish() {
    MILLRACE_RETURN_IF_ERROR(flush());
    return Run{start_, sorter_.file_end_};
  }

 private:
  Result<void> flush() {
    for (std::string_view rest = buffer_; !rest.empty();) {
      const ssize_t count =
          ::pwrite(sorter_.file_, rest.data(), rest.size(), static_cast<off_t>(sorter_.file_end_));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0)
        return Error::from_errno(errno, "write a temporary file in " + sorter_.folder_.string())
            .hint("Name a folder with more room: --spill DIR.");
      rest.remove_prefix(static_cast<std::size_t>(count));
      sorter_.file_end_ += static_cast<std::uint64_t>(count);
    }
    buffer_.clear();
    return {};
  }

  SpillSorter& sorter_;
  std::uint64_t start_;
  std::string buffer_;
};

SpillSorter::SpillSorter(Path folder, std::size_t memory_bytes)
    : folder_(std::move(folder)), memory_bytes_(memory_bytes) {}

SpillSorter::~SpillSorter() {
  if (file_ >= 0) ::close(file_);
}

Result<void> SpillSorter::add(const Record& record) {
  MILLRACE_CHECK(!reading_);
  const std::size_t size = kHeadBytes + record.key.size() + record.value.size();
  const std::size_t used = arena_.size() + entries_.size() * sizeof(Entry);
  if (!entries_.empty() && used + size + sizeof(Entry) > memory_bytes_)
    MILLRACE_RETURN_IF_ERROR(spill());
  // Doubling would take what was promised to others; what is reserved and not used costs nothing.
  if (arena_.capacity() < memory_bytes_) arena_.reserve(memory_bytes_);
  entries_.push_back({prefix_of(record.key), arena_.size()});
  append(arena_, record);
  return {};
}

void SpillSorter::sort_arena() {
  std::sort(entries_.begin(), entries_.end(), [&](const Entry& a, const Entry& b) {
    if (a.prefix != b.prefix) return a.prefix < b.prefix;
    return is_less(record_at(arena_.data() + a.at), record_at(arena_.data() + b.at));
  });
}

/// Looks at the one behind it only: of a row that changes again and again all but the last go.
bool SpillSorter::is_replaced(std::size_t entry) const {
  if (entry + 1 == entries_.size()) return false;
  const Record after = record_at(arena_.data() + entries_[entry + 1].at);
  return after.replaces && after.key == record_at(arena_.data() + entries_[entry].at).key;
}

Result<void> SpillSorter::spill() {
  MILLRACE_RETURN_IF_ERROR(open_file());
  sort_arena();
  Writer writer(*this);
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (!is_replaced(i))
      MILLRACE_RETURN_IF_ERROR(writer.add(record_at(arena_.data() + entries_[i].at)));
  MILLRACE_ASSIGN_OR_RETURN(const Run run, writer.finish());
  runs_.push_back(run);
  entries_.clear();
  arena_.clear();
  if (arena_.capacity() > 2 * memory_bytes_) std::string().swap(arena_);
  return {};
}

/// One that never has a name where the file system can do that, else one that loses it at once.
Result<void> SpillSorter::open_file() {
  if (file_ >= 0) return {};
  file_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file_ < 0) {
    std::string name = (folder_ / ".millrace-XXXXXX").string();
    file_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (file_ >= 0) ::unlink(name.c_str());
  }
  if (file_ >= 0) return {};
  return Error::from_errno(errno, "make a temporary file in " + folder_.string())
      .hint("Name a folder that can be written to: --spill DIR.");
}

bool SpillSorter::comes_later(std::size_t a, std::size_t b) const {
  return is_less(cursors_[b]->record(), cursors_[a]->record());
}

/// The first kFanIn runs become one.
Result<void> SpillSorter::merge_some() {
  const auto later = [this](std::size_t a, std::size_t b) { return comes_later(a, b); };
  const std::size_t count = std::min(kFanIn, runs_.size());
  cursors_.clear();
  heap_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    cursors_.push_back(std::make_unique<Cursor>(file_, runs_[i]));
    MILLRACE_ASSIGN_OR_RETURN(const bool has, cursors_.back()->advance());
    if (has) heap_.push_back(i);
  }
  std::make_heap(heap_.begin(), heap_.end(), later);
  if (count == runs_.size()) return {};  // read from here
  Writer writer(*this);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    Cursor& least = *cursors_[heap_.back()];
    MILLRACE_RETURN_IF_ERROR(writer.add(least.record()));
    MILLRACE_ASSIGN_OR_RETURN(const bool more, least.advance());
    if (more)
      std::push_heap(heap_.begin(), heap_.end(), later);
    else
      heap_.pop_back();
  }
  MILLRACE_ASSIGN_OR_RETURN(const Run run, writer.finish());
  runs_.erase(runs_.begin(), runs_.begin() + static_cast<std::ptrdiff_t>(count));
  runs_.push_back(run);
  return {};
}

Result<void> SpillSorter::begin_merge() {
  reading_ = true;
  if (runs_.empty()) {
    sort_arena();
    return {};
  }
  if (!entries_.empty()) MILLRACE_RETURN_IF_ERROR(spill());
  std::string().swap(arena_);
  std::vector<Entry>().swap(entries_);
  while (runs_.size() > kFanIn) MILLRACE_RETURN_IF_ERROR(merge_some());
  return merge_some();
}

Result<const SpillSorter::Record*> SpillSorter::next() {
  const auto later = [this](std::size_t a, std::size_t b) { return comes_later(a, b); };
  if (!reading_) {
    MILLRACE_RETURN_IF_ERROR(begin_merge());
  } else if (!heap_.empty()) {
    // The one that was given last still stands first.
    std::pop_heap(heap_.begin(), heap_.end(), later);
    MILLRACE_ASSIGN_OR_RETURN(const bool more, cursors_[heap_.back()]->advance());
    if (more)
      std::push_heap(heap_.begin(), heap_.end(), later);
    else
      heap_.pop_back();
  }
  if (runs_.empty()) {
    if (next_entry_ == entries_.size()) return nullptr;
    record_ = record_at(arena_.data() + entries_[next_entry_++].at);
    return &record_;
  }
  if (heap_.empty()) return nullptr;
  record_ = cursors_[heap_.front()]->record();
  return &record_;
}

Result<void> SpillSorter::clear() {
  reading_ = false;
  next_entry_ = 0;
  entries_.clear();
  arena_.clear();
  cursors_.clear();
  heap_.clear();
  runs_.clear();
  file_end_ = 0;
  if (file_ >= 0 && ::ftruncate(file_, 0) != 0)
    return Error::from_errno(errno, "cut a temporary file");
  return {};
}

}  // namespace millrace
