#pragma once

#include <string>
#include <string_view>

namespace millrace {

/// `text` with every password of a connection string in it as "***": of
/// postgresql://user:password@host, and of password=... as a keyword or a URI parameter. Rather
/// hides too much than too little.
std::string without_passwords(std::string_view text);

/// Overwrites the passwords in the process's own arguments, so that `ps` and /proc show none.
/// Copy the arguments first.
void hide_passwords(int argc, char** argv);

}  // namespace millrace
