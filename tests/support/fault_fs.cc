#include "tests/support/fault_fs.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::test {
namespace {

Error power_gone(std::string_view what) {
  return Error(ErrorCode::kIo, std::string(what) + ": the machine is down");
}

std::string name_of_path(const Path& path) {
  std::string name = path.native();
  // Most need no more than that, and the simulation asks a hundred million times.
  if (name.find("//") != std::string::npos || name.find("/.") != std::string::npos)
    name = path.lexically_normal().native();
  if (name.size() > 1 && name.back() == '/') name.pop_back();
  return name;
}

std::string parent_name(const std::string& name) {
  return name.substr(0, std::max<std::size_t>(name.rfind('/'), 1));
}

/// About half, up to the end of a sector: no kernel tears a write within one.
std::size_t half_of(std::uint64_t position, std::size_t size) {
  const std::uint64_t middle = (position + size / 2) / FaultFs::kSector * FaultFs::kSector;
  return middle > position ? middle - position : 0;
}

Error no_space(std::string_view what) {
  return Error(ErrorCode::kNoSpace, std::string(what) + ": the disk is full");
}

Error not_found(const std::string& name) {
  return Error(ErrorCode::kNotFound, "open " + name + ": no such file");
}

}  // namespace

class FaultFile final : public File {
 public:
  FaultFile(FaultFs& fs, std::shared_ptr<FaultFs::Node> node, bool writable)
      : fs_(fs),
        node_(std::move(node)),
        life_(writable ? fs.writer_life_ : fs.life_),
        writable_(writable) {}

  Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
    const std::lock_guard lock(fs_.mutex_);
    if (is_dead()) return power_gone("read");
    if (++fs_.reads_ == fs_.fail_read_at_) {
      fs_.hit_ = true;
      return Error(ErrorCode::kIo, "read: injected fault");
    }
    if (position >= node_->current.size()) return std::size_t{0};
    const std::size_t size = std::min<std::size_t>(into.size(), node_->current.size() - position);
    std::copy_n(node_->current.data() + position, size, into.data());
    return size;
  }

  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    const std::lock_guard lock(fs_.mutex_);
    Result<void> allowed = change("write");
    if (!allowed) bytes = bytes.substr(0, is_dead() ? 0 : half_of(position, bytes.size()));
    if (bytes.empty()) return allowed;
    const std::uint64_t before = node_->current.size();
    if (position + bytes.size() > before && fs_.space_left_ &&
        position + bytes.size() - before > *fs_.space_left_) {
      const std::uint64_t fits = before + *fs_.space_left_;
      bytes = bytes.substr(0, fits > position ? fits - position : 0);
      allowed = no_space("write");
      fs_.hit_ = true;
      if (bytes.empty()) return allowed;
    }
    const std::uint64_t end = position + bytes.size();
    if (end > before) {
      MILLRACE_CHECK(fs_.take_space(end - before));
      node_->current.resize(end);
    }
    std::copy(bytes.begin(), bytes.end(),
              node_->current.begin() + static_cast<std::ptrdiff_t>(position));
    remember(position, end, false);
    fs_.written_.notify_all();
    return allowed;
  }

  Result<void> sync() override {
    const std::lock_guard lock(fs_.mutex_);
    if (is_dead()) return power_gone("sync");
    if (sync_failed_) ++fs_.syncs_after_failure_;
    Result<void> allowed = fs_.operation("sync", true);
    if (allowed && node_->late_error) {
      fs_.hit_ = true;
      allowed = Error(ErrorCode::kIo, "sync: late injected fault");
    }
    if (!allowed && fs_.is_dying()) return allowed;
    if (!allowed) {
      // Called clean, never written.
      if (fs_.sync_failure_ == SyncFailure::kOldReturns && !node_->late_error) {
        node_->current = node_->lied ? node_->promised : node_->durable;
        ++fs_.times_gone_back_;
      }
      node_->changes.clear();
      node_->late_error = false;
      sync_failed_ = true;
      return allowed;
    }
    if (fs_.syncs_ == fs_.fail_sync_at_) {  // it says that it succeeds
      fs_.hit_ = true;
      node_->lied = true;
      node_->promised = node_->current;
      if (fs_.sync_failure_ == SyncFailure::kLie) return {};
      node_->changes.clear();
      node_->late_error = true;
      return {};
    }
    for (const FaultFs::Change& change : node_->changes)
      if (change.cuts && change.size < node_->durable.size()) node_->durable.resize(change.size);
    node_->durable.resize(node_->current.size());
    for (const FaultFs::Change& change : node_->changes) {
      const std::size_t from = change.first_sector * FaultFs::kSector;
      if (from < node_->current.size())
        node_->durable.replace(from, change.bytes.size(), node_->current, from,
                               change.bytes.size());
    }
    node_->durable.resize(node_->current.size());
    node_->changes.clear();
    if (node_->durable == node_->current) node_->lied = false;
    if (node_->lied) node_->promised = node_->current;
    return {};
  }

  Result<void> truncate(std::uint64_t size) override {
    const std::lock_guard lock(fs_.mutex_);
    MILLRACE_RETURN_IF_ERROR(change("truncate"));
    const std::size_t before = node_->current.size();
    if (size > before) MILLRACE_RETURN_IF_ERROR(fs_.take_space(size - before));
    if (size < before && fs_.space_left_) *fs_.space_left_ += before - size;
    node_->current.resize(size);
    remember(size, size, size < before);
    return {};
  }

  void start_writeback(std::uint64_t, std::uint64_t) override {}  // lose_power() decides

  Result<void> allocate(std::uint64_t position, std::uint64_t size) override {
    const std::lock_guard lock(fs_.mutex_);
    MILLRACE_RETURN_IF_ERROR(change("allocate"));
    if (position + size <= node_->current.size()) return {};
    MILLRACE_RETURN_IF_ERROR(fs_.take_space(position + size - node_->current.size()));
    node_->current.resize(position + size);
    remember(position + size, position + size, false);
    return {};
  }

  Result<std::uint64_t> size() override {
    const std::lock_guard lock(fs_.mutex_);
    if (is_dead()) return power_gone("stat");
    return static_cast<std::uint64_t>(node_->current.size());
  }

  Result<std::uint64_t> identity() override { return node_->identity; }

 private:
  bool is_dead() const { return life_ != (writable_ ? fs_.writer_life_ : fs_.life_); }

  Result<void> change(std::string_view what) {
    if (is_dead()) return power_gone(what);
    if (!writable_) return Error(ErrorCode::kIo, std::string(what) + ": file is read-only");
    return fs_.operation(what);
  }

  void remember(std::uint64_t from, std::uint64_t to, bool cuts) {
    const std::size_t first = from / FaultFs::kSector;
    FaultFs::Change change{.sequence = ++fs_.sequence_,
                           .size = node_->current.size(),
                           .cuts = cuts,
                           .first_sector = first,
                           .bytes = {}};
    if (to > from)
      change.bytes =
          node_->current.substr(first * FaultFs::kSector,
                                (to + FaultFs::kSector - 1) / FaultFs::kSector * FaultFs::kSector -
                                    first * FaultFs::kSector);
    node_->changes.push_back(std::move(change));
  }

  FaultFs& fs_;
  std::shared_ptr<FaultFs::Node> node_;
  std::uint64_t life_;
  bool writable_;
  bool sync_failed_ = false;
};

