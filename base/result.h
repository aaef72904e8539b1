#pragma once

#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace millrace {

/// A value or an Error; what every call that can fail returns across a module boundary.
/// std::expected under the name we use, until the toolchain of the oldest supported system has it.
template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
  using Base = tl::expected<T, Error>;

 public:
  using Base::Base;
  Result(Error error) : Base(tl::unexpect, std::move(error)) {}  // NOLINT: implicit on purpose
};

}  // namespace millrace

#define MILLRACE_CONCAT_INNER(a, b) a##b
#define MILLRACE_CONCAT(a, b) MILLRACE_CONCAT_INNER(a, b)

/// Leaves the function with the error of `expression`, if it has one.
#define MILLRACE_RETURN_IF_ERROR(expression)                                \
  do {                                                                      \
    if (auto millrace_result = (expression); !millrace_result) [[unlikely]] \
      return std::move(millrace_result).error();                            \
  } while (false)

/// `declaration` gets the value of `expression`; on an error the function is left with it.
#define MILLRACE_ASSIGN_OR_RETURN(declaration, expression) \
  MILLRACE_ASSIGN_OR_RETURN_AS(MILLRACE_CONCAT(millrace_result_, __LINE__), declaration, expression)
#define MILLRACE_ASSIGN_OR_RETURN_AS(result, declaration, expression) \
  auto result = (expression);                                         \
  if (!result) [[unlikely]]                                           \
    return std::move(result).error();                                 \
  declaration = *std::move(result)
