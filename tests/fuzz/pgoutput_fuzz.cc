#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "capture/pipeline/stream_applier.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/fault_fs.h"

// An input is a replication stream: messages with a u16 length in front of each. They go through a
// decoder alone, and through the whole way from bytes to events. Besides memory errors a finding
// is: a transaction that is not whole, an event that no store would take, a payload that Protobuf
// or the row's own schema can't read.
namespace {

using namespace millrace;

void check(const test::RecordedEvent& event, SchemaRegistry& schemas) {
  MILLRACE_CHECK(!event.category.empty() && event.category.size() <= kCategoryBytesMax);
  MILLRACE_CHECK(event.key.size() <= kKeyBytesMax);
  if (event.category == kMessagesCategory)
    return;  // its prefix may be no UTF-8, which Protobuf's parser refuses
  const v1::Change change = event.change();
  MILLRACE_CHECK(change.SerializeAsString() == event.payload);
  const auto schema = schemas.find(event.category, change.schema());
  MILLRACE_CHECK(schema.has_value());
  const auto before = test::row_of(**schema, change.before());
  const auto after = test::row_of(**schema, change.after());
  for (const std::uint32_t field : change.unchanged()) {
    const ColumnSchema* column = (*schema)->column_of_field(field);
    MILLRACE_CHECK(column != nullptr && !after.contains(column->name));
  }
  MILLRACE_CHECK(has(event.flags, EventFlags::kPartial) == (change.unchanged_size() > 0));
  MILLRACE_CHECK(before.size() <= (*schema)->columns.size());
}

void decode_alone(ByteReader in, bool parallel_streaming) {
  pgoutput::Decoder decoder(parallel_streaming);
  while (in.remaining() > 0 && !in.failed()) {
    const std::string_view message = in.bytes(in.u16_be());
    static_cast<void>(decoder.decode(message));
  }
}

void apply_all(ByteReader in) {
  const auto schemas = SchemaRegistry::in_memory();
  test::FakeCatalog catalog;
  catalog.primary_keys[16400] = {"id"};
  test::MemoryOut out;
  ChangeEncoder encoder(*schemas, catalog, out);
  test::FaultFs disk;
  const auto spill = TransactionSpill::open("/spill", disk);
  StreamApplier applier(encoder, out, 1, Lsn{0x800}, spill->get());
  std::uint64_t position = 1;
  while (in.remaining() > 0 && !in.failed()) {
    auto applied = applier.apply(in.bytes(in.u16_be()), Lsn{position++});
    while (applied && applier.replaying()) applied = applier.replay_one();
    if (!applied) MILLRACE_CHECK(applier.reset().has_value());  // as a new connection would
    MILLRACE_CHECK(out.in_transaction <= applier.in_transaction());
  }
  std::uint64_t last_commit = 0x800;
  for (const auto& transaction : out.transactions) {
    MILLRACE_CHECK(transaction.info.source.commit > last_commit);
    MILLRACE_CHECK(transaction.info.source.end > transaction.info.source.commit);
    MILLRACE_CHECK(!transaction.events.empty());
    last_commit = transaction.info.source.commit;
    for (const auto& event : transaction.events) check(event, *schemas);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  decode_alone(ByteReader(bytes), false);
  decode_alone(ByteReader(bytes), true);
  apply_all(ByteReader(bytes));
  return 0;
}
