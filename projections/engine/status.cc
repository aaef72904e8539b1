#include "projections/engine/status.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "projections/memory_view.h"
#include "schemas/lsn.h"

namespace millrace::projections {
namespace {

/// What the file itself says; the first error tells why it can't be read.
Result<void> read_file_of(const View& view, const Context& context, const LogReader& reader,
                          const StatusOptions& options, ViewStatus& status) {
  const Path file = context.generations(view).file(status.generation);
  MILLRACE_ASSIGN_OR_RETURN(const auto database,
                            sqlite::Database::open(file, sqlite::Mode::kReadOnly, context.stop));
  MILLRACE_RETURN_IF_ERROR(database->begin());
  MILLRACE_ASSIGN_OR_RETURN(status.checkpoint, read_checkpoint(*database));
  MILLRACE_ASSIGN_OR_RETURN(status.quarantine, count_set_aside(*database));
  std::error_code no_size;
  const auto bytes = std::filesystem::file_size(file, no_size);
  status.bytes = no_size ? 0 : bytes;
  MILLRACE_ASSIGN_OR_RETURN(const bool is_shown, context.generations(view).is_shown());
  if (is_shown) {
    MILLRACE_ASSIGN_OR_RETURN(status.shown, internal::read_shown(*database));
  }
  const Offset reached = std::max(status.checkpoint.offset, status.shown.value_or(Offset{}));
  status.lag = status.store_end.value - std::min(status.store_end, reached).value;
  if (auto fits = check_continuation(view, status.checkpoint, reader.store_id(), status.store_end,
                                     context.program);
      !fits) {
    status.state = "refused";
    status.reason = fits.error().message();
    return {};
  }
  if (!options.count_rows || view.count_query().empty()) return {};
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t rows, database->number(view.count_query()));
  status.rows = static_cast<std::uint64_t>(rows);
  return {};
}

SinkStatus sink_status_of(const View& view, const Generations& generations) {
  SinkStatus known = read_sink_status(generations.sink_status()).value_or(SinkStatus{});
  const std::string where = view.sink()->describe(view.sink_shape());
  return known.where == where ? known : SinkStatus{where, std::nullopt, {}};
}

}  // namespace

Result<ViewStatus> status_of(const View& view, const Context& context,
                             const StatusOptions& options) {
  const Generations generations = context.generations(view);
  ViewStatus status;
  status.view = view.name();
  MILLRACE_ASSIGN_OR_RETURN(status.worker, generations.worker());
  status.state = status.worker.empty() ? "stopped" : "running";
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(context.store));
  status.store_end = reader->durable_end();
  status.lag = status.store_end.value;
  const auto linked = generations.live();
  if (!linked) {
    status.state = "unreadable";
    status.reason = linked.error().message();
    return status;
  }
  const auto generation = *linked;
  if (!generation) {
    MILLRACE_ASSIGN_OR_RETURN(status.reason, generations.first_failure());
    if (!status.reason.empty())
      status.state = status.worker.empty() ? "failed" : "retrying";
    else if (status.worker.empty())
      status.state = "unmade";
    return status;
  }
  status.generation = *generation;
  if (view.sink() != nullptr) status.sink = sink_status_of(view, generations);
  if (auto read = read_file_of(view, context, *reader, options, status); !read) {
    status.state = "unreadable";
    status.reason = read.error().message();
  } else if (!status.checkpoint.failure.empty() && status.state != "refused") {
    status.state = status.worker.empty() ? "failed" : "retrying";
    status.reason = status.checkpoint.failure;
  }
  return status;
}

std::string to_json(const ViewStatus& status) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json json;
  json["view"] = status.view;
  json["state"] = status.state;
  json["reason"] = or_null(status.reason);
  json["worker"] = or_null(status.worker);
  json["generation"] = status.generation;
  json["version"] = status.checkpoint.version.value;
  json["offset"] = status.checkpoint.offset.value;
  json["store_end"] = status.store_end.value;
  json["lag"] = status.lag;
  json["events"] = status.checkpoint.events;
  json["rows"] = status.rows ? nlohmann::ordered_json(*status.rows) : nlohmann::ordered_json();
  json["bytes"] = status.bytes;
  json["degraded"] = status.quarantine.keys != 0;
  json["keys_set_aside"] = status.quarantine.keys;
  json["events_set_aside"] = status.quarantine.events;
  json["events_skipped"] = status.quarantine.skipped;
  json["source_lsn"] = to_string(Lsn{status.checkpoint.source_lsn});
  json["commit_time"] = status.checkpoint.commit_time.value == 0
                            ? nlohmann::ordered_json()
                            : nlohmann::ordered_json(to_iso8601(status.checkpoint.commit_time));
  if (status.shown) json["shown"] = status.shown->value;
  if (status.sink)
    json["sink"] = {
        {"where", status.sink->where},
        {"offset", status.sink->shown ? nlohmann::ordered_json(status.sink->shown->offset.value)
                                      : nlohmann::ordered_json()},
        {"failure", or_null(status.sink->failure)}};
  // Reasons may quote bytes that are no UTF-8.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace millrace::projections
