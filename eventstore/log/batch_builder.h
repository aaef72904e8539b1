#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/format.h"
#include "eventstore/log/name_table.h"
#include "eventstore/types.h"

namespace millrace::log {

/// Encodes the batches of one transaction at the end of a buffer, without an allocation per event.
/// Pure: what it leaves open is for BatchPacker (compression, payload checksum) and LogWriter
/// (place, chain, header checksum).
class BatchBuilder {
 public:
  BatchBuilder(ByteBuffer& out, Clock& clock) : out_(out), clock_(clock) {}

  /// Starts a transaction at `first`. Batches are closed when they reach `batch_bytes`.
  void begin(const TransactionInfo& info, Offset first, std::size_t batch_bytes,
             std::string_view idempotency_key = {});
  /// Adds an event that is within the limits of types.h.
  void add(const NewEvent& event, std::optional<std::uint64_t> version = {});
  /// Closes the transaction with its last batch; gives the offset after its last event.
  Offset commit(std::uint64_t source_end);
  /// Moves the transaction to begin at `first`, which somebody else's may have taken since begin().
  /// The buffer's front must be its first batch. Gives the offset after its last event so far.
  Offset rebase(Offset first);
  Offset first() const { return first_; }
  Offset end() const { return next_; }  ///< After its last event so far.

  /// How much of the buffer's front is whole batches. An event is behind them, so that the last
  /// batch of a transaction is never empty unless the transaction is.
  std::size_t closed_bytes() const { return batch_open_ ? batch_at_ : out_.size(); }
  /// These batches were taken out of the buffer.
  void closed_taken(std::size_t bytes) { batch_at_ -= bytes; }

 private:
  void start_batch();
  void close_batch(std::uint16_t flags, std::uint64_t source_end);
  void write_properties();
  void write_names(const NameTable& names);

  ByteBuffer& out_;
  Clock& clock_;
  TransactionInfo info_;
  std::string idempotency_key_;
  Offset first_, next_;
  std::size_t batch_bytes_ = 0;
  std::size_t batch_at_ = 0;  // where the batch being filled starts in out_
  std::uint64_t batch_base_ = 0;
  bool batch_open_ = false;
  bool first_batch_ = true;
  NameTable categories_, types_;
};

}  // namespace millrace::log
