#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "schemas/table_schema.h"

namespace millrace::pgoutput {

/// How values of a column look on the wire in binary.
struct BinaryType {
  enum class Form : std::uint8_t {
    kNone,  ///< No decoder that gives what the text gives: such a column must come as text.
    kBool,
    kInt2,
    kInt4,
    kInt8,
    kOid,
    kFloat4,
    kFloat8,
    kNumeric,
    kText,  ///< text, varchar, bpchar, name, json, labels of enums
    kJsonb,
    kBytea,
    kUuid,
    kDate,
    kTime,
    kTimeTz,
    kTimestamp,
  };
  Form form = Form::kNone;
  bool array = false;
  std::uint32_t element_oid = 0;  ///< That an array must name; 0: an enum's, any.

  /// Whether the binary form gives the same bytes of a row as the text.
  bool exact() const { return form != Form::kNone; }
  bool operator==(const BinaryType&) const = default;
};

/// Of a column of type `base_oid` (what a domain is based on; itself for any other), which the
/// catalog calls a `kind` or an array of it.
///
/// Not exact, though PostgreSQL sends them in binary: "char" (bytes beyond ASCII are text in
/// another way since 16), interval (its infinity of 17 is a finite one of 16), xml (may name an
/// encoding), and all whose text only PostgreSQL itself can write.
BinaryType binary_type(std::uint32_t base_oid, ValueKind kind, bool array);

/// Appends one field of a row message to `row`: `bytes` is what the send function of `column`'s
/// type wrote (https://www.postgresql.org/docs/15/sql-copy.html, "Binary Format"; the functions
/// named *send in PostgreSQL's src/backend/utils/adt). It is, to the byte, what append_text_value
/// makes of the same value's text.
///
/// Errors: kCorruption naming the column when `bytes` are no such value, or `type` is not exact();
/// kUnsupported for an array whose text would be beyond what PostgreSQL itself can hold (1 GiB).
/// `row` is then unchanged. Nothing larger is allocated than `bytes` ask for, but for numbers: one
/// of a few bytes may have 147,455 digits. Threads: any.
Result<void> append_binary_value(const ColumnSchema& column, BinaryType type,
                                 std::string_view bytes, std::string& row);

}  // namespace millrace::pgoutput
