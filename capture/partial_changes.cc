#include "capture/partial_changes.h"

#include "schemas/merge_change.h"

namespace millrace {

PartialEvents partial_changes() {
  return {.merge = [](std::string_view, std::string_view older,
                      std::string_view newer) -> Result<std::optional<std::string>> {
            auto merged = merge_change(older, newer);
            // What is no change of a row is left as it is: somebody's own event.
            if (!merged) return std::optional<std::string>();
            return merged;
          },
          .is_moved = [](std::string_view,
                         std::string_view payload) { return is_moved_change(payload); }};
}

}  // namespace millrace
