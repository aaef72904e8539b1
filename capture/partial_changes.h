#pragma once

#include "eventstore/maintenance_api.h"

namespace millrace {

/// How the changes of captured rows that lack unchanged TOAST values get them when they are
/// compacted: for StoreOptions::partials of whoever holds a store that is captured into. Events of
/// others are left as they are.
PartialEvents partial_changes();

}  // namespace millrace
