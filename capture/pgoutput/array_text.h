#pragma once

#include <string>
#include <string_view>

namespace millrace::pgoutput {

/// Walks the elements of a one-dimensional array in PostgreSQL's text: `{1,NULL,"a \"b\""}`
/// (https://www.postgresql.org/docs/15/arrays.html#ARRAYS-IO). Elements are separated by ',', as
/// for every built-in type but box.
class ArrayReader {
 public:
  enum class Item {
    kElement,  ///< element() has its text.
    kNull,
    kEnd,         ///< And nothing was wrong.
    kOtherShape,  ///< An array, but of several dimensions or with bounds of its own; only as the
                  ///< first item.
    kInvalid,
  };

  /// `buffer` holds an element that had to be unescaped.
  ArrayReader(std::string_view text, std::string& buffer) : rest_(text), buffer_(buffer) {}

  Item next();
  /// Valid until the next call.
  std::string_view element() const { return element_; }

 private:
  Item first();
  Item after_separator();
  bool read_quoted();

  std::string_view rest_;
  std::string& buffer_;
  std::string_view element_;
  bool started_ = false;
};

/// Whether `text` is built as an array of any shape and delimiter: bounds, braces that match,
/// quotes that end.
bool is_array_text(std::string_view text);

}  // namespace millrace::pgoutput
