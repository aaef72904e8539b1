#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "projections/projections.h"
#include "public.products.pb.h"

namespace millrace::projections::test {

using Dislikes = std::function<bool(const Change<shop::Products>&)>;

/// The products by name. The function fails half-way where it dislikes a change: what it wrote by
/// then is another row, and its own without a description.
inline CacheTable picky(Dislikes dislikes, Version version = {}) {
  return CacheTable("picky", version,
                    {.key = text("id"),
                     .columns = {text("name"), text("description")},
                     .indexes = {{"name"}}})
      .on<shop::Products>(
          "public.products", [dislikes = std::move(dislikes)](const Change<shop::Products>& change,
                                                              CacheTable::Writer& table) {
            if (dislikes(change)) {
              table.put("half of " + std::string(change.key()), {{"name", "half"}});
              table.put(change.key(), {{"name", "half"}, {"description", nullptr}});
              if (change.is_truncate()) table.clear();
              throw std::runtime_error("I don't like " + std::string(change.key()));
            }
            if (change.is_truncate()) return table.clear();
            if (change.is_delete()) return table.erase(change.key());
            table.put(change.key(), {{"name", change[&shop::Products::name]},
                                     {"description", change[&shop::Products::description]}});
          });
}

/// The same declared: fails at a row rather than at a change.
template <typename DislikesRow>
RelationalView picky_declared(DislikesRow dislikes) {
  return view("picky", Version{1})
      .from(table<shop::Products>("public.products"))
      .into(cache_table{.key = text("id"), .columns = {text("name"), text("description")}},
            [dislikes = std::move(dislikes)](const shop::Products& product) {
              if (dislikes(product))
                throw std::runtime_error("I don't like " + std::to_string(product.id()));
              return Record{{"name", product.name()}, {"description", product.description()}};
            });
}

/// The same as a search index.
inline SearchIndex picky_search(Dislikes dislikes) {
  return SearchIndex("picky_search", Version{1},
                     {.key = text("id"), .text = {"name", "description"}})
      .on<shop::Products>(
          "public.products", [dislikes = std::move(dislikes)](const Change<shop::Products>& change,
                                                              SearchIndex::Writer& index) {
            if (dislikes(change)) {
              index.put(change.key(), {{"name", "half"}, {"description", nullptr}});
              throw std::runtime_error("I don't like " + std::string(change.key()));
            }
            if (change.is_truncate()) return index.clear();
            if (change.is_delete()) return index.erase(change.key());
            index.put(change.key(), {{"name", change[&shop::Products::name]},
                                     {"description", change[&shop::Products::description]}});
          });
}

}  // namespace millrace::projections::test
