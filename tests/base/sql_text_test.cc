#include "base/sql_text.h"

#include "tests/support/catch.h"

using namespace millrace;

TEST_CASE("a name is one identifier of SQL, whatever it holds", "[sql]") {
  CHECK(quote_identifier("orders") == R"("orders")");
  CHECK(quote_identifier("") == R"("")");
  CHECK(quote_identifier(R"(a"b.c;--)") == R"("a""b.c;--")");
  CHECK(quote_identifier("\xc3\x96") == "\"\xc3\x96\"");
}
