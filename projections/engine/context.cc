#include "projections/engine/context.h"

#include <unistd.h>

namespace millrace::projections {

std::string Context::holder(std::string_view command) const {
  return "pid " + std::to_string(::getpid()) + ", " + program + " " + std::string(command);
}

Result<std::unique_ptr<LogReader>> Context::open_reader(const View& view, Offset from) const {
  ReadOptions options;
  options.from = from;
  for (const auto& source : view.sources()) options.categories.push_back(source.category);
  return LogReader::open(store, std::move(options));
}

Checkpoint Context::beginning(const View& view, const StoreId& store_id) const {
  Checkpoint checkpoint;
  checkpoint.view = view.name();
  checkpoint.version = view.version();
  checkpoint.shape = view.shape();
  checkpoint.store_id = to_string(store_id);
  return checkpoint;
}

bool may_pass(ErrorCode code) {
  return code == ErrorCode::kNoSpace || code == ErrorCode::kIo || code == ErrorCode::kUnavailable ||
         code == ErrorCode::kLocked;
}

Result<void> check_store(const Path& directory) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, FileSystem::real().exists(directory / "store.json"));
  if (there) return {};
  return Error(ErrorCode::kNotFound, "there is no event store in " + directory.string())
      .hint("Give its directory with --store. `millrace capture run --source ... --store " +
            directory.string() + "` makes one.");
}

}  // namespace millrace::projections
