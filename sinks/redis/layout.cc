#include "sinks/redis/layout.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/bytes.h"
#include "projections/decimal.h"

namespace millrace::projections::redis {
namespace {

constexpr std::string_view kKeysPerScan = "5000";
constexpr std::size_t kKeysPerPortion = 20'000;     // that are removed in one
constexpr double kWholeMax = 9.007199254740992e15;  // below it a double holds each integer

/// `text` as a pattern that matches nothing else.
std::string as_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("*?[]\\^-").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/// Calls `visit` with the pages of a SCAN or one of its kin.
Result<void> scan(Connection& connection, Words command, std::size_t cursor_place,
                  const std::function<Result<bool>(const Reply& page)>& visit) {
  std::string cursor = "0";
  do {
    command[cursor_place] = cursor;
    MILLRACE_ASSIGN_OR_RETURN(const Reply reply, connection.call(command));
    cursor = reply.at(0).text();
    MILLRACE_ASSIGN_OR_RETURN(const bool goes_on, visit(reply.at(1)));
    if (!goes_on) break;
  } while (cursor != "0");
  return {};
}

class Hashes final : public Layout {
 public:
  Hashes(SinkShape shape, std::string prefix)
      : shape_(std::move(shape)), prefix_(prefix.empty() ? shape_.view + ":" : std::move(prefix)) {}

  std::string shape() const override {
    std::string shape = "hashes " + prefix_ + " " + shape_.key.name;
    for (const Column& column : shape_.columns) shape += " " + column.name;
    return shape;
  }
  std::string describe() const override { return "the hashes " + printable(prefix_) + "*"; }
  Keys keys() const override { return {prefix_, true}; }

  /// What was there goes first: fields that are null now, or a key of another type.
  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string id = *sink_text(row.key), key = prefix_ + id;
    send({"DEL", key});
    if (!row.columns) return {};
    std::vector<std::string> texts;
    texts.reserve(shape_.columns.size());  // the words below are views of them
    Words words{"HSET", key, shape_.key.name, id};
    for (std::size_t i = 0; i < shape_.columns.size(); ++i) {
      const Value& value = (*row.columns)[i];
      if (value.is_null()) continue;
      words.push_back(shape_.columns[i].name);
      const bool is_text = value.kind() == Value::Kind::kText || value.kind() == Value::Kind::kBlob;
      words.push_back(is_text ? value.text() : texts.emplace_back(*sink_text(value)));
    }
    send(words);
    return {};
  }

  Result<std::string> find_any(Connection& connection) const override {
    std::string found;
    MILLRACE_RETURN_IF_ERROR(scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      if (page.size() > 0) found = page.at(0).text();
      return found.empty();
    }));
    return found;
  }

  Result<bool> clear_some(Connection& connection, const Send& send) const override {
    std::vector<std::string> keys;
    MILLRACE_RETURN_IF_ERROR(scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i) keys.emplace_back(page.at(i).text());
      return keys.size() < kKeysPerPortion;
    }));
    for (const std::string& key : keys) send({"UNLINK", key});
    return !keys.empty();
  }

  Result<void> read(Connection& connection, const Visit& visit) const override {
    return scan_keys(connection, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i) connection.send({"HGETALL", page.at(i).text()});
      for (std::size_t i = 0; i < page.size(); ++i) {
        const auto hash = connection.receive();
        const std::string_view key = page.at(i).text().substr(prefix_.size());
        // A key of another type is a row that differs from any.
        const Sink::Texts texts = hash ? columns_of(*hash) : Sink::Texts();
        if (!hash && hash.error().code() != ErrorCode::kFailedPrecondition) return hash.error();
        MILLRACE_RETURN_IF_ERROR(visit(std::string(key), texts));
      }
      return true;
    });
  }

 private:
  Result<void> scan_keys(Connection& connection,
                         const std::function<Result<bool>(const Reply&)>& visit) const {
    const std::string pattern = as_pattern(prefix_) + "*";
    return scan(connection, {"SCAN", "", "MATCH", pattern, "COUNT", kKeysPerScan}, 1, visit);
  }

  /// Of another size where there is a field too many.
  Sink::Texts columns_of(const Reply& hash) const {
    Sink::Texts texts(shape_.columns.size());
    for (std::size_t i = 0; i + 1 < hash.size(); i += 2) {
      const std::string_view name = hash.at(i).text();
      const auto column = std::find_if(shape_.columns.begin(), shape_.columns.end(),
                                       [&](const Column& each) { return each.name == name; });
      if (column != shape_.columns.end())
        texts[static_cast<std::size_t>(column - shape_.columns.begin())] = hash.at(i + 1).text();
      else if (name != shape_.key.name)
        texts.emplace_back();
    }
    return texts;
  }

  const SinkShape shape_;
  const std::string prefix_;
};

/// All rows in one key.
class OneKey : public Layout {
 public:
  OneKey(std::string key, std::string type) : key_(std::move(key)), type_(std::move(type)) {}

