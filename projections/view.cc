#include "projections/view.h"

#include <algorithm>

#include "base/bytes.h"
#include "projections/sink.h"

namespace millrace::projections {
namespace {

constexpr std::size_t kNameBytesMax = 64;

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && name.front() >= 'a' &&
         name.front() <= 'z' && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
         });
}

}  // namespace

Result<void> View::check() const {
  const std::string view = "view '" + printable(name_) + "'";
  if (!is_name(name_) || name_.starts_with("sqlite_") || name_.starts_with("millrace_"))
    return Error(ErrorCode::kInvalidArgument, view + ": this can't be its name")
        .hint(
            "Use lower case letters, digits and '_', at most 64, not beginning with millrace_ or "
            "sqlite_.");
  if (version_.value == 0)
    return Error(ErrorCode::kInvalidArgument, view + ": its version is 0")
        .hint("Versions begin with 1: Version{1}. Raise it whenever the view's functions change.");
  if (sources_.empty())
    return Error(ErrorCode::kInvalidArgument, view + " has no source")
        .hint("Add .on<Row>(\"schema.table\", function) to it.");
  for (auto source = sources_.begin(); source != sources_.end(); ++source)
    if (std::any_of(sources_.begin(), source,
                    [&](const auto& earlier) { return earlier.category == source->category; }))
      return Error(ErrorCode::kInvalidArgument, view + " has two functions for " + source->category)
          .hint("Do both things in one function, so that their order is plain.");
  if (auto shape = check_shape(); !shape) return std::move(shape).error().context(view);
  return {};
}

std::string View::shape() const {
  std::string shape = "version " + std::to_string(version_.value) + "\n";
  describe(shape);
  for (const auto& source : sources_)
    shape += "from " + source.category + (source.prefix.empty() ? "" : " of " + source.prefix) +
             (source.needs_old_rows ? " with old rows\n" : "\n");
  return shape;
}

SinkShape View::sink_shape() const { return {}; }

}  // namespace millrace::projections
