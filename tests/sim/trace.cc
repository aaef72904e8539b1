#include "tests/sim/trace.h"

#include <random>
#include <sstream>

#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

constexpr std::size_t kStepsMin = 20, kStepsMore = 70;

std::size_t find_operation(std::string_view name) {
  const auto table = operations();
  for (std::size_t i = 0; i < table.size(); ++i)
    if (table[i].name == name) return i;
  return table.size();
}

}  // namespace

Trace trace_of(std::uint64_t seed) {
  std::mt19937_64 random(seed * 0x9e3779b97f4a7c15 + 1);
  const auto table = operations();
  std::vector<std::uint64_t> weights;
  std::uint64_t total = 0;
  bool wanted = false;
  for (const Operation& operation : table) {
    // Half of what is not needed is left out, and the rest is not equally likely either.
    if (operation.when != Operation::kWithLast)
      wanted = operation.when == Operation::kAlways || random() % 2 == 0;
    const std::uint64_t weight = wanted ? operation.weight * (1 + random() % 4) : 0;
    weights.push_back(weight);
    total += weight;
  }
  Trace trace;
  const auto add = [&](std::size_t operation) {
    Step step{.operation = operation, .arguments = {}};
    for (auto& argument : step.arguments) argument = static_cast<std::uint32_t>(random() >> 32);
    trace.push_back(step);
  };
  add(find_operation("options"));
  for (std::size_t left = kStepsMin + random() % kStepsMore; left != 0; --left) {
    std::uint64_t drawn = random() % total;
    std::size_t operation = 0;
    while (drawn >= weights[operation]) drawn -= weights[operation++];
    add(operation);
  }
  return trace;
}

std::string to_text(const Trace& trace) {
  std::string text;
  for (const Step& step : trace) {
    text += operations()[step.operation].name;
    for (const std::uint32_t argument : step.arguments) text += ' ' + std::to_string(argument);
    text += '\n';
  }
  return text;
}

Result<Trace> parse_trace(const std::string& text) {
  Trace trace;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name;
    if (!(words >> name)) continue;
    Step step{.operation = find_operation(name), .arguments = {}};
    if (step.operation == operations().size())
      return Error(ErrorCode::kInvalidArgument, "there is no operation " + name);
    for (auto& argument : step.arguments) words >> argument;
    trace.push_back(step);
  }
  return trace;
}

}  // namespace millrace::sim
