#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "capture/pipeline/change_encoder.h"
#include "schemas/registry.h"

namespace millrace {

/// Tells the log's readers of a table's other shape: an event `schema_changed` of kCaptureCategory,
/// keyed by the table's category, in the same transaction and right before the first change that is
/// written in a version later than all that were told (docs/events.md). Nothing is told of a
/// table's first version, unless the table had another name before.
///
/// What was told the log itself knows: a version whose transaction was lost in a crash is told when
/// the transaction comes again, whatever the registry holds. Stands between encoder and store.
/// Threads: one.
class SchemaTeller final : public EventOut {
 public:
  SchemaTeller(EventOut& out, SchemaRegistry& schemas, Path store, FileSystem& files)
      : out_(out), schemas_(schemas), store_(std::move(store)), files_(files) {}

  Result<void> begin(const TransactionInfo& info) override { return out_.begin(info); }
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;

 private:
  using Told = std::map<std::string, std::uint32_t, std::less<>>;

  Result<void> tell(std::string_view category, std::uint32_t version);
  Result<Told::iterator> told(const TableSchema& schema);
  Result<std::optional<std::uint32_t>> told_in_log(const std::string& category);
  Result<std::string> former_name(const TableSchema& schema);

  EventOut& out_;
  SchemaRegistry& schemas_;
  const Path store_;
  FileSystem& files_;
  Told told_;                               ///< The latest version of each table that came by.
  const Told::value_type* last_ = nullptr;  ///< Of the last change's table.
  /// What the open transaction told, and what was told before it.
  std::vector<std::pair<std::string, std::uint32_t>> open_;
};

/// What `now` has that `before` has not, as the payload of such an event. `before`: nullptr if
/// nothing of the table was told. `former_name` may be empty.
std::string schema_changed_payload(const TableSchema* before, const TableSchema& now,
                                   std::string_view former_name);

}  // namespace millrace
