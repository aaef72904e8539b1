#include <cstdlib>

#include "tests/projections/picky_view.h"

// A program whose view dislikes the keys in PICKY_DISLIKES ("3,4"), for tests of the quarantine. It
// is a declared one where PICKY_DECLARED is set.

int main(int argc, char** argv) {
  using namespace millrace::projections;
  const char* disliked = std::getenv("PICKY_DISLIKES");
  const std::string keys = "," + std::string(disliked == nullptr ? "" : disliked) + ",";
  const auto dislikes = [keys](std::string_view key) {
    return !key.empty() && keys.find("," + std::string(key) + ",") != std::string::npos;
  };
  App app("picky");
  if (std::getenv("PICKY_DECLARED") != nullptr)
    app.add(test::picky_declared(
        [=](const shop::Products& product) { return dislikes(std::to_string(product.id())); }));
  else
    app.add(
        test::picky([=](const Change<shop::Products>& change) { return dislikes(change.key()); }));
  return app.main(argc, argv);
}
