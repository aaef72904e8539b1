#pragma once

#include <string>

namespace millrace {

/// What a hostile server, or whoever stands between, can do to a client with libpq `version`
/// (150018: 15.18) that its newer releases have mended: a sentence, empty if nothing is known.
/// CVE-2024-10977 and CVE-2025-12818, https://www.postgresql.org/support/security/
std::string libpq_weakness(int version);
/// Of the libpq that this process runs with.
std::string libpq_weakness();

}  // namespace millrace