class FaultLock final : public FileLock {
 public:
  FaultLock(FaultFs& fs, std::string path)
      : fs_(fs), path_(std::move(path)), life_(fs.writer_life_) {}
  ~FaultLock() override {
    const std::lock_guard lock(fs_.mutex_);
    if (life_ == fs_.writer_life_) fs_.locks_.erase(path_);
  }
  Result<void> describe(std::string_view holder) override {
    const std::lock_guard lock(fs_.mutex_);
    fs_.locks_[path_] = holder;
    return {};
  }

 private:
  FaultFs& fs_;
  std::string path_;
  std::uint64_t life_;
};

class FaultWord final : public SharedWord {
 public:
  FaultWord(FaultFs& fs, std::shared_ptr<FaultFs::Node> node, std::uint64_t position)
      : fs_(fs), node_(std::move(node)), position_(position) {}

  void wait(std::uint32_t seen, std::chrono::nanoseconds timeout) override {
    std::unique_lock lock(fs_.mutex_);
    if (value() == seen) fs_.written_.wait_for(lock, timeout);
  }
  void wake_all() override { fs_.written_.notify_all(); }

 private:
  std::uint32_t value() const {
    if (node_->current.size() < position_ + 4) return 0;
    return load_le<std::uint32_t>(node_->current.data() + position_);
  }

