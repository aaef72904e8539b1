#include "projections/engine/event_envelope.h"

#include "base/bytes.h"
#include "millrace/v1/change.pb.h"
#include "projections/engine/envelope.h"
#include "projections/view.h"

namespace millrace::projections {
namespace {

using Envelope = v1::Change;

constexpr std::uint64_t bytes_tag(int field) { return static_cast<std::uint64_t>(field) << 3 | 2; }

/// The key of a message with a long prefix is not the whole of it, so that the payload is asked.
Result<void> decode_message(std::string_view payload, internal::RawChange& into) {
  std::string_view prefix, content;
  ByteReader in(payload);
  while (in.remaining() > 0) {
    const std::uint64_t field = in.varint();
    if (field == bytes_tag(Envelope::kPrefixFieldNumber))
      prefix = in.bytes(in.varint());
    else if (field == bytes_tag(Envelope::kContentFieldNumber))
      content = in.bytes(in.varint());
    else
      skip_field(in, field);
  }
  into.key = into.type = prefix;
  into.after = content;
  MILLRACE_RETURN_IF_ERROR(in.finish("its payload, a logical message", true));
  return {};
}

}  // namespace

Result<void> decode_event(const EventView& event, const TransactionInfo& transaction,
                          internal::RawChange& into) {
  into = {};
  into.op = has(event.flags, EventFlags::kTombstone) ? Op::kDelete : Op::kInsert;
  into.offset = event.offset;
  into.category = event.category;
  into.key = event.key;
  into.type = event.type;
  into.after = event.payload;
  into.metadata = event.metadata;
  into.version = event.version;
  into.transaction = &transaction;
  if (!event.type.empty() || into.op == Op::kDelete) return {};
  if (event.category == internal::kMessagesCategory) return decode_message(event.payload, into);
  return Error(ErrorCode::kUnsupported, "it is a change of a table, not an event of a stream");
}

}  // namespace millrace::projections
