#include "projections/engine/checkpoint.h"

#include <algorithm>
#include <vector>

namespace millrace::projections {
namespace {

// An offset is kept as SQLite's signed integer: 2^63 events are out of reach.
std::int64_t number(std::uint64_t value) { return static_cast<std::int64_t>(value); }
std::uint64_t unsigned_number(const Value& value) {
  return static_cast<std::uint64_t>(value.integer());
}

/// Files that were made before it was kept have no column for it.
Result<bool> keeps_last_event(sqlite::Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::int64_t columns,
      database.number("SELECT count(*) FROM pragma_table_info('millrace_checkpoint') WHERE name = "
                      "'last_event'"));
  return columns != 0;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

/// "- only in the file", "+ only in the program", a line each.
std::string difference(const std::string& file, const std::string& program) {
  const auto in_file = lines_of(file), in_program = lines_of(program);
  std::string out;
  const auto add_missing = [&](const auto& from, const auto& in, std::string_view mark) {
    for (const auto& line : from)
      if (std::find(in.begin(), in.end(), line) == in.end())
        out += "\n    " + std::string(mark) + line;
  };
  add_missing(in_file, in_program, "- ");
  add_missing(in_program, in_file, "+ ");
  return out.empty() ? "\n    the same lines in another order" : out;
}

}  // namespace

Result<void> create_checkpoint(sqlite::Database& database, const Checkpoint& checkpoint) {
  MILLRACE_RETURN_IF_ERROR(database.execute(
      "CREATE TABLE millrace_checkpoint(view TEXT NOT NULL, version INTEGER NOT NULL, shape TEXT "
      "NOT NULL, "
      "store_id TEXT NOT NULL, \"offset\" INTEGER NOT NULL, events INTEGER NOT NULL, source_epoch "
      "INTEGER NOT NULL, "
      "source_lsn INTEGER NOT NULL, commit_time INTEGER NOT NULL, failure TEXT NOT NULL, "
      "last_event INTEGER)"));
  MILLRACE_ASSIGN_OR_RETURN(
      sqlite::Statement insert,
      database.prepare(
          "INSERT INTO millrace_checkpoint VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '', NULL)"));
  insert.bind(1, checkpoint.view);
  insert.bind(2, checkpoint.version.value);
  insert.bind(3, checkpoint.shape);
  insert.bind(4, checkpoint.store_id);
  insert.bind(5, number(checkpoint.offset.value));
  insert.bind(6, number(checkpoint.events));
  insert.bind(7, checkpoint.source_epoch);
  insert.bind(8, number(checkpoint.source_lsn));
  insert.bind(9, checkpoint.commit_time.value);
  return insert.run();
}

Result<Checkpoint> read_checkpoint(sqlite::Database& database) {
  const auto no_view = [&] {
    return Error(ErrorCode::kFailedPrecondition,
                 database.file().string() + " is no view of millrace: it has no checkpoint")
        .hint("Move the file away, then run `rebuild`.");
  };
  MILLRACE_ASSIGN_OR_RETURN(
      const std::int64_t tables,
      database.number("SELECT count(*) FROM sqlite_schema WHERE name = 'millrace_checkpoint'"));
  if (tables == 0) return no_view();
  MILLRACE_ASSIGN_OR_RETURN(const bool has_last_event, keeps_last_event(database));
  MILLRACE_ASSIGN_OR_RETURN(
      sqlite::Statement select,
      database.prepare(std::string("SELECT view, version, shape, store_id, \"offset\", events, "
                                   "source_epoch, source_lsn, commit_time, failure, ") +
                       (has_last_event ? "last_event" : "NULL") + " FROM millrace_checkpoint"));
  MILLRACE_ASSIGN_OR_RETURN(const bool there, select.step());
  if (!there) return no_view();
  Checkpoint checkpoint;
  checkpoint.view = select.column(0).text();
  checkpoint.version.value = static_cast<std::uint32_t>(select.column(1).integer());
  checkpoint.shape = select.column(2).text();
  checkpoint.store_id = select.column(3).text();
  checkpoint.offset.value = unsigned_number(select.column(4));
  checkpoint.events = unsigned_number(select.column(5));
  checkpoint.source_epoch = static_cast<std::uint32_t>(select.column(6).integer());
  checkpoint.source_lsn = unsigned_number(select.column(7));
  checkpoint.commit_time.value = select.column(8).integer();
  checkpoint.failure = select.column(9).text();
  if (const Value last = select.column(10); !last.is_null())
    checkpoint.last_event = Offset{unsigned_number(last)};
  return checkpoint;
}

Result<void> write_failure(sqlite::Database& database, const std::string& failure) {
  MILLRACE_ASSIGN_OR_RETURN(
      sqlite::Statement update,
      database.prepare("UPDATE millrace_checkpoint SET failure = ?1 WHERE failure <> ?1"));
  update.bind(1, failure);
  return update.run();
}

Result<CheckpointWriter> CheckpointWriter::make(sqlite::Database& database) {
  CheckpointWriter writer;
  MILLRACE_ASSIGN_OR_RETURN(writer.keeps_last_event_, keeps_last_event(database));
  MILLRACE_ASSIGN_OR_RETURN(
      writer.update_,
      database.prepare(std::string("UPDATE millrace_checkpoint SET \"offset\" = ?1, events = ?2, "
                                   "source_epoch = ?3, source_lsn = ?4, commit_time = ?5") +
                       (writer.keeps_last_event_ ? ", last_event = ?6" : "")));
  MILLRACE_ASSIGN_OR_RETURN(
      writer.look_,
      database.prepare(
          "SELECT count(*) FROM millrace_checkpoint WHERE \"offset\" = ?1 AND events = ?2"));
  return writer;
}

Result<bool> CheckpointWriter::stands_at(const Checkpoint& checkpoint) {
  look_.bind(1, number(checkpoint.offset.value));
  look_.bind(2, number(checkpoint.events));
  MILLRACE_RETURN_IF_ERROR(look_.step());
  const bool stands = look_.column(0).integer() == 1;
  look_.reset();
  return stands;
}

Result<void> CheckpointWriter::write(const Checkpoint& checkpoint) {
  update_.bind(1, number(checkpoint.offset.value));
  update_.bind(2, number(checkpoint.events));
  update_.bind(3, checkpoint.source_epoch);
  update_.bind(4, number(checkpoint.source_lsn));
  update_.bind(5, checkpoint.commit_time.value);
  if (keeps_last_event_)
    update_.bind(6, checkpoint.last_event ? Value(number(checkpoint.last_event->value)) : Value());
  return update_.run();
}

Result<void> check_continuation(const View& view, const Checkpoint& checkpoint,
                                const StoreId& store, Offset durable_end,
                                const std::string& program) {
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::kFailedPrecondition, "view " + view.name() + ": " + why)
        .hint("To make the view anew from the log, run: " + program + " rebuild " + view.name());
  };
  if (checkpoint.store_id != to_string(store))
    return refuse("its file was made from another store (" + checkpoint.store_id +
                  ", this one is " + to_string(store) + ")");
  if (checkpoint.version != view.version())
    return refuse("its file is of version " + std::to_string(checkpoint.version.value) +
                  ", the program has version " + std::to_string(view.version().value));
  if (checkpoint.shape != view.shape())
    return refuse("it is declared otherwise than its file was made (- file, + program):" +
                  difference(checkpoint.shape, view.shape()));
  if (checkpoint.offset > durable_end)
    return refuse("CHECKPOINT_AHEAD: it has folded the log up to offset " +
                  std::to_string(checkpoint.offset.value) + ", but the store ends at " +
                  std::to_string(durable_end.value) +
                  "; an older copy of the store must have been put back");
  return {};
}

}  // namespace millrace::projections
