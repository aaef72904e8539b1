#include "eventstore/types.h"

#include "base/bytes.h"

namespace millrace {

std::string to_string(const StoreId& id) { return to_hex({id.bytes.data(), id.bytes.size()}); }

}  // namespace millrace