  std::string describe() const override { return "the " + type_ + " " + printable(key_); }
  Keys keys() const override { return {key_, false}; }
  Result<std::string> find_any(Connection& connection) const override {
    MILLRACE_ASSIGN_OR_RETURN(const Reply there, connection.call({"EXISTS", key_}));
    return there.integer() == 0 ? std::string() : key_;
  }
  Result<bool> clear_some(Connection& connection, const Send& send) const override {
    MILLRACE_ASSIGN_OR_RETURN(const Reply there, connection.call({"EXISTS", key_}));
    if (there.integer() != 0) send({"UNLINK", key_});
    return there.integer() != 0;
  }
  void check_types(const Ask& ask) const override {
    ask({"TYPE", key_}, [this](const Reply& type) -> Result<void> {
      if (type.text() == "none" || type.text() == redis_type()) return {};
      return Error(ErrorCode::kFailedPrecondition,
                   describe() + " has become a " + printable(type.text()))
          .hint("Somebody else writes to that key. Remove it, or give the view another one.");
    });
  }

 protected:
  virtual std::string_view redis_type() const = 0;
  const std::string key_;

 private:
  const std::string type_;
};

class Set final : public OneKey {
 public:
  explicit Set(std::string key) : OneKey(std::move(key), "set") {}
  std::string shape() const override { return "set " + key_; }
  std::string_view redis_type() const override { return "set"; }

  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string member = *sink_text(row.key);
    send({row.columns ? "SADD" : "SREM", key_, member});
    return {};
  }
  Result<void> read(Connection& connection, const Visit& visit) const override {
    const Words command{"SSCAN", key_, "", "COUNT", kKeysPerScan};
    return scan(connection, command, 2, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i < page.size(); ++i)
        MILLRACE_RETURN_IF_ERROR(visit(std::string(page.at(i).text()), {}));
      return true;
    });
  }
};

class SortedSet final : public OneKey {
 public:
  SortedSet(SinkShape shape, std::string key)
      : OneKey(std::move(key), "sorted set"), shape_(std::move(shape)) {}
  std::string shape() const override { return "sorted set " + key_ + " " + score().name; }
  std::string_view redis_type() const override { return "zset"; }

  Result<void> write(const SinkRow& row, const Send& send) const override {
    const std::string member = *sink_text(row.key);
    if (!row.columns) return send({"ZREM", key_, member}), Result<void>{};
    const Value& value = row.columns->front();
    const auto text = sink_text(value);
    if (!text || !is_exact(value, *text)) [[unlikely]]
      return Error(ErrorCode::kFailedPrecondition,
                   describe() + ": the score of '" + printable(member) + "', " +
                       (text ? "'" + printable(*text) + "'" : "null") +
                       ", is no number that a double holds exactly")
          .hint("Leave such rows out with where(), or give the view a column that is one.");
    send({"ZADD", key_, *text, member});
    return {};
  }

  Result<void> read(Connection& connection, const Visit& visit) const override {
    const Words command{"ZSCAN", key_, "", "COUNT", kKeysPerScan};
    return scan(connection, command, 2, [&](const Reply& page) -> Result<bool> {
      for (std::size_t i = 0; i + 1 < page.size(); i += 2)
        MILLRACE_RETURN_IF_ERROR(
            visit(std::string(page.at(i).text()), {score_text(page.at(i + 1).text())}));
      return true;
    });
  }

 private:
  const Column& score() const { return shape_.columns.front(); }

  static bool is_exact(const Value& value, const std::string& text) {
    if (value.kind() == Value::Kind::kReal) return std::isfinite(value.real());
    const auto number = Decimal::parse(text);
    if (!number || !number->is_finite()) return false;
    const double score = number->real();
    return std::abs(score) < kWholeMax && same_in_sink(numeric(""), text, sink_text(Value(score)));
  }

  /// From what Redis prints.
  static std::string score_text(std::string_view text) {
    double score = 0;
    std::from_chars(text.data(), text.data() + text.size(), score);
    const bool is_whole = std::abs(score) < kWholeMax && std::trunc(score) == score;
    return is_whole ? std::to_string(static_cast<std::int64_t>(score)) : *sink_text(Value(score));
  }

  const SinkShape shape_;
};

}  // namespace

bool Keys::may_be_of(const Keys& other) const {
  if (!begin_so && !other.begin_so) return text == other.text;
  return (other.begin_so && text.starts_with(other.text)) ||
         (begin_so && other.text.starts_with(text));
}

std::string Keys::encoded() const { return (begin_so ? '*' : '=') + text; }

Keys Keys::decoded(std::string_view text) {
  return {std::string(text.substr(std::min<std::size_t>(1, text.size()))), text.starts_with('*')};
}

std::shared_ptr<const Layout> hashes(SinkShape shape, std::string prefix) {
  return std::make_shared<Hashes>(std::move(shape), std::move(prefix));
}
std::shared_ptr<const Layout> set(std::string key) { return std::make_shared<Set>(std::move(key)); }
std::shared_ptr<const Layout> sorted_set(SinkShape shape, std::string key) {
  return std::make_shared<SortedSet>(std::move(shape), std::move(key));
}

}  // namespace millrace::projections::redis
