#include "schemas/registry.h"

#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "base/bytes.h"
#include "base/checksum.h"
#include "schemas/storage/registry_file.h"
#include "tests/support/catch.h"
#include "tests/support/fault_fs.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

ColumnSchema column(const std::string& name, ValueKind kind = ValueKind::kText, bool key = false) {
  return {.name = name,
          .kind = kind,
          .key = key,
          .type_oid = 25,
          .type_name = std::string(name_of(kind))};
}

TableSchema table(const std::string& name, std::vector<ColumnSchema> columns) {
  TableSchema schema{.category = "public." + name,
                     .schema_name = "public",
                     .table_name = name,
                     .relation_oid = 4'294'967'200};
  schema.columns = std::move(columns);
  return schema;
}

TableSchema orders() {
  return table("orders", {column("id", ValueKind::kInt64, true), column("note")});
}

std::string read_bytes(const Path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const Path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// Categories and versions, with the fields of each.
std::string summary(SchemaRegistry& registry) {
  std::string text;
  const auto all = registry.all().value();
  for (const auto& schema : all) {
    text += schema->category + " " + std::to_string(schema->version) + ":";
    for (const ColumnSchema& c : schema->columns)
      text += " " + c.name + "=" + std::to_string(c.field);
    text += ";";
  }
  return text;
}

/// A registry file with three flushes: two tables, then a second and a third version of one.
std::string sample_file(const TemporaryDirectory& directory) {
  const auto registry = SchemaRegistry::open(directory.path()).value();
  REQUIRE(registry->record(orders()));
  REQUIRE(registry->record(table("items", {column("id", ValueKind::kUuid, true)})));
  REQUIRE(registry->flush());
  TableSchema more = orders();
  more.columns.push_back(column("total", ValueKind::kNumeric));
  REQUIRE(registry->record(more));
  REQUIRE(registry->flush());
  REQUIRE(registry->record(orders()));
  REQUIRE(registry->flush());
  return read_bytes(directory / "schemas");
}

const std::string kWhole =
    "public.items 1: id=1;public.orders 1: id=1 note=2;public.orders 2: id=1 note=2 total=3;"
    "public.orders 3: id=1 note=2;";

}  // namespace

TEST_CASE("a table that is seen again is the same version", "[schemas][registry]") {
  const TemporaryDirectory directory;
  const auto registry = SchemaRegistry::open(directory.path()).value();
  const auto first = registry->record(orders()).value();
  CHECK(first->version == 1);
  CHECK(registry->record(orders()).value() == first);
  TableSchema elsewhere = orders();
  elsewhere.source_lsn = 99;
  elsewhere.relation_oid = 7;
  CHECK(registry->record(elsewhere).value() == first);
}

TEST_CASE("each change of a table makes a version", "[schemas][registry]") {
  const auto registry = SchemaRegistry::in_memory();
  std::uint32_t version = registry->record(orders()).value()->version;
  const std::vector<std::function<void(TableSchema&)>> changes = {
      [](TableSchema& s) { s.columns[1].name = "remark"; },
      [](TableSchema& s) { s.columns[1].kind = ValueKind::kJson; },
      [](TableSchema& s) { s.columns[1].array = true; },
      [](TableSchema& s) { s.columns[1].key = true; },
      [](TableSchema& s) { s.columns[1].type_oid = 1043; },
      [](TableSchema& s) { s.columns[1].type_modifier = 24; },
      [](TableSchema& s) { s.columns[1].type_name = "varchar(20)"; },
      [](TableSchema& s) { s.columns.push_back(column("more")); },
      [](TableSchema& s) { s.columns.pop_back(); },
      [](TableSchema& s) { std::swap(s.columns[0], s.columns[1]); },
      [](TableSchema& s) { s.replica_identity = ReplicaIdentity::kFull; }};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    CAPTURE(i);
    TableSchema changed = orders();
    changes[i](changed);
    CHECK(registry->record(changed).value()->version == ++version);
    CHECK(registry->record(orders()).value()->version == ++version);
  }
}

