#pragma once

#include <cstddef>
#include <string>

#include "tests/sim/simulation.h"

// What somebody does to a file of a store that is nobody's crash.

namespace millrace::sim {

struct Damage {
  std::string file;
  bool is_missing = false;
  bool is_older = false;            ///< What it once was came back, in part or ...
  bool is_whole_and_older = false;  ///< ... whole.
  bool has_effect = false;          ///< It touched bytes that the log claims.
  std::size_t from = 0;             ///< The first byte that is another one, or that is gone.
};

Damage inflict(Simulation& sim, FaultFs& files, const Arguments& arguments);

inline bool is_segment(const std::string& name) { return name.ends_with(".log"); }

}  // namespace millrace::sim