  FaultFs& fs_;
  std::shared_ptr<FaultFs::Node> node_;
  std::uint64_t position_;
};

FaultFs::FaultFs() {
  names_["/"] = new_node(true);
  durable_names_ = names_;
}

std::shared_ptr<FaultFs::Node> FaultFs::new_node(bool directory) {
  auto node = std::make_shared<Node>();
  node->directory = directory;
  node->identity = next_identity_++;
  return node;
}

Result<void> FaultFs::operation(std::string_view what, bool is_sync) {
  ++operations_;
  if (is_sync) ++syncs_;
  if (is_dying()) {
    hit_ = true;
    return power_gone(what);
  }
  const bool fails_late = sync_failure_ == SyncFailure::kLate || sync_failure_ == SyncFailure::kLie;
  const bool fails = operations_ == fail_at_ || (is_sync && syncs_ == fail_sync_at_ && !fails_late);
  if (!fails) return {};
  hit_ = true;
  return Error(fail_code_, std::string(what) + ": injected fault");
}

void FaultFs::fail_at(std::uint64_t number, ErrorCode code) {
  const std::lock_guard lock(mutex_);
  fail_at_ = operations_ + number;
  fail_code_ = code;
  hit_ = false;
}

void FaultFs::fail_read_at(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  fail_read_at_ = reads_ + number;
  hit_ = false;
}

void FaultFs::set_space_left(std::optional<std::uint64_t> bytes) {
  const std::lock_guard lock(mutex_);
  space_left_ = bytes;
}

Result<void> FaultFs::take_space(std::uint64_t bytes) {
  if (!space_left_) return {};
  if (bytes > *space_left_) {
    hit_ = true;
    return no_space("allocate");
  }
  *space_left_ -= bytes;
  return {};
}

void FaultFs::fail_sync_at(std::uint64_t number, SyncFailure how) {
  const std::lock_guard lock(mutex_);
  sync_failure_ = how;
  fail_sync_at_ = syncs_ + number;
  fail_code_ = ErrorCode::kIo;
  hit_ = false;
}

void FaultFs::die_at(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  die_at_ = operations_ + number;
  hit_ = false;
}

void FaultFs::clear_faults() {
  const std::lock_guard lock(mutex_);
  fail_at_ = fail_sync_at_ = fail_read_at_ = die_at_ = 0;
  hit_ = false;
}

bool FaultFs::fault_was_hit() const {
  const std::lock_guard lock(mutex_);
  return hit_;
}

bool FaultFs::is_down() const {
  const std::lock_guard lock(mutex_);
  return is_dying();
}

bool FaultFs::is_dying() const { return die_at_ != 0 && operations_ >= die_at_; }

bool FaultFs::has_lied() const {
  const std::lock_guard lock(mutex_);
  // Also of what has another name now that a power loss would take back.
  for (const Names* names : {&names_, &durable_names_})
    for (const auto& [name, node] : *names)
      if (node->lied) return true;
  return false;
}

std::uint64_t FaultFs::times_gone_back() const {
  const std::lock_guard lock(mutex_);
  return times_gone_back_;
}

std::uint64_t FaultFs::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

