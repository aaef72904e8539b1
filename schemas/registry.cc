#include "schemas/registry.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/check.h"
#include "schemas/storage/registry_file.h"

namespace millrace {
namespace {

bool same_type(const ColumnSchema& a, const ColumnSchema& b) {
  return a.kind == b.kind && a.array == b.array;
}

/// Whether a row of `a` and one of `b` mean the same; numbers and where it was seen don't count.
bool same_shape(const TableSchema& a, const TableSchema& b) {
  const auto same_column = [](const ColumnSchema& x, const ColumnSchema& y) {
    return x.name == y.name && same_type(x, y) && x.key == y.key && x.type_oid == y.type_oid &&
           x.type_modifier == y.type_modifier && x.type_name == y.type_name;
  };
  return a.replica_identity == b.replica_identity &&
         std::ranges::equal(a.columns, b.columns, same_column);
}

/// Gives out field numbers from 1, never one that Protobuf keeps for itself.
class FieldNumbers {
 public:
  explicit FieldNumbers(const TableSchema* latest) {
    if (latest == nullptr) return;
    for (const ColumnSchema& column : latest->columns) last_ = std::max(last_, column.field);
    for (const auto& [field, name] : latest->retired) last_ = std::max(last_, field);
  }
  std::uint32_t next() { return ++last_ == 19'000 ? last_ = 20'000 : last_; }

 private:
  std::uint32_t last_ = 0;
};

/// Fills in version, field numbers and retired numbers of `seen`, the schema that comes after
/// `latest`.
void number_fields(const TableSchema* latest, TableSchema& seen) {
  FieldNumbers numbers(latest);
  std::set<std::uint32_t> kept;
  for (ColumnSchema& column : seen.columns) {
    const ColumnSchema* old = latest == nullptr ? nullptr : latest->column(column.name);
    const bool keeps = old != nullptr && same_type(*old, column);
    column.field = keeps ? old->field : numbers.next();
    if (keeps) kept.insert(column.field);
  }
  seen.version = latest == nullptr ? 1 : latest->version + 1;
  seen.retired.clear();
  if (latest == nullptr) return;
  seen.retired = latest->retired;
  for (const ColumnSchema& old : latest->columns)
    if (!kept.contains(old.field)) seen.retired.emplace_back(old.field, old.name);
}

}  // namespace

SchemaRegistry::SchemaRegistry(FileSystem* files, Path path, Mode mode)
    : files_(files), path_(std::move(path)), mode_(mode) {}

SchemaRegistry::~SchemaRegistry() = default;

Result<std::unique_ptr<SchemaRegistry>> SchemaRegistry::open(const Path& store_directory,
                                                             FileSystem& files) {
  std::unique_ptr<SchemaRegistry> registry(
      new SchemaRegistry(&files, store_directory / "schemas", Mode::kWriter));
  MILLRACE_RETURN_IF_ERROR(registry->open_for_writing());
  return registry;
}

Result<std::unique_ptr<SchemaRegistry>> SchemaRegistry::open_read_only(const Path& store_directory,
                                                                       FileSystem& files) {
  std::unique_ptr<SchemaRegistry> registry(
      new SchemaRegistry(&files, store_directory / "schemas", Mode::kReader));
  MILLRACE_RETURN_IF_ERROR(registry->refresh());
  return registry;
}

std::unique_ptr<SchemaRegistry> SchemaRegistry::in_memory() {
  return std::unique_ptr<SchemaRegistry>(new SchemaRegistry(nullptr, {}, Mode::kMemory));
}

Result<void> SchemaRegistry::open_for_writing() {
  MILLRACE_ASSIGN_OR_RETURN(const bool exists, files_->exists(path_));
  if (!exists)
    MILLRACE_RETURN_IF_ERROR(write_file_atomically(*files_, path_, registry_file::encode_header()));
  const MutexLock lock(file_mutex_);
  MILLRACE_ASSIGN_OR_RETURN(file_, files_->open(path_, OpenMode::kReadWrite));
  MILLRACE_ASSIGN_OR_RETURN(const Loaded loaded, load());
  return settle(loaded);
}

/// Cuts off what is beyond the last whole item, and makes durable what is before it: events may
/// refer to it from now on.
///
/// That takes more than a sync. Somebody died before his sync, or it failed; after a failed one the
/// page cache holds bytes that are called clean and never reached the disk, so they are written
/// once more. Only the last mark and what follows it can be in that state: nothing is written
/// behind a mark before it is synced. The file's name may not be durable either.
Result<void> SchemaRegistry::settle(const Loaded& loaded) {
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, file_->size());
  if (size != end_) {
    spdlog::warn("{}: cut off {} bytes at byte {} that a crash left unfinished", path_.string(),
                 size - end_, end_);
    MILLRACE_RETURN_IF_ERROR(file_->truncate(end_));
  }
  std::string bytes(end_ - loaded.mark, '\0');
  MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file_->read_at(loaded.mark, bytes));
  MILLRACE_CHECK(count == bytes.size());  // load() has just read it
  if (!bytes.empty()) MILLRACE_RETURN_IF_ERROR(file_->write_at(loaded.mark, bytes));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  MILLRACE_RETURN_IF_ERROR(files_->sync_directory(path_.parent_path()));
  return loaded.marked ? Result<void>{} : write_mark();
}

Result<void> SchemaRegistry::write_mark() {
  std::string mark;
  registry_file::append_mark(end_, mark);
  MILLRACE_RETURN_IF_ERROR(file_->write_at(end_, mark));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  end_ += mark.size();
  return {};
}

