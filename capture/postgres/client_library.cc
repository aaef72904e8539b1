#include "capture/postgres/client_library.h"

#include <libpq-fe.h>

#include <algorithm>
#include <array>

namespace millrace {
namespace {

/// The first release of each major version that has both mended.
constexpr std::array kSoundClients{130'023, 140'020, 150'015, 160'011, 170'007, 180'001};

std::string release(int version) {
  return std::to_string(version / 10'000) + "." + std::to_string(version % 10'000);
}

}  // namespace

std::string libpq_weakness(int version) {
  const auto sound = std::find_if(kSoundClients.begin(), kSoundClients.end(),
                                  [&](int first) { return first / 10'000 == version / 10'000; });
  const bool too_old = version < kSoundClients.front();
  if (!too_old && (sound == kSoundClients.end() || version >= *sound)) return "";
  return "libpq " + release(version) +
         " lets a server that is not trusted harm its clients; update it to " +
         release(too_old ? kSoundClients.front() : *sound) + " or later, or trust the network";
}

std::string libpq_weakness() { return libpq_weakness(PQlibVersion()); }

}  // namespace millrace
