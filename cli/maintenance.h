#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "eventstore/event_store.h"

namespace millrace {

/// The store that is in `directory`; none is made. Errors also: kNotFound, kLocked (somebody writes
/// to it).
Result<std::unique_ptr<EventStore>> open_existing(const std::string& directory);

Result<void> print(const std::string& text);

}  // namespace millrace
