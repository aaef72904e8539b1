#pragma once

#include <string>

#include "projections/engine/build.h"

namespace millrace::projections {

/// Shows on a terminal how far a long piece of work is, in one line that is written over; nothing
/// in a pipe.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine();

  BuildHooks hooks();

 private:
  void show(const BuildProgress& progress);

  const std::string what_;
  const bool on_terminal_;
  bool shown_ = false;
};

/// "orders  1,200,000 of 10,000,000 events (12 %)  800,000/s  11 s left"
std::string progress_text(const std::string& what, const BuildProgress& progress);
/// 1234567 as "1,234,567".
std::string grouped(std::uint64_t number);

}  // namespace millrace::projections
