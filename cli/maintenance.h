#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "service/shared_store.h"

namespace millrace {

/// The store that is in `directory`, whoever holds it; none is made. Errors also: kNotFound.
Result<std::unique_ptr<SharedStore>> open_existing(const std::string& directory);

Result<void> print(const std::string& text);

}  // namespace millrace
