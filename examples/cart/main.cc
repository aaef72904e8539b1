// cart STORE CART add SKU COUNT CENTS | remove SKU COUNT | checkout | show
//
// Runs one command on one cart. Any number of these may run at once, also beside a `millrace
// capture run` on the same store.
#include <charconv>
#include <cstdio>
#include <optional>
#include <span>
#include <string>

#include "cart.h"
#include "eventstore/stream_reader.h"
#include "service/shared_store.h"

namespace {

using millrace::Result;

template <typename Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

/// Nothing for words that are none; `show` is no command, but no mistake either.
std::optional<Cart::Command> parse(std::span<char*> words) {
  const std::string verb = words[0];
  if (verb == "add" && words.size() == 4) {
    const auto count = number<std::uint32_t>(words[2]);
    const auto cents = number<std::int64_t>(words[3]);
    if (count && cents) return Cart::Add{words[1], *count, *cents};
  }
  if (verb == "remove" && words.size() == 3)
    if (const auto count = number<std::uint32_t>(words[2])) return Cart::Remove{words[1], *count};
  if (verb == "checkout" && words.size() == 1) return Cart::CheckOut{};
  return std::nullopt;
}

Result<millrace::Loaded<Cart>> run(const std::string& directory, const std::string& key,
                                   const std::optional<Cart::Command>& command) {
  MILLRACE_ASSIGN_OR_RETURN(const auto store, millrace::SharedStore::open(directory));
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, millrace::StreamReader::open(directory));
  const millrace::StreamSnapshots snapshots(directory, store->id());
  millrace::Repository<Cart> carts(*store, *reader, snapshots);
  return command ? carts.execute(key, *command) : carts.load(key);
}

void print(const Cart::State& state) {
  for (const auto& [sku, line] : state.lines)
    std::printf("%5u  %-20s %10.2f\n", line.count, sku.c_str(),
                static_cast<double>(line.count * line.unit_price_cents) / 100);
  std::printf("       %-20s %10.2f\n", state.checked_out ? "checked out" : "total",
              static_cast<double>(state.total_cents()) / 100);
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<char*> words(argv + 3, argc > 3 ? static_cast<std::size_t>(argc - 3) : 0);
  const auto command = words.empty() ? std::nullopt : parse(words);
  const bool show = words.size() == 1 && std::string(words[0]) == "show";
  if (!command && !show) {
    std::fprintf(
        stderr,
        "Usage: cart STORE CART add SKU COUNT CENTS | remove SKU COUNT | checkout | show\n");
    return argc == 2 && std::string(argv[1]) == "--help" ? 0 : millrace::kExitUsage;
  }
  const auto cart = run(argv[1], argv[2], command);
  if (!cart) {
    std::fprintf(stderr, "cart: %s\n", cart.error().to_string().c_str());
    return millrace::exit_code_for(cart.error().code());
  }
  print(cart->state);
  return 0;
}
