#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace millrace::projections {

/// The files of one view in the folder of views.
///
///     orders.db -> orders.3.db     what readers open: a symbolic link to the live generation
///     orders.3.db (-wal, -shm)     a SQLite file
///     orders.2.db                  the one before it, kept
///     orders.4.db                  one that a rebuild is making: not linked, so not live
///     orders.lock                  held by the worker that writes the live one
///     orders.shown.lock            held by it once it shows a view in memory
///     orders.rebuild.lock          held by whoever makes a new one
///     orders.verify.db, .verify.lock
///     orders.sink.json what is known of the view's sink, if it has one
///     orders.failure         why there is no generation yet; else in the generation's own file
///
/// A generation above the live one that nobody is making is what a killed rebuild left behind.
/// Errors: kIo, kLocked with the holder. Threads: all of it, from any.
class Generations {
 public:
  Generations(Path directory, std::string view)
      : directory_(std::move(directory)), view_(std::move(view)) {}

  Result<void> make_directory() const;
  /// The live generation; nothing if there is none yet. kFailedPrecondition if something else is in
  /// the link's place.
  Result<std::optional<std::uint32_t>> live() const;
  /// Another text after each switch, also one back to a generation that was live before; empty if
  /// there is no link.
  std::string last_switch() const;
  Path file(std::uint32_t generation) const;
  Path link() const { return directory_ / (view_ + ".db"); }
  Path scratch() const { return directory_ / (view_ + ".verify.db"); }
  Path sink_status() const { return directory_ / (view_ + ".sink.json"); }

  /// Removes what is above the live generation; gives the number for the next one, above all of
  /// them. Hold the rebuild lock.
  Result<std::uint32_t> prepare_next() const;
  /// The newest one below the live one; nothing if there is none.
  Result<std::optional<std::uint32_t>> previous() const;
  /// Makes `generation` the live one, in one step, durably.
  Result<void> switch_to(std::uint32_t generation) const;
  /// Removes all generations but the live one and the one before it.
  Result<void> remove_old() const;
  /// A SQLite file with its companions, if it is there.
  Result<void> remove_file(const Path& file) const;

  Result<std::unique_ptr<FileLock>> lock_worker(const std::string& holder) const;
  Result<std::unique_ptr<FileLock>> lock_shown(const std::string& holder) const;
  Result<std::unique_ptr<FileLock>> lock_rebuild(const std::string& holder) const;
  Result<std::unique_ptr<FileLock>> lock_verify(const std::string& holder) const;
  /// Why the first generation could not be made; empty if that is not so.
  Result<std::string> first_failure() const;
  /// Remembers it, or with an empty text forgets it.
  Result<void> write_first_failure(const std::string& failure) const;
  /// Who holds the worker's lock; empty if nobody.
  Result<std::string> worker() const;
  /// A view in memory is shown by somebody.
  Result<bool> is_shown() const;

 private:
  Result<std::unique_ptr<FileLock>> lock(const std::string& name, const std::string& what,
                                         const std::string& holder) const;
  Result<std::vector<std::uint32_t>> all() const;

  Path directory_;
  std::string view_;
};

}  // namespace millrace::projections
