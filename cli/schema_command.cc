#include <boost/program_options.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "base/bytes.h"
#include "base/output.h"
#include "capture/source_schemas.h"
#include "capture/source_state.h"
#include "capture/table_patterns.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"
#include "eventstore/inspect.h"
#include "schemas/lsn.h"
#include "schemas/proto_file.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

Result<std::unique_ptr<SchemaRegistry>> open_registry(const std::string& store) {
  MILLRACE_RETURN_IF_ERROR(summarize_store(store));  // a clear error for what is no store
  return SchemaRegistry::open_read_only(store);
}

constexpr CommandText kList{
    "schema list", "list the tables of a store with the versions of their schemas",
    "--store DIR [--json]",
    "Lists every version of every captured table's schema, oldest first. A version is made when\n"
    "capture sees a table's columns, types, key or replica identity change."};

std::string identity_name(ReplicaIdentity identity) {
  switch (identity) {
    case ReplicaIdentity::kDefault: return "default";
    case ReplicaIdentity::kNothing: return "nothing";
    case ReplicaIdentity::kFull: return "full";
    case ReplicaIdentity::kIndex: return "index";
  }
  return "?";
}

std::string joined_names(const TableSchema& schema, bool keys_only) {
  std::string names;
  for (const ColumnSchema& column : schema.columns) {
    if (keys_only && !column.key) continue;
    if (!names.empty()) names += ", ";
    names += column.name + (keys_only ? "" : " " + column.type_name);
  }
  return printable(names, 1000);
}

std::string schema_json(const TableSchema& schema) {
  Json columns = Json::array();
  for (const ColumnSchema& column : schema.columns)
    columns.push_back({{"name", column.name},
                       {"type", column.type_name},
                       {"field", column.field},
                       {"key", column.key}});
  return to_line({{"category", schema.category},
                  {"version", schema.version},
                  {"replica_identity", identity_name(schema.replica_identity)},
                  {"first_lsn", to_string(Lsn{schema.source_lsn})},
                  {"columns", std::move(columns)}});
}

class SchemaList final : public Command {
 public:
  SchemaList() : Command(kList) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(auto registry, open_registry(store_));
    MILLRACE_ASSIGN_OR_RETURN(const auto schemas, registry->all());
    Output output;
    TextTable table({"category", "version", "since", "identity", "key", "columns"});
    for (const auto& schema : schemas) {
      if (json_) {
        output.text() += schema_json(*schema);
        continue;
      }
      table.add({printable(schema->category), std::to_string(schema->version),
                 to_string(Lsn{schema->source_lsn}), identity_name(schema->replica_identity),
                 joined_names(*schema, true), joined_names(*schema, false)});
    }
    if (!json_ && !schemas.empty()) table.append_to(output.text());
    return output.flush();
  }

 private:
  std::string store_;
  bool json_ = false;
};

constexpr CommandText kExport{
    "schema export", "write the rows' types as .proto files",
    "--store DIR | --source URI [--tables PATTERNS] [--out DIR]\n"
    "                              [--package NAME] [--publication NAME] [--outbox TABLES] "
    "[--json]",
    "Writes one .proto file per captured table, in its latest version, ready for protoc, and\n"
    "millrace/v1/values.proto, which they may import. Field numbers never change their meaning, "
    "so\n"
    "programs built from an older export keep reading newer rows. Prints the files' names.\n"
    "\n"
    "With --source a project starts before its first capture: the files are those that the first\n"
    "capture of these tables would give, read from the database, in which nothing is changed. "
    "Once\n"
    "a store has captured tables, only it knows the fields of columns that were changed since: "
    "with\n"
    "both options the source is asked where the store has none yet.\n"
    "\n"
    "Example:\n"
    "  millrace schema export --source postgresql://localhost/shop --out ./proto\n"
    "  protoc -I ./proto --python_out . ./proto/*.proto"};

/// Leaves a file alone that has this content already, so that build tools see no change.
Result<void> write_text_file(const Path& path, const std::string& text) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) return Error::from_errno(error.value(), "make " + path.parent_path().string());
  std::ifstream present(path, std::ios::binary);
  if (present && std::string(std::istreambuf_iterator<char>(present), {}) == text) return {};
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return Error::from_errno(errno, "write " + path.string());
  return {};
}

/// What an export is made of: tables, sorted by category, and the database that they come from.
struct ExportedSchemas {
  std::string database;
  std::vector<SchemaRegistry::Schema> tables;
};

