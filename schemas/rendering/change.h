#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "schemas/registry.h"
#include "schemas/rendering/row.h"

namespace millrace::rendering {

/// The numbers of millrace.v1.Change.Op.
enum class Op : std::uint8_t {
  kCreate = 1,
  kUpdate = 2,
  kDelete = 3,
  kRead = 4,
  kTruncate = 5,
  kMessage = 6
};
/// "c", "u", "d", "r", "t" or "m".
std::string_view letter_of(Op op);

/// A millrace.v1.Change as far as it is shown. Views into its bytes.
struct Change {
  Op op{};
  std::uint32_t schema = 0;
  std::uint64_t lsn = 0;
  bool has_before = false;
  bool before_is_key = false;
  std::string_view before, after, prefix, content;
  std::string_view unchanged;  ///< Packed field numbers.
};

/// Errors: kCorruption.
Result<Change> read_change(std::string_view payload);

/// The rows of a change, taken apart by their schema. Its buffers are there for the next one.
class ChangedRows {
 public:
  /// `change` and its bytes must live as long as this is used. Errors: kNotFound (no such schema),
  /// kCorruption.
  Result<void> read(const Change& change, std::string_view category, SchemaRegistry& schemas);

  bool has_before() const { return has_before_; }
  bool has_after() const { return has_after_; }

  /// The members of the key, from whichever image has them, without braces: "id":42 as JSON, id=42
  /// for a person. Appends nothing where the event has no key.
  Result<void> append_key(bool json, std::string& out) const;
  /// Each an object, or null where there is no such image.
  Result<void> append_before(std::string& out) const;
  Result<void> append_after(std::string& out) const;
  /// A list of names.
  void append_unchanged(std::string& out) const;

 private:
  template <typename Shown>
  Result<void> append_image(const Row& row, const Shown& shown, std::string& out) const;
  bool is_unchanged(std::uint32_t field) const;
  Result<void> check_unchanged() const;

  const Change* change_ = nullptr;
  SchemaRegistry::Schema schema_;
  Row before_, after_;
  bool has_before_ = false, has_after_ = false;
};

}  // namespace millrace::rendering