/// Takes in what the file holds beyond `end_`.
Result<SchemaRegistry::Loaded> SchemaRegistry::load() {
  const auto wrong = [&](Error error) { return std::move(error).context(path_.string()); };
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, file_->size());
  if (size < end_) return wrong(registry_file::damage(size, "the file has become shorter"));
  if (size > registry_file::kFileBytesMax)
    return wrong(registry_file::damage(size, "the file is larger than it can be"));
  if (size == end_ && end_ != 0) return Loaded{.mark = end_};
  std::string bytes(size - end_, '\0');
  MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file_->read_at(end_, bytes));
  bytes.resize(count);
  std::string_view items = bytes;
  std::uint64_t position = end_;
  if (position == 0) {
    if (auto fine = registry_file::check_header(items); !fine)
      return wrong(std::move(fine).error());
    position = registry_file::kHeaderBytes;
    items.remove_prefix(position);
  }
  auto scanned = registry_file::scan(items, position);
  if (!scanned) return wrong(std::move(scanned).error());
  const MutexLock lock(mutex_);
  for (registry_file::Record& record : scanned->records) {
    const auto found = versions_.find(record.schema.category);
    const std::size_t before = found == versions_.end() ? 0 : found->second.size();
    if (record.schema.version != before + 1)
      return wrong(registry_file::damage(
          record.position, "version " + std::to_string(record.schema.version) +
                               " of a table comes after version " + std::to_string(before)));
    Schema schema = std::make_shared<const TableSchema>(std::move(record.schema));
    versions_[schema->category].push_back(std::move(schema));
  }
  end_ = scanned->end;
  return Loaded{.mark = scanned->mark, .marked = scanned->marked};
}

/// For readers: looks at the file again. It may come into being after the reader did.
Result<void> SchemaRegistry::refresh() {
  if (mode_ != Mode::kReader) return {};
  const MutexLock lock(file_mutex_);
  auto opened = files_->open(path_, OpenMode::kRead);
  if (!opened && opened.error().code() == ErrorCode::kNotFound) return {};
  MILLRACE_ASSIGN_OR_RETURN(file_, std::move(opened));
  MILLRACE_RETURN_IF_ERROR(load());
  return {};
}

Result<SchemaRegistry::Schema> SchemaRegistry::record(TableSchema seen) {
  if (mode_ == Mode::kReader)
    return Error(ErrorCode::kFailedPrecondition,
                 path_.string() + " was opened for reading only; nothing can be recorded in it");
  const MutexLock lock(mutex_);
  if (failure_) return *failure_;
  const auto found = versions_.find(seen.category);
  const Schema latest = found == versions_.end() ? nullptr : found->second.back();
  if (latest != nullptr && same_shape(*latest, seen)) return latest;
  number_fields(latest.get(), seen);
  MILLRACE_RETURN_IF_ERROR(registry_file::check_schema(seen));
  Schema schema = std::make_shared<const TableSchema>(std::move(seen));
  versions_[schema->category].push_back(schema);
  if (mode_ == Mode::kWriter) pending_.push_back(schema);
  return schema;
}

Result<void> SchemaRegistry::flush() {
  const MutexLock file_lock(file_mutex_);
  std::vector<Schema> pending;
  {
    const MutexLock lock(mutex_);
    if (failure_) return *failure_;
    if (pending_.empty()) return {};
    pending.swap(pending_);
  }
  auto appended = append(pending);
  if (appended) return {};
  const MutexLock lock(mutex_);
  failure_ = std::move(appended).error().context("write table schemas");
  return *failure_;
}

Result<void> SchemaRegistry::append(const std::vector<Schema>& schemas) {
  std::string bytes;
  for (const Schema& schema : schemas)
    MILLRACE_RETURN_IF_ERROR(registry_file::append_record(*schema, end_ + bytes.size(), bytes));
  MILLRACE_RETURN_IF_ERROR(file_->write_at(end_, bytes));
  MILLRACE_RETURN_IF_ERROR(file_->sync());
  end_ += bytes.size();
  return write_mark();
}

SchemaRegistry::Schema SchemaRegistry::known(std::string_view category, std::uint32_t version) {
  const MutexLock lock(mutex_);
  const auto found = versions_.find(category);
  if (found == versions_.end() || version == 0 || version > found->second.size()) return nullptr;
  return found->second[version - 1];
}

Result<SchemaRegistry::Schema> SchemaRegistry::find(std::string_view category,
                                                    std::uint32_t version) {
  if (Schema schema = known(category, version)) return schema;
  MILLRACE_RETURN_IF_ERROR(refresh());
  if (Schema schema = known(category, version)) return schema;
  return Error(ErrorCode::kNotFound, "no version " + std::to_string(version) + " of a table \"" +
                                         printable(category) + "\" in " + path_.string());
}

Result<SchemaRegistry::Schema> SchemaRegistry::latest(std::string_view category) {
  MILLRACE_RETURN_IF_ERROR(refresh());
  const MutexLock lock(mutex_);
  const auto found = versions_.find(category);
  if (found != versions_.end()) return found->second.back();
  return Error(ErrorCode::kNotFound,
               "no table \"" + printable(category) + "\" in " + path_.string());
}

Result<std::vector<SchemaRegistry::Schema>> SchemaRegistry::all() {
  MILLRACE_RETURN_IF_ERROR(refresh());
  std::vector<Schema> schemas;
  const MutexLock lock(mutex_);
  for (const auto& [category, versions] : versions_)
    schemas.insert(schemas.end(), versions.begin(), versions.end());
  return schemas;
}

}  // namespace millrace