/// Of each table the latest version. Nothing where nothing was captured, or there is no store yet.
Result<std::optional<ExportedSchemas>> schemas_of_store(const std::string& store,
                                                        const TablePatterns& patterns) {
  std::error_code unknown;
  if (!std::filesystem::exists(store, unknown)) return std::nullopt;
  MILLRACE_ASSIGN_OR_RETURN(auto registry, open_registry(store));
  MILLRACE_ASSIGN_OR_RETURN(const auto schemas, registry->all());
  if (schemas.empty()) return std::nullopt;
  std::map<std::string, SchemaRegistry::Schema> latest;  // all() is sorted by version
  for (const auto& schema : schemas)
    if (!patterns.given() || patterns.match(schema->schema_name, schema->table_name))
      latest[schema->category] = schema;
  MILLRACE_ASSIGN_OR_RETURN(const auto source, load_source_state(store));
  ExportedSchemas exported{.database = source ? source->database : "store", .tables = {}};
  for (auto& [category, schema] : latest) exported.tables.push_back(std::move(schema));
  if (exported.tables.empty())
    return Error(ErrorCode::kNotFound, "no captured table matches --tables")
        .hint("`millrace schema list` tells which tables " + store + " has.");
  return exported;
}

class SchemaExport final : public Command {
 public:
  SchemaExport() : Command(kExport) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                          //
        ("store", po::value(&store_)->value_name("DIR"), "the store's directory")  //
        ("source", po::value(&live_.source)->value_name("URI"),
         "the database, where the store has no tables yet or none is given")  //
        ("tables", po::value(&live_.tables)->value_name("PATTERNS"),
         "which tables: schema.table with '*' and '?', several with ',' between, '!' in front "
         "leaves out; by default all of the store, those of the publication, or public.*")  //
        ("out", po::value(&out_)->value_name("DIR")->default_value("."),
         "where the files go; made if missing")  //
        ("package", po::value(&package_)->value_name("NAME"),
         "Protobuf package of the tables in schema public; by default the database's name")  //
        ("publication",
         po::value(&live_.publication)->value_name("NAME")->default_value(live_.publication),
         "of the source: which tables and columns, where it is there already")  //
        ("outbox", po::value(&live_.outbox)->value_name("TABLES"),
         "of the source: tables whose rows are domain events, as for `capture run`; they have no "
         "row type")  //
        ("json", po::bool_switch(&json_), "one JSON object per file");
  }

  Result<void> check() override {
    if (store_.empty() && live_.source.empty())
      return Error(ErrorCode::kInvalidArgument,
                   "--store or --source is missing (or MILLRACE_STORE, MILLRACE_SOURCE)");
    MILLRACE_ASSIGN_OR_RETURN(patterns_, TablePatterns::parse(live_.tables));
    MILLRACE_RETURN_IF_ERROR(parse_table_names(live_.outbox));
    if (package_.empty() || package_name(package_) == package_) return {};
    return Error(ErrorCode::kInvalidArgument, "--package '" + package_ + "' is no package name; '" +
                                                  package_name(package_) + "' would be one");
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const ExportedSchemas exported, find_schemas());
    const std::string package = package_.empty() ? package_name(exported.database) : package_;
    Output output;
    for (const auto& schema : exported.tables) {
      const bool sub_package = schema->schema_name != "public";
      const std::string name = proto_file_name(*schema);
      const std::string full_package =
          sub_package ? package + "." + package_name(schema->schema_name) : package;
      MILLRACE_RETURN_IF_ERROR(
          write_text_file(Path(out_) / name, to_proto_file(*schema, full_package)));
      report(output.text(), name, schema.get());
    }
    const std::string values(kValuesProtoPath);
    MILLRACE_RETURN_IF_ERROR(write_text_file(Path(out_) / values, values_proto_file()));
    report(output.text(), values, nullptr);
    return output.flush();
  }

 private:
  Result<ExportedSchemas> find_schemas() const {
    if (!store_.empty()) {
      if (live_.source.empty()) MILLRACE_RETURN_IF_ERROR(summarize_store(store_));
      MILLRACE_ASSIGN_OR_RETURN(auto stored, schemas_of_store(store_, patterns_));
      if (stored) return *std::move(stored);
      if (live_.source.empty())
        return Error(ErrorCode::kNotFound, "no table was captured into " + store_ + " yet")
            .hint("--source URI gives the tables of a database that is not captured yet.");
    }
    MILLRACE_ASSIGN_OR_RETURN(SourceSchemas live, read_source_schemas(live_));
    return ExportedSchemas{.database = std::move(live.database), .tables = std::move(live.tables)};
  }

  void report(std::string& out, const std::string& name, const TableSchema* schema) const {
    const std::string path = (Path(out_) / name).lexically_normal().string();
    if (!json_) {
      out += path + "\n";
      return;
    }
    Json json{{"file", path}};
    if (schema != nullptr) json["category"] = schema->category, json["version"] = schema->version;
    out += to_line(json);
  }

  std::string store_, out_, package_;
  SourceSchemasQuestion live_;
  TablePatterns patterns_;
  bool json_ = false;
};

}  // namespace

void add_schema_commands(Commands& commands) {
  commands.push_back(std::make_unique<SchemaList>());
  commands.push_back(std::make_unique<SchemaExport>());
}

}  // namespace millrace
