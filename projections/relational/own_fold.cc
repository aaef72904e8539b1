#include "projections/relational/own_fold.h"

namespace millrace::projections::internal {

bool take_state(std::string_view& in, Record& state) {
  const auto fields = Datum::take(in);
  if (!fields) return false;
  state = {};
  for (std::int64_t left = fields->integer(); left > 0; --left) {
    const auto name = Datum::take(in);
    auto value = name ? Datum::take(in) : std::nullopt;
    if (!value) return false;
    state.add(std::string(name->text()), *std::move(value));
  }
  return true;
}

}  // namespace millrace::projections::internal
