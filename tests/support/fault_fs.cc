#include "tests/support/fault_fs.h"

#include <algorithm>

#include "base/bytes.h"

namespace millrace::test {
namespace {

constexpr std::size_t kSector = 512;

Error power_gone(std::string_view what) {
  return Error(ErrorCode::kIo, std::string(what) + ": the machine is down");
}

std::string name_of_path(const Path& path) {
  std::string name = path.lexically_normal().string();
  if (name.size() > 1 && name.back() == '/') name.pop_back();
  return name;
}

std::string parent_name(const std::string& name) { return name_of_path(Path(name).parent_path()); }

/// About half, up to the end of a sector: no kernel tears a write within one.
std::size_t half_of(std::uint64_t position, std::size_t size) {
  const std::uint64_t middle = (position + size / 2) / kSector * kSector;
  return middle > position ? middle - position : 0;
}

Error not_found(const std::string& name) {
  return Error(ErrorCode::kNotFound, "open " + name + ": no such file");
}

}  // namespace

class FaultFile final : public File {
 public:
  FaultFile(FaultFs& fs, std::shared_ptr<FaultFs::Node> node, bool writable)
      : fs_(fs), node_(std::move(node)), life_(fs.life_), writable_(writable) {}

  Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
    const std::lock_guard lock(fs_.mutex_);
    if (life_ != fs_.life_) return power_gone("read");
    if (position >= node_->current.size()) return std::size_t{0};
    const std::size_t size = std::min<std::size_t>(into.size(), node_->current.size() - position);
    std::copy_n(node_->current.data() + position, size, into.data());
    return size;
  }

  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    const std::lock_guard lock(fs_.mutex_);
    const Result<void> allowed = change("write");
    if (!allowed) bytes = bytes.substr(0, life_ == fs_.life_ ? half_of(position, bytes.size()) : 0);
    if (position + bytes.size() > node_->current.size())
      node_->current.resize(position + bytes.size());
    std::copy(bytes.begin(), bytes.end(),
              node_->current.begin() + static_cast<std::ptrdiff_t>(position));
    mark_dirty(position, position + bytes.size());
    fs_.written_.notify_all();
    return allowed;
  }

  Result<void> sync() override {
    const std::lock_guard lock(fs_.mutex_);
    if (life_ != fs_.life_) return power_gone("sync");
    if (sync_failed_) ++fs_.syncs_after_failure_;
    if (const auto allowed = fs_.operation("sync", true); !allowed) {
      node_->dirty.clear();  // called clean, never written
      sync_failed_ = true;
      return allowed;
    }
    node_->durable.resize(node_->current.size());
    for (const std::size_t sector : node_->dirty) {
      const std::size_t from = sector * kSector;
      if (from >= node_->current.size()) continue;
      node_->durable.replace(from, kSector, node_->current, from, kSector);
    }
    node_->durable.resize(node_->current.size());
    node_->dirty.clear();
    return {};
  }

  Result<void> truncate(std::uint64_t size) override {
    const std::lock_guard lock(fs_.mutex_);
    MILLRACE_RETURN_IF_ERROR(change("truncate"));
    const std::size_t before = node_->current.size();
    node_->current.resize(size);
    mark_dirty(std::min<std::size_t>(size, before), std::max<std::size_t>(size, before));
    return {};
  }

  Result<void> allocate(std::uint64_t position, std::uint64_t size) override {
    const std::lock_guard lock(fs_.mutex_);
    MILLRACE_RETURN_IF_ERROR(change("allocate"));
    if (position + size > node_->current.size()) node_->current.resize(position + size);
    return {};
  }

  Result<std::uint64_t> size() override {
    const std::lock_guard lock(fs_.mutex_);
    if (life_ != fs_.life_) return power_gone("stat");
    return static_cast<std::uint64_t>(node_->current.size());
  }

  Result<std::uint64_t> identity() override { return node_->identity; }

 private:
  Result<void> change(std::string_view what) {
    if (life_ != fs_.life_) return power_gone(what);
    if (!writable_) return Error(ErrorCode::kIo, std::string(what) + ": file is read-only");
    return fs_.operation(what);
  }

  void mark_dirty(std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t sector = from / kSector; sector * kSector < to; ++sector)
      node_->dirty.insert(sector);
  }

  FaultFs& fs_;
  std::shared_ptr<FaultFs::Node> node_;
  std::uint64_t life_;
  bool writable_;
  bool sync_failed_ = false;
};

