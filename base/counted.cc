#include "base/counted.h"

#include "base/progress.h"

namespace millrace {

std::string counted(std::uint64_t count, std::string_view what) {
  return grouped(count) + " " + std::string(what) + (count == 1 ? "" : "s");
}

}  // namespace millrace
