#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "projections/sink.h"

namespace millrace::projections::testing {

/// Puts a sink of your own through what Sink promises: transactions that are whole or not there,
/// whatever step they were left at; a checkpoint that moves with its rows; values that come back as
/// they went; the fence; a first load and a second one of another shape. Ends with a sentence about
/// the first promise that was broken; nothing if all were kept.
///
/// Give it a place where nothing of `shape.view` is, and a view with columns of all the types that
/// the sink takes. A counter column gets no null, and numbers from 0 that a double holds exactly.
/// Takes some seconds.
std::optional<std::string> broken_promise(const SinkKind& kind, const SinkShape& shape,
                                          std::uint64_t seed = 1);

}  // namespace millrace::projections::testing
