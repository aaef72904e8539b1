#include "projections/sink_testing.h"

#include <array>
#include <limits>
#include <map>
#include <random>
#include <stdexcept>

#include "base/bytes.h"

namespace millrace::projections::testing {
namespace {

constexpr int kRounds = 60;
constexpr int kKeys = 40;
constexpr int kManyRows = 12'000;
const std::string kStore = "5f0e";

/// A row that owns its values.
struct Row {
  std::vector<std::optional<std::string>> texts;
  std::vector<Value> values;
};
using Rows = std::map<std::string, Row>;

[[noreturn]] void broken(const std::string& what) { throw std::runtime_error(what); }

template <typename T>
T must(Result<T> result, const std::string& doing) {
  if (!result) broken(doing + " failed: " + result.error().to_string());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

class Trial {
 public:
  Trial(const SinkKind& kind, const SinkShape& shape, std::uint64_t seed)
      : kind_(kind), whole_(shape), shape_(kind.kept(shape)), random_(seed) {}

  void run() {
    must(kind_.check(shape_), "check()");
    first_load();
    for (int round = 0; round < kRounds; ++round) transaction(static_cast<Leave>(below(6)));
    empty_transaction();
    many_rows();
    fence();
    fence_in_transaction();
    another_store();
    another_shape();
  }

 private:
  /// Where a transaction is left, as a process that is killed leaves it.
  enum class Leave { kAfterBegin, kAfterWrites, kAfterCheckpoint, kNever, kNever2, kNever3 };

  std::size_t below(std::size_t end) { return random_() % end; }

  std::string random_text() {
    static const std::array<std::string, 12> texts = {"",
                                                      "NULL",
                                                      "plain",
                                                      "it's \"quoted\" {and, braced}",
                                                      "back\\slash",
                                                      "\n\t ",
                                                      "gr\xc3\xbc\xc3\x9f",
                                                      "\xf0\x9f\x8c\x8a",
                                                      "*?[a-z]",
                                                      "%s",
                                                      "0",
                                                      "-1"};
    return texts[below(texts.size())] + (below(2) == 0 ? "" : std::to_string(below(100)));
  }

  std::string random_bytes() {
    std::string bytes;
    for (std::size_t i = below(20); i > 0; --i) bytes += static_cast<char>(below(256));
    return bytes;
  }

  Value random_number() {
    static constexpr std::array<std::int64_t, 6> ends = {std::numeric_limits<std::int64_t>::min(),
                                                         std::numeric_limits<std::int64_t>::max(),
                                                         0,
                                                         -1,
                                                         1,
                                                         9'007'199'254'740'993};
    return below(3) == 0 ? Value(ends[below(ends.size())])
                         : Value(static_cast<std::int64_t>(below(1000)));
  }

  /// Also round ones, of which some texts have an exponent.
  std::int64_t random_count() {
    static constexpr std::array<std::int64_t, 6> round = {
        99'999, 100'000, 200'000, 1'000'000, 2'000'000'000'000, 9'007'199'254'740'991};
    return below(3) == 0 ? round[below(round.size())] : static_cast<std::int64_t>(below(1000));
  }

  /// Text of a value goes into `text`.
  Value random_value(const Column& column, std::optional<std::string>& text) {
    if (column.counter) return random_count();
    if (below(5) == 0) return {};
    static constexpr std::array<double, 9> reals = {0.1, -1.5,     1e300, 5e-324, 0,
                                                    1e5, 0.000'01, 1e20,  1e23};
    switch (column.type) {
      case ColumnType::kInteger: return random_number();
      case ColumnType::kReal: return reals[below(reals.size())];
      case ColumnType::kText: return Value(*(text = random_text()));
      case ColumnType::kBlob: return Value::blob(*(text = random_bytes()));
      case ColumnType::kNumeric:
        if (below(3) == 0) return random_number();
        if (below(2) == 0) return reals[below(reals.size())];
        return Value(*(text = std::to_string(below(1000)) + ".50"));
    }
    return {};
  }

  Row random_row() {
    Row row;
    row.texts.resize(shape_.columns.size());  // never moved again: values are views of them
    for (std::size_t i = 0; i < shape_.columns.size(); ++i)
      row.values.push_back(random_value(shape_.columns[i], row.texts[i]));
    return row;
  }

  std::string key_of(std::size_t number) const {
    if (shape_.key.type == ColumnType::kInteger)
      return std::to_string(static_cast<std::int64_t>(number) - 5);
    return number == 0 ? "it's a {key}, \"0\"" : "key/" + std::to_string(number);
  }

  Value key_value(const std::string& key) const {
    return shape_.key.type == ColumnType::kInteger ? Value(std::int64_t{std::stoll(key)})
                                                   : Value(key);
  }

  SinkCheckpoint next_checkpoint() const {
    SinkCheckpoint next = shown_.value_or(SinkCheckpoint{kStore, "lineage 1", 0, Offset{0}});
    next.commit += 1;
    next.offset.value += 17;
    return next;
  }

  void write(Sink& sink, const std::string& key, const Row* row) {
    SinkRow out{key_value(key), std::nullopt};
    if (row != nullptr) out.columns = std::span<const Value>(row->values);
    must(sink.write(out), "write()");
  }

  /// By another process each time.
  std::unique_ptr<Sink> opened() {
    auto sink = kind_.make(shape_);
    const auto shown = must(sink->open({"writer " + std::to_string(++writers_), kStore}), "open()");
    if (shown != shown_)
      broken(std::string("open() gives ") + (shown ? "a" : "no") +
             " checkpoint, which is not that of the last commit()");
    return sink;
  }

  void expect_shown(Sink& sink, const std::string& when) {
    if (must(sink.position(), "position()") != shown_)
      broken(when + ", position() is not the checkpoint of the last commit()");
    if (!shown_) return;
    std::map<std::string, Sink::Texts> there;
    must(sink.read([&](const std::string& key, const Sink::Texts& texts) -> Result<void> {
      there[key] = texts;
      return {};
    }),
         "read()");
    for (const auto& [key, texts] : there)
      if (!rows_.contains(key)) broken(when + ", there is a row '" + key + "' that should not be");
    std::vector<Sink::Texts> here;
    for (const auto& [key, row] : rows_) here.push_back(texts_of(row));
    must(sink.as_kept(here), "as_kept()");
    if (here.size() != rows_.size()) broken(when + ", as_kept() gives another number of rows");
    for (std::size_t i = 0; const auto& [key, row] : rows_) {
      const auto found = there.find(key);
      if (found == there.end()) broken(when + ", the row '" + key + "' is missing");
      compare(key, here[i++], found->second, when);
    }
  }

  static Sink::Texts texts_of(const Row& row) {
    Sink::Texts texts;
    for (const Value& value : row.values) texts.push_back(sink_text(value));
    return texts;
  }

  void compare(const std::string& key, const Sink::Texts& here, const Sink::Texts& there,
               const std::string& when) const {
    if (there.size() != here.size())
      broken(when + ", read() gives another number of columns for '" + key + "'");
    for (std::size_t i = 0; i < there.size(); ++i) {
      if (same_in_sink(shape_.columns[i], here[i], there[i])) continue;
      broken(when + ", column " + shape_.columns[i].name + " of '" + key + "' is '" +
             printable(there[i].value_or("(null)")) + "', not '" +
             printable(here[i].value_or("(null)")) + "'");
    }
  }

  void first_load() {
    auto sink = opened();
    expect_shown(*sink, "before anything is written");
    must(sink->begin(), "begin()");
    for (std::size_t i = 0; i < kKeys / 2; ++i) {
      Row& row = rows_[key_of(i)] = random_row();
      write(*sink, key_of(i), &row);
    }
    finish(*sink);
    expect_shown(*sink, "after the first load");
  }

  void finish(Sink& sink) {
    const SinkCheckpoint next = next_checkpoint();
    must(sink.checkpoint(next), "checkpoint()");
    must(sink.commit(), "commit()");
    if (below(2) == 0) must(sink.finish(), "finish()");  // position() and read() wait by themselves
    shown_ = next;
  }

  void transaction(Leave leave) {
    auto sink = opened();
    Rows rows = copy(rows_);
    must(sink->begin(), "begin()");
    if (leave != Leave::kAfterBegin) {
      for (std::size_t i = 0; i < kKeys; ++i) {
        const std::string key = key_of(i);
        const std::size_t what = below(4);  // also the key of a row that is not there
        if (what == 0) rows.erase(key), write(*sink, key, nullptr);
        if (what == 1) write(*sink, key, &(rows[key] = random_row()));
      }
    }
    if (leave == Leave::kAfterCheckpoint) must(sink->checkpoint(next_checkpoint()), "checkpoint()");
    if (leave >= Leave::kNever) {
      finish(*sink);
      rows_ = std::move(rows);
      expect_shown(*sink, "after a commit()");
      return;
    }
    sink.reset();
    expect_shown(*opened(), "after a transaction that was left open");
  }

  /// Values are views of texts, which move with their vector.
  static Rows copy(const Rows& rows) {
    Rows out;
    for (const auto& [key, row] : rows) {
      Row& to = out[key];
      to.texts = row.texts;
      for (std::size_t i = 0; i < row.values.size(); ++i) {
        const Value& value = row.values[i];
        to.values.push_back(value.kind() == Value::Kind::kText   ? Value(*to.texts[i])
                            : value.kind() == Value::Kind::kBlob ? Value::blob(*to.texts[i])
                                                                 : value);
      }
    }
    return out;
  }

  void empty_transaction() {
    auto sink = opened();
    must(sink->begin(), "begin()");
    finish(*sink);
    expect_shown(*sink, "after a transaction without rows");
  }

  void many_rows() {
    auto sink = opened();
    must(sink->begin(), "begin()");
    for (std::size_t i = kKeys; i < kManyRows; ++i) {
      Row& row = rows_[key_of(i)] = random_row();
      write(*sink, key_of(i), &row);
    }
    finish(*sink);
    expect_shown(*sink, "after a transaction of many rows");
    must(sink->begin(), "begin()");
    for (std::size_t i = kKeys; i < kManyRows; ++i) {
      rows_.erase(key_of(i));
      write(*sink, key_of(i), nullptr);
    }
    finish(*sink);
    expect_shown(*sink, "after a transaction that erases many rows");
  }

  /// One that was taken over may fail at any step, and must at the last.
  void expect_fenced(Sink& sink, bool begun) {
    const Row row = random_row();
    const std::string key = key_of(1);
    const SinkRow out{key_value(key), std::span<const Value>(row.values)};
    const bool done = (begun || sink.begin()) && sink.write(out) &&
                      sink.checkpoint(next_checkpoint()) && sink.commit() && sink.finish();
    if (done) broken("a Sink could commit() after another one had taken over");
  }

  void fence() {
    auto old = opened();
    const SinkWriter again{"writer " + std::to_string(writers_), kStore, true};
    auto sink = opened();
    expect_fenced(*old, false);
    if (kind_.make(shape_)->open(again))
      broken("a writer that another one had taken over from could open() again");
    expect_shown(*sink, "after a fenced transaction");
    must(sink->begin(), "begin() after taking over");
    finish(*sink);
    expect_shown(*sink, "after taking over");
  }

  void another_store() {
    auto sink = opened();
    if (kind_.make(shape_)->open({"a stranger", "0bad"}))
      broken("open() takes what was written from another store");
    must(sink->begin(), "begin() after a stranger was refused");
    finish(*sink);
    expect_shown(*sink, "after a stranger was refused");
  }

  void fence_in_transaction() {
    auto old = opened();
    must(old->begin(), "begin()");
    const Row row = random_row();
    write(*old, key_of(2), &row);
    auto sink = opened();
    expect_fenced(*old, true);
    expect_shown(*sink, "after a transaction was fenced off in its middle");
    must(sink->begin(), "begin() after taking over");
    Row& mine = rows_[key_of(2)] = random_row();
    write(*sink, key_of(2), &mine);
    finish(*sink);
    expect_shown(*sink, "after taking over from a transaction");
  }

  void another_shape() {
    SinkShape wider = whole_;
    wider.columns.push_back(integer("added"));
    wider = kind_.kept(wider);
    if (wider.columns.size() == shape_.columns.size()) return;  // not of interest to it
    shape_ = wider;
    rows_.clear();
    shown_.reset();
    auto sink = opened();
    must(sink->begin(), "begin() of another shape");
    Row& row = rows_[key_of(3)] = random_row();
    write(*sink, key_of(3), &row);
    finish(*sink);
    expect_shown(*sink, "after the shape has changed");
  }

  const SinkKind& kind_;
  const SinkShape whole_;
  SinkShape shape_;
  std::mt19937_64 random_;
  Rows rows_;
  std::optional<SinkCheckpoint> shown_;
  int writers_ = 0;
};

}  // namespace

std::optional<std::string> broken_promise(const SinkKind& kind, const SinkShape& shape,
                                          std::uint64_t seed) {
  try {
    Trial(kind, shape, seed).run();
    return std::nullopt;
  } catch (const std::runtime_error& failure) {
    return failure.what();
  }
}

}  // namespace millrace::projections::testing
