#include "projections/event.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "projections/relational/datum.h"

namespace millrace::projections::internal {
namespace {

using nlohmann::json;

constexpr std::string_view kColumns[] = {"key", "type", "version", "data", "time", "offset"};

/// What is nested deeper in a document is not told apart, or the paths would have no end.
constexpr std::size_t kDepthMax = 64;

void append_sized(std::string& out, std::string_view bytes) {
  append_varint(out, bytes.size());
  out += bytes;
}

std::string_view take_sized(ByteReader& in) { return in.bytes(in.varint()); }

}  // namespace

/// Each scalar of a document with its path as RFC 6901 has it; objects and lists without a value.
/// What the document holds twice is what it holds last.
class JsonMembers : public json::json_sax_t {
 public:
  /// Throws BadEvent.
  explicit JsonMembers(std::string_view text) {
    json::sax_parse(text.begin(), text.end(), static_cast<json::json_sax_t*>(this));
    if (!problem_.empty()) throw BadEvent(problem_);
  }

  /// Null if there is none.
  const Datum& find(std::string_view member) const {
    static const Datum none;
    const std::string path = member.starts_with('/') ? std::string(member) : "/" + escaped(member);
    const auto found = std::find_if(members_.rbegin(), members_.rend(),
                                    [&](const auto& one) { return one.path == path; });
    if (found == members_.rend()) return none;
    if (found->is_nested)
      throw std::invalid_argument("its member '" + printable(member) +
                                  "' is an object or a list: name what is in it, \"" +
                                  printable(path) + "/...\", or decode data()");
    return found->value;
  }

 private:
  struct Member {
    std::string path;
    Datum value;
    bool is_nested = false;
  };
  struct Level {
    std::size_t path_bytes;  ///< Of what it is in.
    std::optional<std::size_t> next_item;
  };

  static std::string escaped(std::string_view name) {
    std::string out;
    for (const char c : name) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    return out;
  }

  /// Before each value: in a list it is the next one's path.
  void enter() {
    if (levels_.empty() || levels_.size() > kDepthMax || !levels_.back().next_item) return;
    path_.resize(levels_.back().path_bytes);
    path_ += "/" + std::to_string((*levels_.back().next_item)++);
  }
  bool add(Datum value) {
    enter();
    if (levels_.size() <= kDepthMax) members_.push_back({path_, std::move(value)});
    return true;
  }
  bool begin(bool is_list) {
    enter();
    if (levels_.size() <= kDepthMax) members_.push_back({path_, {}, true});
    levels_.push_back({path_.size(), is_list ? std::optional<std::size_t>(0) : std::nullopt});
    return true;
  }
  bool end() {
    path_.resize(levels_.back().path_bytes);
    levels_.pop_back();
    return true;
  }

  bool null() override { return add({}); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > INT64_MAX) return add(std::to_string(value));
    return add(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t, const string_t& text) override { return add(text); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return begin(false); }
  bool key(string_t& name) override {
    if (levels_.size() > kDepthMax) return true;
    path_.resize(levels_.back().path_bytes);
    path_ += "/" + escaped(name);
    return true;
  }
  bool end_object() override { return end(); }
  bool start_array(std::size_t) override { return begin(true); }
  bool end_array() override { return end(); }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    problem_ = error.what();
    return false;
  }

  std::vector<Member> members_;
  std::vector<Level> levels_;
  std::string path_;
  std::string problem_;
};

EventFields::EventFields() = default;
EventFields::EventFields(EventFields&&) noexcept = default;
EventFields& EventFields::operator=(EventFields&&) noexcept = default;
EventFields::~EventFields() = default;

void EventFields::assign(const RawChange& change) {
  is_parsed_ = false;
  key_ = change.key;
  type_ = change.type;
  payload_ = change.after;
  metadata_ = change.metadata;
  version_ = change.version;
  offset_ = change.offset;
  time_ = change.transaction->commit_time;
  commit_lsn_ = {change.transaction->source.commit};
  is_erased_ = change.op == Op::kDelete;
}

// event = varint(version + 1, or 0) i64_be(time) u64_be(commit_lsn) sized(key) sized(type)
//         sized(metadata) payload
std::string encode_event(const RawChange& change) {
  std::string out;
  append_varint(out, change.version ? *change.version + 1 : 0);
  append_be<std::uint64_t>(out, static_cast<std::uint64_t>(change.transaction->commit_time.value));
  append_be<std::uint64_t>(out, change.transaction->source.commit);
  append_sized(out, change.key);
  append_sized(out, change.type);
  append_sized(out, change.metadata);
  out += change.after;
  return out;
}

std::string_view stream_of(std::string_view encoded) {
  ByteReader in(encoded);
  in.varint();
  in.bytes(16);
  return take_sized(in);
}

void EventFields::assign_copy(Offset offset, std::string_view bytes) {
  is_parsed_ = false;
  copy_.assign(bytes.begin(), bytes.end());
  ByteReader in({copy_.data(), copy_.size()});
  const std::uint64_t version = in.varint();
  version_ = version == 0 ? std::nullopt : std::optional(version - 1);
  time_ = {static_cast<std::int64_t>(in.u64_be())};
  commit_lsn_ = {in.u64_be()};
  key_ = take_sized(in);
  type_ = take_sized(in);
  metadata_ = take_sized(in);
  payload_ = in.bytes(in.remaining());
  if (in.failed()) throw BadEvent("an event in the view's state can't be read: rebuild the view");
  offset_ = offset;
  is_erased_ = false;
}

std::string EventFields::called() const {
  return "event " + std::to_string(offset_.value) + " '" + printable(type_) + "'";
}

std::string_view EventFields::data() const {
  if (is_erased_)
    throw std::logic_error(
        "the events of this stream were erased: ask event.is_erased() before its data");
  return payload_;
}

EventMetadata EventFields::metadata() const {
  auto metadata = decode_metadata(metadata_);
  if (!metadata) throw BadEvent("the metadata of " + called() + ": " + metadata.error().message());
  return *metadata;
}

Value EventFields::operator[](std::string_view member) const {
  if (!is_parsed_) {
    try {
      members_ = std::make_unique<JsonMembers>(data());
    } catch (const BadEvent& bad) {
      throw BadEvent("the payload of " + called() + " is no JSON: " + bad.what());
    }
    is_parsed_ = true;
  }
  std::string unused;  // of decimals, which these are not
  return members_->find(member).value(unused);
}

bool EventFields::has_column(std::string_view name) {
  return std::find(std::begin(kColumns), std::end(kColumns), name) != std::end(kColumns);
}

Value EventFields::column(std::string_view name) const {
  if (name == "key") return key_;
  if (name == "type") return type_;
  if (name == "version" && version_) return static_cast<std::int64_t>(*version_);
  if (name == "data") return data();
  if (name == "time") return time_.value;
  if (name == "offset") return static_cast<std::int64_t>(offset_.value);
  return {};
}

}  // namespace millrace::projections::internal