class FaultLock final : public FileLock {
 public:
  FaultLock(FaultFs& fs, std::string path) : fs_(fs), path_(std::move(path)), life_(fs.life_) {}
  ~FaultLock() override {
    const std::lock_guard lock(fs_.mutex_);
    if (life_ == fs_.life_) fs_.locks_.erase(path_);
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
  if (die_at_ != 0 && operations_ >= die_at_) {
    hit_ = true;
    return power_gone(what);
  }
  const bool fails = operations_ == fail_at_ || (is_sync && syncs_ == fail_sync_at_);
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

void FaultFs::fail_sync_at(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
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
  fail_at_ = fail_sync_at_ = die_at_ = 0;
  hit_ = false;
}

bool FaultFs::fault_was_hit() const {
  const std::lock_guard lock(mutex_);
  return hit_;
}

std::uint64_t FaultFs::syncs_after_failed_sync() const {
  const std::lock_guard lock(mutex_);
  return syncs_after_failure_;
}

std::uint64_t FaultFs::syncs() const {
  const std::lock_guard lock(mutex_);
  return syncs_;
}

void FaultFs::restart() {
  ++life_;
  locks_.clear();
  fail_at_ = fail_sync_at_ = die_at_ = 0;
}

void FaultFs::kill_processes() {
  const std::lock_guard lock(mutex_);
  restart();
}

void FaultFs::lose_power(std::optional<std::uint64_t> seed) {
  const std::lock_guard lock(mutex_);
  restart();
  ++boot_;
  std::mt19937_64 random(seed.value_or(0));
  const auto survives = [&] { return seed.has_value() && random() % 2 == 0; };
  std::size_t changes_kept = seed ? random() % (name_changes_.size() + 1) : 0;
  std::set<std::shared_ptr<Node>> nodes;
  for (const auto& [name, node] : names_) nodes.insert(node);
  for (const auto& [name, node] : durable_names_) nodes.insert(node);
  for (const auto& change : name_changes_) {
    if (changes_kept == 0) break;
    change.apply(durable_names_);
    --changes_kept;
  }
  name_changes_.clear();
  names_ = durable_names_;
  for (const auto& node : nodes) {
    std::string after = node->durable;
    after.resize(survives() ? node->current.size() : node->durable.size());
    for (const std::size_t sector : node->dirty) {
      const std::size_t from = sector * kSector;
      if (from >= after.size() || from >= node->current.size() || !survives()) continue;
      const std::size_t size =
          std::min({kSector, after.size() - from, node->current.size() - from});
      after.replace(from, size, node->current, from, size);
    }
    node->current = node->durable = std::move(after);
    node->dirty.clear();
  }
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
  node->dirty.clear();
  durable_names_[name_of_path(path)] = node;
}

void FaultFs::erase(const Path& path) {
  const std::lock_guard lock(mutex_);
  names_.erase(name_of_path(path));
  durable_names_.erase(name_of_path(path));
}

std::vector<std::string> FaultFs::names(const Path& directory) {
  return list(directory).value_or(std::vector<std::string>{});
}

std::unique_ptr<FaultFs> FaultFs::clone() const {
  const std::lock_guard lock(mutex_);
  auto copy = std::make_unique<FaultFs>();
  copy->names_.clear();
  copy->boot_ = boot_;
  copy->next_identity_ = next_identity_;
  for (const auto& [name, node] : names_) {
    auto twin = std::make_shared<Node>(*node);
    twin->durable = twin->current;
    twin->dirty.clear();
    copy->names_[name] = std::move(twin);
  }
  copy->durable_names_ = copy->names_;
  return copy;
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
  name_changes_.push_back({directory, std::move(apply)});
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
  for (const auto& [name, node] : names_)
    if (name != "/" && parent_name(name) == parent) found.push_back(Path(name).filename().string());
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

Result<void> FaultFs::remove(const Path& path) {
  const std::lock_guard lock(mutex_);
  const std::string name = name_of_path(path);
  if (!names_.contains(name)) return not_found(name);
  MILLRACE_RETURN_IF_ERROR(operation("remove"));
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
