#include "eventstore/types.h"

#include "base/bytes.h"

namespace millrace {

std::string to_string(const StoreId& id) { return to_hex({id.bytes.data(), id.bytes.size()}); }

std::string_view name_of(Durability durability) {
  switch (durability) {
    case Durability::kGroup: return "group";
    case Durability::kAlways: return "always";
    case Durability::kOs: return "os";
  }
  return "unknown";
}

std::optional<Durability> durability_named(std::string_view name) {
  for (const Durability durability : {Durability::kGroup, Durability::kAlways, Durability::kOs})
    if (name_of(durability) == name) return durability;
  return std::nullopt;
}

}  // namespace millrace
