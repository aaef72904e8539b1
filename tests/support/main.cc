// Catch2 2 wants its main compiled once; version 3 brings it in a library.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_session.hpp>
int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

/// libpqxx 6 leaks libpq's result when a query finds its connection broken. Asked for by
/// LeakSanitizer, where there is one.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() { return "leak:libpqxx"; }
