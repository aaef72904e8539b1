#include "projections/engine/envelope.h"

#include "base/bytes.h"
#include "millrace/v1/change.pb.h"

namespace millrace::projections {
namespace {

using Envelope = v1::Change;

// The low three bits of a tag (https://protobuf.dev/programming-guides/encoding/).
enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::uint64_t tag(int field, Wire wire) {
  return static_cast<std::uint64_t>(field) << 3 | wire;
}

Result<Op> op_of(std::uint64_t op) {
  switch (op) {
    case Envelope::CREATE: return Op::kInsert;
    case Envelope::UPDATE: return Op::kUpdate;
    case Envelope::DELETE: return Op::kDelete;
    case Envelope::READ: return Op::kRead;
    case Envelope::TRUNCATE: return Op::kTruncate;
    default:
      return Error(ErrorCode::kUnsupported,
                   "its operation " + std::to_string(op) + " is none that a view can fold")
          .hint(
              "If the store was written by a newer millrace, build this program with that "
              "version.");
  }
}

}  // namespace

void skip_field(ByteReader& in, std::uint64_t tag) {
  switch (tag & 7) {
    case kVarint: in.varint(); return;
    case kFixed64: in.bytes(8); return;
    case kBytes: in.bytes(in.varint()); return;
    case kFixed32: in.bytes(4); return;
    default: in.fail();
  }
}

Result<void> decode_change(const EventView& event, const TransactionInfo& transaction,
                           internal::RawChange& into) {
  if (!event.type.empty())
    return Error(ErrorCode::kUnsupported, "it is a domain event of type '" + printable(event.type) +
                                              "', not a change of a table");
  std::uint64_t op = 0;
  auto unchanged = std::move(into.unchanged);  // with its room
  unchanged.clear();
  into = {};
  into.unchanged = std::move(unchanged);
  ByteReader in(event.payload);
  while (in.remaining() > 0) {
    const std::uint64_t field = in.varint();
    switch (field) {
      case tag(Envelope::kOpFieldNumber, kVarint): op = in.varint(); break;
      case tag(Envelope::kSchemaFieldNumber, kVarint):
        into.schema = static_cast<std::uint32_t>(in.varint());
        break;
      case tag(Envelope::kLsnFieldNumber, kFixed64): into.lsn.value = in.u64_le(); break;
      case tag(Envelope::kBeforeFieldNumber, kBytes): into.before = in.bytes(in.varint()); break;
      case tag(Envelope::kAfterFieldNumber, kBytes): into.after = in.bytes(in.varint()); break;
      case tag(Envelope::kBeforeIsKeyFieldNumber, kVarint):
        into.before_is_key = in.varint() != 0;
        break;
      case tag(Envelope::kUnchangedFieldNumber, kVarint):
        into.unchanged.push_back(static_cast<std::uint32_t>(in.varint()));
        break;
      case tag(Envelope::kUnchangedFieldNumber, kBytes): {
        ByteReader packed(in.bytes(in.varint()));
        while (packed.remaining() > 0)
          into.unchanged.push_back(static_cast<std::uint32_t>(packed.varint()));
        if (packed.failed()) in.fail();
        break;
      }
      case tag(Envelope::kMovedFromFieldNumber, kBytes):
        into.moved_from = in.bytes(in.varint());
        break;
      default: skip_field(in, field);
    }
  }
  MILLRACE_RETURN_IF_ERROR(in.finish("its payload, a millrace.v1.Change", true));
  MILLRACE_ASSIGN_OR_RETURN(into.op, op_of(op));
  into.offset = event.offset;
  into.category = event.category;
  into.key = event.key;
  into.transaction = &transaction;
  return {};
}

}  // namespace millrace::projections
