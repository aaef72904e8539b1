#pragma once

#include <cstddef>
#include <optional>

#include "base/file.h"

namespace millrace::bench {

/// Messages per second that `publishers` connections get acknowledged by a NATS JetStream file
/// store; each publishes one of `payload_bytes` and waits for the answer, and again. It answers
/// before it syncs, which it does every two minutes: to sync first (`sync_interval: always`) only
/// NATS 2.10 has learnt, and Debian 12 has 2.9. The server is a private one in `directory`; nothing
/// if there is no `nats-server` on this machine. The protocol:
/// https://docs.nats.io/reference/reference-protocols/nats-protocol
std::optional<double> publish_to_jetstream(const Path& directory, int publishers, int messages,
                                           std::size_t payload_bytes);

}  // namespace millrace::bench