TEST_CASE("F71: a field number never comes back for something else", "[schemas][registry]") {
  const auto registry = SchemaRegistry::in_memory();
  const auto fields = [&](std::vector<ColumnSchema> columns) {
    const auto schema = registry->record(table("t", std::move(columns))).value();
    std::vector<std::uint32_t> numbers;
    for (const ColumnSchema& c : schema->columns) numbers.push_back(c.field);
    return numbers;
  };
  using Numbers = std::vector<std::uint32_t>;
  CHECK(fields({column("a"), column("b"), column("c")}) == Numbers{1, 2, 3});
  CHECK(fields({column("a"), column("c")}) == Numbers{1, 3});
  CHECK(fields({column("a"), column("c"), column("b")}) ==
        Numbers{1, 3, 4});  // dropped and added again
  CHECK(fields({column("a", ValueKind::kJson), column("c"), column("b")}) == Numbers{5, 3, 4});
  CHECK(fields({column("b"), column("c"), column("a", ValueKind::kJson)}) ==
        Numbers{4, 3, 5});  // order is free
  CHECK(fields({column("d")}) == Numbers{6});
  const auto latest = registry->latest("public.t").value();
  using Retired = std::vector<std::pair<std::uint32_t, std::string>>;
  CHECK(latest->retired == Retired{{2, "b"}, {1, "a"}, {4, "b"}, {3, "c"}, {5, "a"}});
}

