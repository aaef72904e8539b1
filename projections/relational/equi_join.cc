#include "projections/relational/equi_join.h"

namespace millrace::projections::internal {

std::string pair_key(std::string_view left, std::optional<std::string_view> right) {
  std::string key;
  Datum(left).encode(key);
  (right ? Datum(*right) : Datum()).encode(key);
  return key;
}

std::optional<PairKey> pair_of(std::string_view key) {
  const auto left = Datum::take(key);
  const auto right = left ? Datum::take(key) : std::nullopt;
  if (!right || !key.empty()) return std::nullopt;
  PairKey pair{std::string(left->text()), std::nullopt};
  if (!right->is_null()) pair.right = right->text();
  return pair;
}

}  // namespace millrace::projections::internal
