#include "capture/pipeline/encoded_rows.h"

#include "base/bytes.h"

namespace millrace {

Result<void> EncodedRows::add(const NewEvent& event) {
  for (const std::string_view text : {event.key, event.payload}) {
    char size[4];
    store_le<std::uint32_t>(size, static_cast<std::uint32_t>(text.size()));
    bytes_.append(size, sizeof size);
    bytes_ += text;
  }
  ++count_;
  return {};
}

std::string_view EncodedRows::take(std::string_view& rest) {
  const auto size = load_le<std::uint32_t>(rest.data());
  const std::string_view text = rest.substr(4, size);
  rest.remove_prefix(4 + size);
  return text;
}

}  // namespace millrace
