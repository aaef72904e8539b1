#pragma once

#include <stop_token>
#include <string>

#include "base/file.h"
#include "eventstore/log_reader.h"
#include "projections/engine/checkpoint.h"
#include "projections/engine/generations.h"
#include "projections/view.h"
#include "schemas/registry.h"

namespace millrace::projections {

/// What all work on the views of one program shares. Threads: may be used by several at once.
struct Context {
  Path store;                         ///< Its directory.
  Path views;                         ///< The folder of the SQLite files.
  std::string program;                ///< As a person would type it, for hints.
  SchemaRegistry* schemas = nullptr;  ///< Of the store.
  std::stop_token stop{};

  Generations generations(const View& view) const { return {views, view.name()}; }
  /// "pid 812, shop run"
  std::string holder(std::string_view command) const;
  /// A reader that may leave out what `view` does not need.
  Result<std::unique_ptr<LogReader>> open_reader(const View& view, Offset from) const;
  /// That of a view in which nothing is folded yet.
  Checkpoint beginning(const View& view, const StoreId& store) const;
};

/// Whether an error passes by itself: the disk fills and empties, servers and locks come back.
bool may_pass(ErrorCode code);

/// The path as a user may give it; kNotFound if there is no store.
Result<void> check_store(const Path& directory);

}  // namespace millrace::projections
