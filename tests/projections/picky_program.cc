#include <cstdlib>

#include "tests/projections/picky_view.h"

// A program whose view dislikes the keys in PICKY_DISLIKES ("3,4"), for tests of the quarantine.

int main(int argc, char** argv) {
  using namespace millrace::projections;
  const char* disliked = std::getenv("PICKY_DISLIKES");
  const std::string keys = "," + std::string(disliked == nullptr ? "" : disliked) + ",";
  App app("picky");
  app.add(test::picky([keys](const Change<shop::Products>& change) {
    return !change.key().empty() &&
           keys.find("," + std::string(change.key()) + ",") != std::string::npos;
  }));
  return app.main(argc, argv);
}
