#pragma once

#include <concepts>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "projections/view.h"

namespace millrace::projections {

/// A program of views: declare them, then hand over.
///
///     int main(int argc, char** argv) {
///       App app("shop");
///       app.add(SearchIndex(...).on<Products>(...));
///       return app.main(argc, argv);
///     }
///
/// The program has the subcommands run, rebuild, rollback, verify, status, wait, build, quarantine
/// and describe; `shop --help` tells of each. Data goes to stdout, logs to stderr; exit codes are
/// those of base/error.h.
class App {
 public:
  explicit App(std::string name) : name_(std::move(name)) {}

  template <std::derived_from<View> V>
  App& add(V view) {
    views_.push_back(std::make_unique<V>(std::move(view)));
    return *this;
  }

  /// Does what the arguments say; gives the exit code. SIGTERM and SIGINT end `run` after the
  /// transaction at hand.
  int main(int argc, char** argv);

 private:
  std::string name_;
  std::vector<std::unique_ptr<View>> views_;
};

}  // namespace millrace::projections