std::uint64_t FaultFs::syncs_after_failed_sync() const {
  const std::lock_guard lock(mutex_);
  return syncs_after_failure_;
}

std::uint64_t FaultFs::syncs() const {
  const std::lock_guard lock(mutex_);
  return syncs_;
}

std::string FaultFs::content(const Path& path) const {
  const std::lock_guard lock(mutex_);
  return names_.at(name_of_path(path))->current;
}

void FaultFs::set_content(const Path& path, std::string bytes) {
  const std::lock_guard lock(mutex_);
  auto& node = names_[name_of_path(path)];
  if (!node) node = new_node(false);
  node->current = node->durable = std::move(bytes);
  node->changes.clear();
  durable_names_[name_of_path(path)] = node;
}

void FaultFs::erase(const Path& path) {
  const std::lock_guard lock(mutex_);
  names_.erase(name_of_path(path));
  durable_names_.erase(name_of_path(path));
}

void FaultFs::erase_tree(const Path& directory) {
  const std::lock_guard lock(mutex_);
  const std::string top = name_of_path(directory), inside = top + "/";
  for (Names* names : {&names_, &durable_names_})
    std::erase_if(*names, [&](const auto& entry) {
      return entry.first == top || entry.first.starts_with(inside);
    });
  std::erase_if(name_changes_, [&](const NameChange& change) {
    return change.directory == top || change.directory.starts_with(inside);
  });
}

std::vector<std::string> FaultFs::names(const Path& directory) {
  return list(directory).value_or(std::vector<std::string>{});
}

std::map<std::string, std::string> FaultFs::contents() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::string> contents;
  for (const auto& [name, node] : names_)
    if (!node->directory) contents[name] = node->current;
  return contents;
}

void FaultFs::allow_links(bool allowed) {
  const std::lock_guard lock(mutex_);
  links_ = allowed;
}

std::unique_ptr<FaultFs> FaultFs::clone() const {
  const std::lock_guard lock(mutex_);
  auto copy = std::make_unique<FaultFs>();
  copy->boot_ = boot_;
  copy->next_identity_ = next_identity_;
  copy->restore(names_);
  return copy;
}

void FaultFs::restore(const FaultFs& backup) {
  const std::lock_guard lock(mutex_);
  next_identity_ = std::max(next_identity_, backup.next_identity_);
  restore(backup.names_);
}

void FaultFs::restore(const Names& names) {
  names_.clear();
  name_changes_.clear();
  for (const auto& [name, node] : names) {
    auto twin = std::make_shared<Node>();
    twin->directory = node->directory;
    twin->identity = node->identity;
    twin->current = twin->durable = node->current;
    names_[name] = std::move(twin);
  }
  durable_names_ = names_;
}

Result<std::unique_ptr<File>> FaultFs::open(const Path& path, OpenMode mode) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  const auto found = names_.find(name);
  if (mode != OpenMode::kCreate) {
    if (found == names_.end()) return not_found(name);
    if (found->second->directory)
      return Error(ErrorCode::kFailedPrecondition, name + " is a directory");
    return std::make_unique<FaultFile>(*this, found->second, mode != OpenMode::kRead);
  }
  if (found != names_.end()) return Error(ErrorCode::kIo, "create " + name + ": exists");
  if (!names_.contains(parent_name(name))) return not_found(name);
  MILLRACE_RETURN_IF_ERROR(operation("create"));
  auto node = new_node(false);
  change_names(parent_name(name), [=](Names& names) { names[name] = node; });
  return std::make_unique<FaultFile>(*this, std::move(node), true);
}

void FaultFs::change_names(const std::string& directory, std::function<void(Names&)> apply) {
  apply(names_);
  name_changes_.push_back({++sequence_, directory, std::move(apply)});
}

Result<void> FaultFs::make_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  if (names_.contains(name)) return {};
  if (!names_.contains(parent_name(name))) return not_found(name);
  MILLRACE_RETURN_IF_ERROR(operation("make directory"));
  auto node = new_node(true);
  change_names(parent_name(name), [=](Names& names) { names[name] = node; });
  return {};
}

