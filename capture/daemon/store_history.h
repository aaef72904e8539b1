#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/row_history.h"
#include "capture/state/stored_rows.h"
#include "capture/table_patterns.h"
#include "eventstore/event_store.h"

namespace millrace {

/// The rows of some tables as the store and what goes into it say: stands between encoder and store
/// and sees every event on its way.
///
/// What is durable is looked up in the store. What is not is kept, and beside it, as far as there
/// is room, what was looked up or written lately. A transaction that changes more rows than fit
/// makes the rows it has changed unknown until it is durable: nothing is ever told that an event
/// since has changed. Threads: one.
class StoreHistory final : public RowHistory, public EventOut {
 public:
  static constexpr std::size_t kBytesMax = 32 << 20;

  StoreHistory(EventOut& out, EventStore& store, Path directory, FileSystem& files,
               TablePatterns patterns, std::size_t bytes_max = kBytesMax)
      : out_(out),
        store_(store),
        directory_(std::move(directory)),
        files_(files),
        patterns_(std::move(patterns)),
        bytes_max_(bytes_max) {}

  bool wants(const TableSchema& table) override;
  Result<RowState> latest(std::string_view category, std::string_view key) override;

  Result<void> begin(const TransactionInfo& info) override { return out_.begin(info); }
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;

 private:
  struct Table {
    std::optional<Offset> from;       ///< Rows below it were truncated away; nothing: look it up.
    bool truncated_just_now = false;  ///< By the open transaction.
  };
  struct Entry {
    std::string name;
    RowState row;
    Offset settled;  ///< Durable from there on; kOpen in the transaction that is being built.
    std::size_t bytes = 0;
  };
  using Entries = std::list<Entry>;
  static constexpr Offset kOpen{~std::uint64_t{0}};

  void put(std::string name, RowState row, Offset settled);
  void drop(Entries::iterator entry);
  void make_room();
  void forget(std::string_view category);
  Result<bool> all_is_durable();

  EventOut& out_;
  EventStore& store_;
  const Path directory_;
  FileSystem& files_;
  const TablePatterns patterns_;
  const std::size_t bytes_max_;
  std::unique_ptr<StoredRows> rows_;  // once it was needed
  std::map<std::string, Table, std::less<>> tables_;
  Entries open_, settled_;  // changed by the open transaction, and the rest; used last first
  std::unordered_map<std::string_view, Entries::iterator> by_name_;  // views of Entry::name
  std::size_t bytes_ = 0;
  bool lost_some_ = false;  // rows that the open transaction changed
  Offset blind_until_;      // what is not kept is known once the store is durable up to here
};

}  // namespace millrace
