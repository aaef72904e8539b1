#include "projections/engine/generations.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace millrace::projections {
namespace {

constexpr std::size_t kFailureBytesMax = 64 << 10;

/// 7 of "orders.7.db".
std::optional<std::uint32_t> number_in(std::string_view name, std::string_view view) {
  if (!name.starts_with(view)) return std::nullopt;
  name.remove_prefix(view.size());
  if (!name.starts_with('.') || !name.ends_with(".db") || name.size() < 5) return std::nullopt;
  name = name.substr(1, name.size() - 4);
  std::uint32_t number = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (failure != std::errc() || end != name.data() + name.size() || number == 0)
    return std::nullopt;
  return number;
}

}  // namespace

Result<void> Generations::make_directory() const {
  return FileSystem::real().make_directory(directory_);
}

Path Generations::file(std::uint32_t generation) const {
  return directory_ / (view_ + "." + std::to_string(generation) + ".db");
}

Result<std::optional<std::uint32_t>> Generations::live() const {
  char target[256];
  const ssize_t size = ::readlink(link().c_str(), target, sizeof target);
  if (size < 0 && errno == ENOENT) return std::optional<std::uint32_t>();
  if (size < 0 && errno != EINVAL) return Error::from_errno(errno, "read link " + link().string());
  const auto number =
      number_in(std::string_view(target, size < 0 ? 0 : static_cast<std::size_t>(size)), view_);
  if (!number)
    return Error(ErrorCode::kFailedPrecondition,
                 link().string() + " is not a link to a generation of this view")
        .hint("Move it away, or give another folder with --views.");
  return number;
}

std::string Generations::last_switch() const {
  struct stat link_now {};
  if (::lstat(link().c_str(), &link_now) != 0) return {};
  return std::to_string(link_now.st_ino) + " " + std::to_string(link_now.st_ctim.tv_sec) + "." +
         std::to_string(link_now.st_ctim.tv_nsec);
}

Result<std::vector<std::uint32_t>> Generations::all() const {
  MILLRACE_ASSIGN_OR_RETURN(const auto names, FileSystem::real().list(directory_));
  std::vector<std::uint32_t> numbers;
  for (const auto& name : names)
    if (const auto number = number_in(name, view_)) numbers.push_back(*number);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<std::uint32_t> Generations::prepare_next() const {
  MILLRACE_ASSIGN_OR_RETURN(const auto live_one, live());
  MILLRACE_ASSIGN_OR_RETURN(const auto numbers, all());
  for (const std::uint32_t number : numbers)
    if (number > live_one.value_or(0)) MILLRACE_RETURN_IF_ERROR(remove_file(file(number)));
  // A number that was live once is not given again: whoever has that file open would take it for
  // the new one.
  return std::max(live_one.value_or(0), numbers.empty() ? 0 : numbers.back()) + 1;
}

Result<void> Generations::switch_to(std::uint32_t generation) const {
  const Path temporary = link().string() + ".tmp";
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
    return Error::from_errno(errno, "remove " + temporary.string());
  // The generation's own name must be on disk before a name that points at it.
  MILLRACE_RETURN_IF_ERROR(FileSystem::real().sync_directory(directory_));
  if (::symlink(file(generation).filename().c_str(), temporary.c_str()) != 0)
    return Error::from_errno(errno, "make link " + temporary.string());
  MILLRACE_RETURN_IF_ERROR(FileSystem::real().rename(temporary, link()));
  return FileSystem::real().sync_directory(directory_);
}

Result<void> Generations::remove_old() const {
  MILLRACE_ASSIGN_OR_RETURN(const auto kept, previous());
  MILLRACE_ASSIGN_OR_RETURN(const auto numbers, all());
  for (const std::uint32_t number : numbers)
    if (number < kept.value_or(0)) MILLRACE_RETURN_IF_ERROR(remove_file(file(number)));
  return {};
}

Result<std::optional<std::uint32_t>> Generations::previous() const {
  MILLRACE_ASSIGN_OR_RETURN(const auto live_one, live());
  MILLRACE_ASSIGN_OR_RETURN(const auto numbers, all());
  std::optional<std::uint32_t> newest;
  for (const std::uint32_t number : numbers)
    if (live_one && number < *live_one) newest = std::max(newest.value_or(0), number);
  return newest;
}

Result<void> Generations::remove_file(const Path& file) const {
  for (const char* companion : {"", "-wal", "-shm", "-journal"}) {
    const Path path = file.string() + companion;
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      return Error::from_errno(errno, "remove " + path.string());
  }
  return {};
}

Result<std::unique_ptr<FileLock>> Generations::lock_worker(const std::string& holder) const {
  return lock(view_ + ".lock", "is kept up to date", holder);
}
Result<std::unique_ptr<FileLock>> Generations::lock_shown(const std::string& holder) const {
  return lock(view_ + ".shown.lock", "is shown", holder);
}
Result<std::unique_ptr<FileLock>> Generations::lock_rebuild(const std::string& holder) const {
  return lock(view_ + ".rebuild.lock", "is being rebuilt", holder);
}
Result<std::unique_ptr<FileLock>> Generations::lock_verify(const std::string& holder) const {
  return lock(view_ + ".verify.lock", "is being verified", holder);
}

Result<std::unique_ptr<FileLock>> Generations::lock(const std::string& name,
                                                    const std::string& what,
                                                    const std::string& holder) const {
  MILLRACE_RETURN_IF_ERROR(make_directory());
  auto held = FileSystem::real().lock(directory_ / name);
  if (!held)
    return std::move(held)
        .error()
        .context("view " + view_ + " " + what + " by another process already")
        .hint("One at a time is enough. If it should be this one, stop the other first.");
  MILLRACE_RETURN_IF_ERROR((*held)->describe(holder));
  return held;
}

Result<std::string> Generations::first_failure() const {
  const Path file = directory_ / (view_ + ".failure");
  MILLRACE_ASSIGN_OR_RETURN(const bool there, FileSystem::real().exists(file));
  if (!there) return std::string();
  return read_file(FileSystem::real(), file, kFailureBytesMax);
}

Result<void> Generations::write_first_failure(const std::string& failure) const {
  const Path file = directory_ / (view_ + ".failure");
  if (!failure.empty())
    return write_file_atomically(FileSystem::real(), file, failure.substr(0, kFailureBytesMax));
  if (::unlink(file.c_str()) != 0 && errno != ENOENT)
    return Error::from_errno(errno, "remove " + file.string());
  return {};
}

Result<std::string> Generations::worker() const {
  return FileSystem::real().lock_holder(directory_ / (view_ + ".lock"));
}

Result<bool> Generations::is_shown() const {
  MILLRACE_ASSIGN_OR_RETURN(const std::string holder,
                            FileSystem::real().lock_holder(directory_ / (view_ + ".shown.lock")));
  return !holder.empty();
}

}  // namespace millrace::projections
