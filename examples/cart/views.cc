// cart_views run --store STORE --views FOLDER | rebuild | verify | status: views of all carts of a
// store.
#include "cart_views.h"

int main(int argc, char** argv) {
  millrace::projections::App app("cart_views");
  app.add(carts());
  app.add(articles());
  return app.main(argc, argv);
}
