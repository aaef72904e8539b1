#include "projections/testing.h"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace millrace::projections::testing {
namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

std::string text_of(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kInteger: return std::to_string(value.integer());
    case Value::Kind::kReal: {
      char text[32];
      std::snprintf(text, sizeof text, "%.17g", value.real());
      return text;
    }
    case Value::Kind::kText:
    case Value::Kind::kBlob: return std::string(value.text());
    case Value::Kind::kNull:
    case Value::Kind::kUnchanged: break;
  }
  return "null";
}

std::optional<std::string> encoded(const google::protobuf::Message* row) {
  return row ? std::optional(row->SerializeAsString()) : std::nullopt;
}

std::optional<std::string> compare(const std::string& what,
                                   const std::vector<std::string>& expected,
                                   const std::vector<std::string>& got) {
  const auto [left, right] =
      std::mismatch(expected.begin(), expected.end(), got.begin(), got.end());
  if (left == expected.end() && right == got.end()) return std::nullopt;
  return what + ": " + (right == got.end() ? "no row" : "'" + *right + "'") +
         " where transaction by transaction there is " +
         (left == expected.end() ? "none" : "'" + *left + "'");
}

constexpr std::size_t kCrashesMax = 100;  // of one run: a writer is made anew after each

void apply_all(ViewTester& tester, const Transaction& transaction) {
  for (const TestChange& change : transaction) tester.apply(change);
}

std::vector<std::string> one_by_one(const View& view,
                                    const std::vector<Transaction>& transactions) {
  ViewTester tester(view);
  for (const Transaction& transaction : transactions) tester.given(transaction);
  return tester.rows();
}

void crash_after_each_change(ViewTester& tester, const std::vector<Transaction>& transactions) {
  std::size_t changes = 0, at = 0;
  for (const Transaction& transaction : transactions) changes += transaction.size();
  const std::size_t every = 1 + changes / kCrashesMax;
  for (const Transaction& transaction : transactions) {
    for (std::size_t end = 1; end <= transaction.size(); ++end) {
      if (at++ % every != 0) continue;
      for (std::size_t i = 0; i < end; ++i) tester.apply(transaction[i]);
      tester.crash();
    }
    tester.given(transaction);
  }
}

void disturb(ViewTester& tester, const std::vector<Transaction>& transactions, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::size_t committed = 0, next = 0, crashes = 0;
  while (next < transactions.size()) {
    if (random() % 8 == 0 && crashes++ < kCrashesMax) {
      for (std::size_t i = 0; i < transactions[next].size() / 2; ++i)
        tester.apply(transactions[next][i]);
      tester.crash();
      next = committed;
      continue;
    }
    apply_all(tester, transactions[next]);
    ++next;
    if (random() % 3 != 0) continue;
    if (random() % 4 == 0)
      tester.restart();
    else
      tester.commit();
    committed = next;
  }
  tester.commit();
}

/// What the tables hold, as far as it was sent whole.
class Tables {
 public:
  void follow(const Transaction& transaction) {
    for (const TestChange& change : transaction) {
      if (!change.type.empty()) continue;
      if (change.op == Op::kTruncate)
        std::erase_if(rows_, [&](const auto& row) { return row.first.first == change.category; });
      else if (change.op == Op::kDelete || !change.unchanged.empty())
        rows_.erase({change.category, change.key});
      else
        rows_[{change.category, change.key}] = change.after;
    }
  }

  Transaction all_rows() const {
    Transaction rows;
    for (const auto& [key, after] : rows_) rows.push_back(read(key, after));
    return rows;
  }
  Transaction some_rows(std::mt19937_64& random) const {
    Transaction rows = all_rows();
    std::erase_if(rows, [&](const TestChange&) { return random() % 4 != 0; });
    return rows;
  }

 private:
  using Key = std::pair<std::string, std::string>;

  static TestChange read(const Key& key, const std::string& after) {
    TestChange change;
    change.op = Op::kRead;
    std::tie(change.category, change.key) = key;
    change.after = after;
    return change;
  }

  std::map<Key, std::string> rows_;
};

}  // namespace

TestChange inserted(std::string category, std::string key, const google::protobuf::Message& row) {
  TestChange change;
  change.category = std::move(category);
  change.key = std::move(key);
  change.after = row.SerializeAsString();
  return change;
}

TestChange updated(std::string category, std::string key, const google::protobuf::Message& row,
                   const google::protobuf::Message* before) {
  TestChange change = inserted(std::move(category), std::move(key), row);
  change.op = Op::kUpdate;
  change.before = encoded(before);
  return change;
}

TestChange deleted(std::string category, std::string key, const google::protobuf::Message* before) {
  TestChange change;
  change.op = Op::kDelete;
  change.category = std::move(category);
  change.key = std::move(key);
  change.before = encoded(before);
  return change;
}

TestChange truncated(std::string category) {
  TestChange change;
  change.op = Op::kTruncate;
  change.category = std::move(category);
  return change;
}

