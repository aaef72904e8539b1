#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "projections/stored_row.h"
#include "projections/view.h"

namespace millrace::projections {

struct SearchIndexOptions {
  /// What names a document. integer("id") is the document number itself, the fastest; text("sku")
  /// anything else.
  Column key{};
  /// Columns that are searched.
  std::vector<std::string> text{};
  /// Columns that are only kept, to show them beside a hit.
  std::vector<std::string> stored{};
  /// As in https://sqlite.org/fts5.html#tokenizers: "porter" finds "running" by "run", "trigram"
  /// finds parts of words.
  std::string tokenizer = "unicode61 remove_diacritics 2";
};

/// A view that is a full-text index (SQLite FTS5):
///
///     SELECT id, name FROM product_search WHERE product_search MATCH 'garden' ORDER BY rank LIMIT
///     10
class SearchIndex final : public ViewBuilder<SearchIndex> {
 public:
  class Writer;

  SearchIndex(std::string name, Version version, SearchIndexOptions options);

  Result<void> create(sqlite::Database& database) const override;
  Result<void> begin_bulk(sqlite::Database& database) const override;
  Result<void> end_bulk(sqlite::Database& database) const override;
  Result<std::unique_ptr<internal::ViewWriter>> make_writer(
      sqlite::Database& database) const override;
  std::vector<internal::Comparison> comparisons() const override;
  std::string count_query() const override;
  Result<void> check_shape() const override;
  void describe(std::string& shape) const override;

 private:
  std::string create_statement() const;

  SearchIndexOptions options_;
};

/// Writes the documents of a search index. Columns go by name; one that is not named keeps its
/// value, and so does one whose Value is unchanged. A key may be given as a number or as text: 42
/// and "42" name the same document.
///
/// Nothing to check after a call: a failure sets the event aside that met it, or stops the view
/// before it.
class SearchIndex::Writer final : public internal::ViewWriter {
 public:
  using Assignments = AssignmentList;

  /// Sets columns of a document; makes it if it is not there.
  /// After an erase() by the first half of a change of key, unchanged columns are taken along from
  /// the erased document.
  void put(Value key, Assignments columns);
  void erase(Value key);
  /// Gives a document another key, replacing the one that has it. Does nothing if there is no
  /// `from`.
  void move(Value from, Value to);
  /// Erases every document.
  void clear();
  /// The document with all that was written so far, also in this event.
  std::optional<StoredRow> find(Value key);

  ~Writer() override;
  void flush() override;

 private:
  friend class SearchIndex;
  class Statements;
  explicit Writer(std::unique_ptr<Statements> statements);

  std::unique_ptr<Statements> statements_;
};

}  // namespace millrace::projections