TEST_CASE("field numbers that Protobuf keeps for itself are left out", "[schemas][registry]") {
  const auto registry = SchemaRegistry::in_memory();
  std::vector<ColumnSchema> columns;
  for (int i = 0; i < 19'001; ++i) columns.push_back(column("c" + std::to_string(i)));
  const auto schema = registry->record(table("wide", columns)).value();
  CHECK(schema->columns[18'998].field == 18'999);
  CHECK(schema->columns[18'999].field == 20'000);
  CHECK(schema->columns[19'000].field == 20'001);
}

TEST_CASE("what can be no table is refused and leaves nothing behind", "[schemas][registry]") {
  const auto registry = SchemaRegistry::in_memory();
  TableSchema twice = orders();
  twice.columns.push_back(column("note"));
  CHECK(registry->record(twice).error().code() == ErrorCode::kInvalidArgument);
  TableSchema nameless = orders();
  nameless.category.clear();
  CHECK(registry->record(nameless).error().code() == ErrorCode::kInvalidArgument);
  TableSchema odd = orders();
  odd.replica_identity = static_cast<ReplicaIdentity>('x');
  CHECK(registry->record(odd).error().code() == ErrorCode::kInvalidArgument);
  CHECK(registry->all().value().empty());
  CHECK(registry->latest("public.orders").error().code() == ErrorCode::kNotFound);
  CHECK(registry->record(orders()).value()->version == 1);
}

TEST_CASE("a registry is read back as it was written", "[schemas][registry]") {
  const TemporaryDirectory directory;
  sample_file(directory);
  for (const bool writer : {false, true}) {
    const auto registry = (writer ? SchemaRegistry::open(directory.path())
                                  : SchemaRegistry::open_read_only(directory.path()))
                              .value();
    CHECK(summary(*registry) == kWhole);
    const auto second = registry->find("public.orders", 2).value();
    CHECK(second->columns[2].kind == ValueKind::kNumeric);
    CHECK(second->columns[0].key);
    CHECK(second->relation_oid == 4'294'967'200);
    CHECK(registry->latest("public.orders").value()->retired.size() == 1);
    CHECK(registry->find("public.orders", 4).error().code() == ErrorCode::kNotFound);
    CHECK(registry->find("public.orders", 0).error().code() == ErrorCode::kNotFound);
    CHECK(registry->find("public.none", 1).error().code() == ErrorCode::kNotFound);
  }
}

TEST_CASE("the bytes of format version 1 never change", "[schemas][registry][golden]") {
  const std::string golden =
      // header: magic, version, 0, checksum
      "4d494c4c5343484d"
      "01000000"
      "00000000"
      "e9ede5c5b1d56522"
      // record: length, check, millrace.v1.TableSchema
      "5c000000"
      "90ff97709a9988ab"
      "0a087075626c69632e7410011a067075626c696322017430643a160a0269641001180328013014380142066269"
      "67696e743a160a016e10031808200130f10738014206746578745b5d420808021204676f6e65494d000000000000"
      "00"
      // mark: length 0, check
      "00000000"
      "c0238f050285e272";
  TableSchema schema = table("t", {column("id", ValueKind::kInt64, true), column("n")});
  schema.version = 1;
  schema.relation_oid = 0;
  schema.source_lsn = 77;
  schema.retired = {{2, "gone"}};
  schema.columns[0].field = 1;
  schema.columns[0].type_oid = 20;
  schema.columns[0].type_name = "bigint";
  schema.columns[1].field = 3;
  schema.columns[1].array = true;
  schema.columns[1].type_oid = 1009;
  schema.columns[1].type_name = "text[]";

  std::string bytes = registry_file::encode_header();
  REQUIRE(registry_file::append_record(schema, bytes.size(), bytes));
  registry_file::append_mark(bytes.size(), bytes);
  CHECK(to_hex(bytes) == golden);

  const TemporaryDirectory directory;
  write_bytes(directory / "schemas", from_hex(golden).value());
  const auto read = SchemaRegistry::open(directory.path()).value()->latest("public.t").value();
  CHECK(read->columns == schema.columns);
  CHECK(read->retired == schema.retired);
  CHECK(read->source_lsn == 77);
}

TEST_CASE("B14: names that are no UTF-8 are kept as bytes", "[schemas][registry]") {
  const TemporaryDirectory directory;
  TableSchema schema = orders();
  schema.category = "public.\xff\xfe";
  schema.columns[1].name = "caf\xe9";
  const auto writer = SchemaRegistry::open(directory.path()).value();
  REQUIRE(writer->record(schema));
  REQUIRE(writer->flush());
  const auto reader = SchemaRegistry::open_read_only(directory.path()).value();
  CHECK(reader->latest("public.\xff\xfe").value()->columns[1].name == "caf\xe9");
}

TEST_CASE("a reader picks up what a writer adds, and a file that comes later",
          "[schemas][registry]") {
  const TemporaryDirectory directory;
  const auto reader = SchemaRegistry::open_read_only(directory.path()).value();
  CHECK(reader->all().value().empty());
  CHECK(reader->find("public.orders", 1).error().code() == ErrorCode::kNotFound);
  CHECK(reader->record(orders()).error().code() == ErrorCode::kFailedPrecondition);

  const auto writer = SchemaRegistry::open(directory.path()).value();
  CHECK(reader->find("public.orders", 1).error().code() == ErrorCode::kNotFound);
  REQUIRE(writer->record(orders()));
  CHECK(reader->find("public.orders", 1).error().code() == ErrorCode::kNotFound);  // not flushed
  REQUIRE(writer->flush());
  CHECK(reader->find("public.orders", 1).value()->columns.size() == 2);

  REQUIRE(writer->record(table("orders", {column("id", ValueKind::kInt64, true)})));
  REQUIRE(writer->flush());
  CHECK(reader->latest("public.orders").value()->version == 2);
  CHECK(summary(*reader) == summary(*writer));
}

TEST_CASE("a flush with nothing new writes nothing", "[schemas][registry]") {
  const TemporaryDirectory directory;
  const std::string before = sample_file(directory);
  const auto registry = SchemaRegistry::open(directory.path()).value();
  REQUIRE(registry->record(orders()));
  REQUIRE(registry->flush());
  CHECK(read_bytes(directory / "schemas") == before);
}

TEST_CASE("F29: a cut at any byte loses only the versions after it",
          "[schemas][registry][recovery]") {
  const TemporaryDirectory sample;
  const std::string whole = sample_file(sample);
  const TemporaryDirectory directory;
  const Path file = directory / "schemas";
  std::size_t longest = 0;
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    CAPTURE(cut);
    write_bytes(file, whole.substr(0, cut));
    const auto reader = SchemaRegistry::open_read_only(directory.path());
    const auto writer = SchemaRegistry::open(directory.path());
    if (cut < registry_file::kHeaderBytes) {
      REQUIRE_FALSE(reader);
      CHECK(reader.error().code() == ErrorCode::kCorruption);
      REQUIRE_FALSE(writer);
      continue;
    }
    REQUIRE(reader);
    REQUIRE(writer);
    const auto kept = (*writer)->all().value();
    CHECK(summary(**reader) == summary(**writer));
    CHECK(kept.size() <= 4);
    CHECK(kept.size() >= longest);
    longest = kept.size();
    // What is left can be written on, and is whole again.
    REQUIRE((*writer)->record(table("new", {column("id")})));
    REQUIRE((*writer)->flush());
    const auto again = SchemaRegistry::open_read_only(directory.path()).value();
    CHECK(again->all().value().size() == kept.size() + 1);
  }
  CHECK(longest == 4);
}

TEST_CASE("F30: every flipped bit is found or changes nothing", "[schemas][registry][recovery]") {
  const TemporaryDirectory sample;
  const std::string whole = sample_file(sample);
  const Path directory = "/store", file = directory / "schemas";
  FaultFs files;
  REQUIRE(files.make_directory(directory));
  std::size_t found = 0, harmless = 0;
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    files.set_content(file, damaged);
    const auto reader = SchemaRegistry::open_read_only(directory, files);
    if (!reader) {
      ++found;
      CHECK(reader.error().code() == ErrorCode::kCorruption);
      CHECK(reader.error().message().find(file.string()) != std::string::npos);
      CHECK(reader.error().message().find("byte ") != std::string::npos);
      const auto writer = SchemaRegistry::open(directory, files);
      REQUIRE_FALSE(writer);
      CHECK(files.content(file) == damaged);  // nothing was touched
      continue;
    }
    ++harmless;
    CHECK(summary(**reader) == kWhole);
  }
  CHECK(harmless == registry_file::kItemHeaderBytes * 8);  // the mark at the end
  CHECK(found + harmless == whole.size() * 8);
}

TEST_CASE("F32: a record that lies elsewhere than where it was written is found",
          "[schemas][registry][recovery]") {
  const TemporaryDirectory directory;
  const Path file = directory / "schemas";
  const std::string whole = sample_file(directory);
  const std::size_t first = registry_file::kHeaderBytes;
  const std::size_t second =
      first + registry_file::kItemHeaderBytes + load_le<std::uint32_t>(whole.data() + first);
  std::string without = whole.substr(0, first) + whole.substr(second);
  write_bytes(file, without);
  // All that follows lies elsewhere now, marks too: nothing is believed, as if a crash had torn it.
  CHECK(SchemaRegistry::open_read_only(directory.path()).value()->all().value().empty());
  const std::string doubled =
      whole.substr(0, second) + whole.substr(first, second - first) + whole.substr(second);
  write_bytes(file, doubled);
  CHECK(SchemaRegistry::open_read_only(directory.path()).value()->all().value().size() == 1);
}

TEST_CASE("F24, F25: zeros and garbage after the end are a torn tail",
          "[schemas][registry][recovery]") {
  const TemporaryDirectory directory;
  const Path file = directory / "schemas";
  const std::string whole = sample_file(directory);
  for (const std::string& tail :
       {std::string(1, '\0'), std::string(12, '\0'), std::string(4096, '\0'),
        std::string(100, '\xff'), whole.substr(registry_file::kHeaderBytes)}) {
    write_bytes(file, whole + tail);
    CHECK(summary(*SchemaRegistry::open_read_only(directory.path()).value()) == kWhole);
    CHECK(read_bytes(file) == whole + tail);  // a reader changes nothing
    CHECK(summary(*SchemaRegistry::open(directory.path()).value()) == kWhole);
    CHECK(read_bytes(file) == whole);
  }
}

TEST_CASE("B21: another file, a newer version and a shorter file are refused",
          "[schemas][registry]") {
  const TemporaryDirectory directory;
  const Path file = directory / "schemas";
  write_bytes(file, "#!/bin/sh\necho this is no registry\n");
  CHECK(SchemaRegistry::open(directory.path()).error().code() == ErrorCode::kCorruption);
  write_bytes(file, "");
  CHECK(SchemaRegistry::open(directory.path()).error().code() == ErrorCode::kCorruption);

  std::string newer("MILLSCHM");
  append_le<std::uint32_t>(newer, 2);
  append_le<std::uint32_t>(newer, 0);
  append_le<std::uint64_t>(newer, checksum(newer));
  write_bytes(file, newer + "anything");
  const auto refused = SchemaRegistry::open_read_only(directory.path());
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == ErrorCode::kUnsupported);
  CHECK(refused.error().message().find("version 2") != std::string::npos);

  std::filesystem::remove(file);
  const std::string whole = sample_file(directory);
  const auto reader = SchemaRegistry::open_read_only(directory.path()).value();
  write_bytes(file, whole.substr(0, whole.size() - 100));
  CHECK(reader->latest("public.orders").error().code() == ErrorCode::kCorruption);
}

TEST_CASE("B23: records whose checksum is right but whose content can't be are refused",
          "[schemas][registry]") {
  const auto scan_of = [](const TableSchema& schema) {
    std::string bytes;
    REQUIRE(registry_file::append_record(schema, 24, bytes));
    return registry_file::scan(bytes, 24);
  };
  TableSchema good = orders();
  good.version = 1;
  good.columns[0].field = 1;
  good.columns[1].field = 2;
  CHECK(scan_of(good)->records.size() == 1);
  const std::vector<std::function<void(TableSchema&)>> damages = {
      [](TableSchema& s) { s.version = 0; },
      [](TableSchema& s) { s.category.clear(); },
      [](TableSchema& s) { s.columns[0].field = 0; },
      [](TableSchema& s) { s.columns[0].field = 2; },
      [](TableSchema& s) { s.columns[0].field = 19'500; },
      [](TableSchema& s) { s.columns[0].field = 1u << 29; },
      [](TableSchema& s) { s.columns[0].name = "note"; },
      [](TableSchema& s) {
        s.retired = {{2, "gone"}};
      },
      [](TableSchema& s) { s.columns[0].kind = static_cast<ValueKind>(0); },
      [](TableSchema& s) { s.replica_identity = static_cast<ReplicaIdentity>(0); }};
  for (std::size_t i = 0; i < damages.size(); ++i) {
    CAPTURE(i);
    TableSchema bad = good;
    damages[i](bad);
    const auto scanned = scan_of(bad);
    REQUIRE_FALSE(scanned);
    CHECK(scanned.error().code() == ErrorCode::kCorruption);
    CHECK(scanned.error().message().starts_with("byte 24: "));
  }
  TableSchema newer = good;
  newer.columns[1].kind = static_cast<ValueKind>(20);
  CHECK(scan_of(newer).error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("a version that does not follow the one before is refused", "[schemas][registry]") {
  const TemporaryDirectory directory;
  TableSchema second = orders();
  second.version = 2;
  second.columns[0].field = 1;
  second.columns[1].field = 2;
  std::string bytes = registry_file::encode_header();
  REQUIRE(registry_file::append_record(second, bytes.size(), bytes));
  write_bytes(directory / "schemas", bytes);
  const auto refused = SchemaRegistry::open_read_only(directory.path());
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == ErrorCode::kCorruption);
}

TEST_CASE("F16, F17, F19, F126: a failed operation is kept for ever, and opening again recovers",
          "[schemas][registry][faults]") {
  const Path directory = "/store";
  // A record of several pages: what a failed sync lost of it is not written along with a neighbor.
  std::vector<ColumnSchema> columns;
  for (int i = 0; i < 200; ++i) columns.push_back(column("column_" + std::to_string(i)));
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(number);
      FaultFs files;
      REQUIRE(files.make_directory(directory));
      REQUIRE(files.sync_directory("/"));
      const auto registry = SchemaRegistry::open(directory, files).value();
      REQUIRE(registry->record(orders()));
      REQUIRE(registry->flush());
      files.fail_at(number, code);
      REQUIRE(registry->record(table("new", columns)));
      const auto flushed = registry->flush();
      if (!files.fault_was_hit()) {
        CHECK(flushed);
        CHECK(number == 5);  // the records, then the mark: a write and a sync each
        break;
      }
      REQUIRE_FALSE(flushed);
      CHECK(flushed.error().code() == code);
      const std::string first = flushed.error().message();
      CHECK(registry->flush().error().message() == first);
      CHECK(registry->record(table("other", {column("id")})).error().message() == first);
      CHECK(registry->find("public.orders", 1));  // reading goes on
      CHECK(files.syncs_after_failed_sync() == 0);
      // What it has now, events may refer to: a power loss takes none of it back, neither at once
      // nor behind what is flushed later.
      for (const bool flush_more : {false, true}) {
        const auto recovered = SchemaRegistry::open(directory, files).value();
        CHECK(recovered->latest("public.orders").value()->version == 1);
        const bool had_new = recovered->latest("public.new").has_value();
        if (flush_more) {
          REQUIRE(recovered->record(table("new", columns)));
          REQUIRE(recovered->record(table("newer", columns)));
          REQUIRE(recovered->flush());
        }
        files.lose_power();
        const auto reader = SchemaRegistry::open_read_only(directory, files).value();
        CHECK(reader->latest("public.orders"));
        if (had_new || flush_more) CHECK(reader->latest("public.new"));
        if (flush_more) CHECK(reader->latest("public.newer"));
      }
    }
  }
}

TEST_CASE("F17, F126: a mark whose sync failed is written again before anything follows it",
          "[schemas][registry][faults]") {
  const Path directory = "/store";
  // The mark's place relative to sectors decides what else is lost with it, so try many.
  for (std::size_t name_bytes = 1; name_bytes <= 512; name_bytes += 3) {
    CAPTURE(name_bytes);
    FaultFs files;
    REQUIRE(files.make_directory(directory));
    REQUIRE(files.sync_directory("/"));
    {
      const auto registry = SchemaRegistry::open(directory, files).value();
      REQUIRE(registry->record(table("t", {column(std::string(name_bytes, 'c'))})));
      files.fail_sync_at(2);
      REQUIRE_FALSE(registry->flush());
    }
    const auto registry = SchemaRegistry::open(directory, files).value();
    REQUIRE(registry->record(orders()));
    REQUIRE(registry->flush());
    files.lose_power();
    const auto reader = SchemaRegistry::open_read_only(directory, files);
    REQUIRE(reader);
    CHECK((*reader)->latest("public.t"));
    CHECK((*reader)->latest("public.orders"));
  }
}

TEST_CASE("F27: the name of a registry that a killed process made is durable before it is used",
          "[schemas][registry][faults]") {
  const Path directory = "/store";
  for (std::uint64_t number = 1;; ++number) {
    FaultFs files;
    REQUIRE(files.make_directory(directory));
    REQUIRE(files.sync_directory("/"));
    files.die_at(number);
    static_cast<void>(SchemaRegistry::open(directory, files).has_value());
    const bool died = files.fault_was_hit();
    files.kill_processes();
    const auto registry = SchemaRegistry::open(directory, files).value();
    REQUIRE(registry->record(orders()));
    REQUIRE(registry->flush());
    files.lose_power();
    CHECK(SchemaRegistry::open(directory, files).value()->find("public.orders", 1));
    if (!died) break;
  }
}

TEST_CASE("F22, F23: what was flushed survives a power loss at any operation",
          "[schemas][registry][faults]") {
  const Path directory = "/store";
  bool died = true;
  for (std::uint64_t number = 1; died; ++number)
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      CAPTURE(number, seed);
      FaultFs files;
      REQUIRE(files.make_directory(directory));
      REQUIRE(files.sync_directory("/"));
      files.die_at(number);
      std::uint32_t flushed = 0;
      if (const auto registry = SchemaRegistry::open(directory, files)) {
        std::vector<ColumnSchema> columns;
        for (int i = 0; i < 4; ++i) {
          // Large enough for a flush to be torn between sectors.
          for (int more = 0; more < 20; ++more)
            columns.push_back(column("column_" + std::to_string(columns.size())));
          const auto recorded = (*registry)->record(table("wide", columns));
          const auto again = (*registry)->record(table("wide_too", columns));
          if (recorded && again && (*registry)->flush()) flushed = (*recorded)->version;
        }
      }
      died = files.fault_was_hit();
      files.lose_power(seed);
      const auto recovered = SchemaRegistry::open(directory, files);
      REQUIRE(recovered);
      for (std::uint32_t version = 1; version <= flushed; ++version)
        for (const std::string_view category : {"public.wide", "public.wide_too"})
          CHECK((*recovered)->find(category, version).value()->columns.size() == version * 20);
      const auto next = (*recovered)->record(table("wide", {column("id")})).value();
      CHECK(next->version > flushed);
      REQUIRE((*recovered)->flush());
    }
}

TEST_CASE("F1: what a killed process left in the page cache is synced before it is relied on",
          "[schemas][registry][faults]") {
  const Path directory = "/store";
  FaultFs files;
  REQUIRE(files.make_directory(directory));
  REQUIRE(files.sync_directory("/"));
  const auto killed = SchemaRegistry::open(directory, files).value();
  REQUIRE(killed->record(orders()));
  files.die_at(2);  // its write gets through, its sync does not
  REQUIRE_FALSE(killed->flush());
  files.clear_faults();
  files.kill_processes();
  const auto registry = SchemaRegistry::open(directory, files).value();
  REQUIRE(registry->find("public.orders", 1));
  files.lose_power();
  CHECK(SchemaRegistry::open(directory, files).value()->find("public.orders", 1));
}

TEST_CASE("threads may record, flush and look up at once", "[schemas][registry][threads]") {
  const TemporaryDirectory directory;
  const auto writer = SchemaRegistry::open(directory.path()).value();
  const auto reader = SchemaRegistry::open_read_only(directory.path()).value();
  constexpr int kThreads = 4, kTables = 25;
  std::atomic<int> failures = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread)
      threads.emplace_back([&, thread] {
        for (int i = 0; i < kTables; ++i) {
          const std::string name = "t" + std::to_string((i + thread) % kTables);
          const auto recorded = writer->record(table(name, {column("id"), column("c" + name)}));
          if (!recorded || (*recorded)->version != 1 || !writer->flush()) ++failures;
          const auto found = reader->find("public." + name, 1);  // flushed, so it is in the file
          if (!found || (*found)->columns[1].name != "c" + name) ++failures;
        }
      });
  }
  CHECK(failures == 0);
  CHECK(reader->all().value().size() == kTables);
}

}  // namespace millrace::test