TestChange appended(std::string category, std::string key, std::string type, std::string payload) {
  TestChange event;
  event.category = std::move(category);
  event.key = std::move(key);
  event.after = std::move(payload);
  event.type = std::move(type);
  return event;
}

TestChange erased(std::string category, std::string key) {
  TestChange event = appended(std::move(category), std::move(key), "Erased", {});
  event.op = Op::kDelete;
  return event;
}

TestChange messaged(std::string prefix, std::string content) {
  const std::string type = prefix;
  return appended(std::string(internal::kMessagesCategory), std::move(prefix), type,
                  std::move(content));
}

ViewTester::ViewTester(const View& view) : view_(view) {
  must(view.check());
  database_ = must(sqlite::Database::open(":memory:", sqlite::Mode::kBulk));
  must(view.create(*database_));
  must(view.begin_bulk(*database_));
  must(view.end_bulk(*database_));
  open();
}

void ViewTester::open() {
  appliers_.clear();
  writer_ = must(view_.make_writer(*database_));
  writer_->write_at_once(true);  // so that an error is of the change at hand
  for (const auto& source : view_.sources()) appliers_.push_back(source.make_applier(*writer_));
}

ViewTester& ViewTester::given(const Transaction& transaction) {
  for (const TestChange& change : transaction) apply(change);
  commit();
  return *this;
}

void ViewTester::apply(const TestChange& change) {
  static const TransactionInfo info;
  const auto source =
      std::find_if(view_.sources().begin(), view_.sources().end(),
                   [&](const auto& of_view) { return of_view.category == change.category; });
  const Offset offset{place_.offset++};
  const bool is_versioned = !change.type.empty() && change.op != Op::kDelete &&
                            change.category != internal::kMessagesCategory;
  std::optional<std::uint64_t> version;
  if (is_versioned) version = place_.versions[{change.category, change.key}]++;
  if (source == view_.sources().end()) return;
  if (!in_transaction_) must(database_->begin());
  in_transaction_ = true;
  internal::RawChange raw;
  raw.op = change.op;
  raw.category = change.category;
  raw.key = change.key;
  raw.after = change.after;
  if (change.before) raw.before = *change.before;
  if (change.moved_from) raw.moved_from = *change.moved_from;
  raw.unchanged = change.unchanged;
  raw.offset = offset;
  raw.type = change.type;
  raw.version = version;
  raw.transaction = &info;
  must(appliers_[static_cast<std::size_t>(source - view_.sources().begin())]->apply(raw));
}

void ViewTester::commit() {
  committed_ = place_;
  if (!in_transaction_) return;
  writer_->flush();
  if (writer_->failed()) throw std::runtime_error(writer_->take_failure().to_string());
  must(database_->commit());
  in_transaction_ = false;
}

void ViewTester::crash() {
  appliers_.clear();
  writer_.reset();
  if (in_transaction_) database_->rollback();
  in_transaction_ = false;
  place_ = committed_;
  open();
}

void ViewTester::restart() {
  commit();
  open();
}

std::vector<std::string> ViewTester::rows() {
  const internal::Comparison comparison = view_.comparisons().front();
  if (comparison.prepare) must(comparison.prepare(*database_));
  auto statement = must(database_->prepare(comparison.sql));
  std::vector<std::string> rows;
  while (must(statement.step())) {
    std::string row;
    for (int i = 0; i < statement.column_count(); ++i)
      row += (i == 0 ? "" : "|") + text_of(statement.column(i));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::optional<std::string> first_difference(const View& view,
                                            const std::vector<Transaction>& transactions,
                                            std::uint64_t seed) {
  const std::vector<std::string> expected = one_by_one(view, transactions);

  ViewTester at_once(view);
  for (const Transaction& transaction : transactions) apply_all(at_once, transaction);
  at_once.commit();
  if (auto difference = compare("all at once", expected, at_once.rows())) return difference;

  ViewTester crashing(view);
  crash_after_each_change(crashing, transactions);
  if (auto difference = compare("with a crash after each change", expected, crashing.rows()))
    return difference;

  ViewTester disturbed(view);
  disturb(disturbed, transactions, seed);
  return compare("with crashes and restarts (seed " + std::to_string(seed) + ")", expected,
                 disturbed.rows());
}

std::optional<std::string> first_difference_when_read_again(
    const View& view, const std::vector<Transaction>& transactions, std::uint64_t seed) {
  ViewTester tester(view);
  Tables tables;
  std::mt19937_64 random(seed);
  for (const Transaction& transaction : transactions) {
    tester.given(transaction);
    tables.follow(transaction);
    tester.given(tables.some_rows(random));
  }
  tester.given(tables.all_rows());
  return compare("with rows read again (seed " + std::to_string(seed) + ")",
                 one_by_one(view, transactions), tester.rows());
}

}  // namespace millrace::projections::testing