Result<std::vector<std::string>> FaultFs::list(const Path& directory) {
  const std::lock_guard lock(mutex_);
  const std::string parent = name_of_path(directory);
  if (!names_.contains(parent)) return not_found(parent);
  std::vector<std::string> found;
  const std::string inside = parent == "/" ? parent : parent + "/";
  for (auto at = names_.upper_bound(inside); at != names_.end(); ++at) {
    if (!at->first.starts_with(inside)) break;
    std::string name = at->first.substr(inside.size());
    if (name.find('/') == std::string::npos) found.push_back(std::move(name));
  }
  return found;
}

Result<bool> FaultFs::exists(const Path& path) {
  const std::lock_guard lock(mutex_);
  return names_.contains(name_of_path(path));
}

Result<void> FaultFs::rename(const Path& from, const Path& to) {
  const std::lock_guard lock(mutex_);
  const std::string old_name = name_of_path(from), new_name = name_of_path(to);
  const auto found = names_.find(old_name);
  if (found == names_.end()) return not_found(old_name);
  MILLRACE_RETURN_IF_ERROR(operation("rename"));
  change_names(parent_name(new_name), [=, node = found->second](Names& names) {
    names.erase(old_name);
    names[new_name] = node;
  });
  return {};
}

Result<void> FaultFs::link(const Path& from, const Path& to) {
  const std::lock_guard lock(mutex_);
  const std::string old_name = name_of_path(from), new_name = name_of_path(to);
  const auto found = names_.find(old_name);
  if (found == names_.end()) return not_found(old_name);
  if (!links_) return Error(ErrorCode::kUnsupported, "link: not on this file system");
  if (names_.contains(new_name))
    return Error(ErrorCode::kFailedPrecondition, "link " + new_name + ": it is there");
  MILLRACE_RETURN_IF_ERROR(operation("link"));
  change_names(parent_name(new_name),
               [=, node = found->second](Names& names) { names[new_name] = node; });
  return {};
}

Result<void> FaultFs::remove(const Path& path) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  if (!names_.contains(name)) return not_found(name);
  MILLRACE_RETURN_IF_ERROR(operation("remove"));
  if (space_left_) *space_left_ += names_.at(name)->current.size();
  change_names(parent_name(name), [=](Names& names) { names.erase(name); });
  return {};
}

Result<void> FaultFs::sync_directory(const Path& path) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  MILLRACE_RETURN_IF_ERROR(operation("sync directory"));
  std::erase_if(name_changes_, [&](const NameChange& change) {
    if (change.directory != name) return false;
    change.apply(durable_names_);
    return true;
  });
  return {};
}

Result<std::unique_ptr<FileLock>> FaultFs::lock(const Path& path) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  if (locks_.contains(name)) return Error(ErrorCode::kLocked, name + " is held by " + locks_[name]);
  if (!names_.contains(name)) {
    MILLRACE_RETURN_IF_ERROR(operation("create"));
    auto node = new_node(false);
    change_names(parent_name(name), [=](Names& names) { names[name] = node; });
  }
  locks_[name] = "another process";
  return std::make_unique<FaultLock>(*this, name);
}

Result<std::string> FaultFs::lock_holder(const Path& path) {
  const std::lock_guard lock(mutex_);
  const auto found = locks_.find(name_of_path(path));
  return found == locks_.end() ? std::string() : found->second;
}

Result<std::unique_ptr<SharedWord>> FaultFs::shared_word(const Path& path, std::uint64_t position) {
  const std::lock_guard lock(mutex_);
  const auto found = names_.find(name_of_path(path));
  if (found == names_.end()) return not_found(name_of_path(path));
  return std::make_unique<FaultWord>(*this, found->second, position);
}

std::string FaultFs::boot_id() {
  const std::lock_guard lock(mutex_);
  return "boot " + std::to_string(boot_);
}

}  // namespace millrace::test
