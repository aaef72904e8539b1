#pragma once

#include "eventstore/event_metadata.h"
#include "eventstore/types.h"
#include "schemas/json.h"

namespace millrace {

/// What the renderer of schemas/ needs of an event of the store; views into the same bytes.
inline EventRecord to_record(const EventView& event, const TransactionInfo& transaction) {
  EventRecord record;
  record.offset = event.offset.value;
  record.category = event.category;
  record.key = event.key;
  record.type = event.type;
  record.version = event.version;
  record.payload = event.payload;
  record.captured = transaction.source.epoch != 0;
  record.commit_lsn = transaction.source.commit;
  record.xid = transaction.source_xid;
  record.commit_time = transaction.commit_time;
  if (event.metadata.empty()) return record;
  if (const auto metadata = decode_metadata(event.metadata))
    record.metadata = {.event_id = metadata->event_id,
                       .correlation_id = metadata->correlation_id,
                       .causation_id = metadata->causation_id,
                       .time = metadata->time,
                       .extra = metadata->extra};
  else
    record.metadata.extra = event.metadata;  // somebody else's
  return record;
}

}  // namespace millrace
