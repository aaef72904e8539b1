#include "projections/projections.h"
#include "public.products.pb.h"  // protoc's, from what `millrace schema export` wrote

using namespace millrace::projections;
using shop::Products;

int main(int argc, char** argv) {
  App app("shop");
  app.add(SearchIndex("product_search", Version{1},
                      {.key = integer("id"), .text = {"name", "description"}, .stored = {"price"}})
              .on<Products>("public.products", [](const Change<Products>& change,
                                                  SearchIndex::Writer& index) {
                if (change.is_truncate()) return index.clear();
                if (change.is_delete()) return index.erase(change.key());
                index.put(change.key(), {{"name", change[&Products::name]},
                                         {"description", change[&Products::description]},
                                         {"price", change[&Products::price]}});
              }));
  return app.main(argc, argv);
}
