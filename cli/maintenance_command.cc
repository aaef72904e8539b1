#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <optional>

#include "base/bytes.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "capture/partial_changes.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/maintenance.h"
#include "cli/quantity.h"
#include "cli/text.h"
#include "eventstore/consumers.h"
#include "eventstore/log_reader.h"
#include "eventstore/policy.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

Json removed_json(const std::vector<RemovedEvents>& removed) {
  Json list = Json::array();
  for (const RemovedEvents& one : removed)
    list.push_back({{"category", one.category},
                    {"reason", one.reason},
                    {"first", one.first.value},
                    {"last", one.last.value},
                    {"events", one.count}});
  return list;
}

constexpr CommandText kCompact{
    "log compact", "take out of a store what its policies let go",
    "--store DIR [--dry-run] [--min-dead PERCENT]\n"
    "                            [--max-rate BYTES] [--memory BYTES] [--json]",
    "Rewrites the segments of the log in which enough is superseded or has expired, as the\n"
    "policies say that `millrace log policy` sets; what stays keeps its offset. The newest\n"
    "segment is never rewritten. Readers go on undisturbed. It may be interrupted at any moment:\n"
    "each segment is then the old one or the new one, and the next run goes on. A capture that\n"
    "starts meanwhile need not wait: this goes on through it.\n"
    "\n"
    "Changes of a captured row that lack unchanged values get them from older ones before those\n"
    "go. A tombstone goes in the run after the one that removed what it deletes, when its grace "
    "is\n"
    "over."};

class LogCompact final : public Command {
 public:
  LogCompact() : Command(kCompact) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("dry-run", po::bool_switch(&options_.dry_run),
         "tell what would be done, change nothing")  //
        ("min-dead", po::value(&min_dead_)->value_name("PERCENT")->default_value("30"),
         "rewrite a segment if so much of it would go")  //
        ("max-rate", po::value(&max_rate_)->value_name("BYTES"),
         "read at most so much in a second: 50MiB")  //
        ("memory", po::value(&memory_)->value_name("BYTES")->default_value("64MiB"),
         "use about so much; with less the log is read more often")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> check() override {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t percent, parse_number("min-dead", min_dead_));
    if (percent > 100) return Error(ErrorCode::kInvalidArgument, "--min-dead is from 0 to 100");
    options_.dead_share_min = static_cast<double>(percent) / 100;
    MILLRACE_ASSIGN_OR_RETURN(options_.memory_bytes, parse_bytes("memory", memory_));
    if (options_.memory_bytes == 0)
      return Error(ErrorCode::kInvalidArgument, "--memory is above 0");
    if (max_rate_.empty()) return {};
    if (max_rate_ == "0") return Error(ErrorCode::kInvalidArgument, "--max-rate is above 0");
    MILLRACE_ASSIGN_OR_RETURN(options_.bytes_per_second, parse_bytes("max-rate", max_rate_));
    return {};
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const auto store, open_existing(store_));
    const StopSignals signals;
    options_.stop = signals.token();
    Progress progress("log compact", 0, ProgressUnit::kBytes);
    options_.progress = [&](const MaintenanceProgress& now) {
      progress.update(now.done_bytes, now.total_bytes);
    };
    MILLRACE_ASSIGN_OR_RETURN(const auto report, store->compact(options_));
    progress.finish();
    return print(json_ ? json(report) : text(report));
  }

 private:
  std::string text(const CompactionReport& report) const {
    std::string out;
    const std::size_t segments = report.rewritten.size();
    std::uint64_t before = 0, after = 0;
    TextTable table({"SEGMENT", "BYTES BEFORE", "AFTER", "EVENTS REMOVED", "COMPLETED"});
    for (const RewrittenSegment& one : report.rewritten) {
      before += one.bytes_before;
      after += one.bytes_after;
      table.add({one.file, grouped(one.bytes_before), grouped(one.bytes_after),
                 options_.dry_run ? "" : grouped(one.events_removed),
                 options_.dry_run ? "" : grouped(one.events_completed)});
    }
    if (segments != 0) table.append_to(out);
    out += grouped(segments) + " of " + grouped(report.segments) + " sealed segments " +
           (options_.dry_run ? "would be rewritten" : "rewritten");
    if (segments != 0)
      out += ": " + grouped(before) + " bytes before, " + grouped(after) + " after";
    out += "\n";
    for (const RemovedEvents& one : report.removed)
      out += grouped(one.count) + " events of " + printable(one.category) + " are gone for good (" +
             one.reason + "), offsets " + std::to_string(one.first.value) + " to " +
             std::to_string(one.last.value) + "\n";
    return out;
  }

  std::string json(const CompactionReport& report) const {
    Json segments = Json::array();
    for (const RewrittenSegment& one : report.rewritten)
      segments.push_back({{"file", one.file},
                          {"bytes_before", one.bytes_before},
                          {"bytes_after", one.bytes_after},
                          {"events_removed", one.events_removed},
                          {"events_completed", one.events_completed}});
    return to_line({{"dry_run", options_.dry_run},
                    {"sealed_segments", report.segments},
                    {"passes", report.passes},
                    {"bytes_read", report.bytes_read},
                    {"rewritten", std::move(segments)},
                    {"removed", removed_json(report.removed)}});
  }

  std::string store_, min_dead_, max_rate_, memory_;
  bool json_ = false;
  CompactionOptions options_;
};

constexpr CommandText kPolicy{
    "log policy", "show or set what may be taken out of a store",
    "--store DIR [--category C | --stream CATEGORY/KEY] [--set POLICY] [--json]",
    "Without --set prints the policies that differ from `keep`. With it appends the policy to the\n"
    "store, where it holds from then on; `millrace log compact` acts on it.\n"
    "\n"
    "Of a category:\n"
    "  keep                      everything stays (the default)\n"
    "  compact[,grace=24h]       the latest event of each key stays; tombstones go after their "
    "grace\n"
    "  expire,max-age=30d        what was appended longer ago goes\n"
    "  expire,max-bytes=10GiB    the newest so many bytes stay\n"
    "Of a stream, on top of its category's (the category is what is before the first '/'):\n"
    "  max-count=N, max-age=AGE, truncate-before=VERSION, joined by ','; or none\n"
    "\n"
    "Examples:\n"
    "  millrace log policy --store ./store --category public.orders --set compact\n"
    "  millrace log policy --store ./store --stream cart/9f3a --set max-count=100"};

class LogPolicy final : public Command {
 public:
  LogPolicy() : Command(kPolicy) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                       //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")   //
        ("category", po::value(&category_)->value_name("C"), "a table, such as public.orders")  //
        ("stream", po::value(&stream_)->value_name("S"), "one of its streams: category/key")    //
        ("set", po::value(&set_)->value_name("POLICY"), "see above")                            //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    if (!category_.empty() && !stream_.empty())
      return Error(ErrorCode::kInvalidArgument, "--category and --stream exclude each other");
    if (set_.empty()) return {};
    if (category_.empty() && stream_.empty())
      return Error(ErrorCode::kInvalidArgument, "--set needs a --category or a --stream");
    MILLRACE_ASSIGN_OR_RETURN(event_, stream_.empty() ? category_event() : stream_event());
    return {};
  }

  Result<void> run() override {
    if (set_.empty()) return list();
    MILLRACE_ASSIGN_OR_RETURN(const auto store, open_existing(store_));
    const NewEvent view = event_.view();
    const NewStreamEvent event{.type = view.type, .payload = view.payload, .metadata = {}};
    const StreamAppend part{
        .stream = {view.category, view.key}, .expected = {}, .events = {&event, 1}};
    MILLRACE_RETURN_IF_ERROR(store->append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
    return {};
  }

 private:
  /// "name=value" or "name" pieces of --set.
  using Pieces = std::vector<std::pair<std::string, std::string>>;
  Pieces pieces() const {
    Pieces pieces;
    for (std::size_t at = 0; at <= set_.size();) {
      const std::size_t end = std::min(set_.find(',', at), set_.size());
      const std::string piece = set_.substr(at, end - at);
      const std::size_t equals = std::min(piece.find('='), piece.size());
      pieces.emplace_back(piece.substr(0, equals),
                          equals < piece.size() ? piece.substr(equals + 1) : std::string());
      at = end + 1;
    }
    return pieces;
  }

  Error unknown(const std::string& piece) const {
    return Error(ErrorCode::kInvalidArgument, "--set does not know '" + printable(piece) + "'")
        .hint("`millrace log policy --help` tells what a policy is made of.");
  }

  Result<PolicyEvent> category_event() const {
    CategoryPolicy policy;
    constexpr std::array kRetentions{Retention::kKeep, Retention::kCompact, Retention::kExpire};
    bool first = true;
    for (const auto& [name, value] : pieces()) {
      if (std::exchange(first, false)) {
        const auto retention = std::find_if(kRetentions.begin(), kRetentions.end(),
                                            [&](Retention one) { return name == name_of(one); });
        if (retention == kRetentions.end() || !value.empty()) return unknown(name);
        policy.retention = *retention;
      } else if (name == "max-age") {
        MILLRACE_ASSIGN_OR_RETURN(policy.max_age, parse_age(name, value));
      } else if (name == "max-bytes") {
        MILLRACE_ASSIGN_OR_RETURN(policy.max_bytes, parse_bytes(name, value));
      } else if (name == "grace" && policy.retention == Retention::kCompact) {
        MILLRACE_ASSIGN_OR_RETURN(policy.tombstone_grace, parse_age(name, value));
      } else {
        return unknown(name);
      }
    }
    return policy_event(category_, policy);
  }

  Result<PolicyEvent> stream_event() const {
    const std::size_t slash = stream_.find('/');
    if (slash == std::string::npos || slash == 0)
      return Error(ErrorCode::kInvalidArgument, "--stream is a category, a '/' and a key");
    StreamPolicy policy;
    for (const auto& [name, value] : pieces()) {
      if (name == "max-count") {
        MILLRACE_ASSIGN_OR_RETURN(policy.max_count, parse_number(name, value));
      } else if (name == "max-age") {
        MILLRACE_ASSIGN_OR_RETURN(policy.max_age, parse_age(name, value));
      } else if (name == "truncate-before") {
        MILLRACE_ASSIGN_OR_RETURN(policy.truncate_before, parse_number(name, value));
      } else if (name != "none" || set_ != "none") {
        return unknown(name);
      }
    }
    return policy_event(stream_.substr(0, slash), stream_.substr(slash + 1), policy);
  }

  Result<void> list() const {
    MILLRACE_ASSIGN_OR_RETURN(const Policies policies, load_policies(store_));
    std::string out;
    for (const auto& [category, policy] : policies.categories())
      if (stream_.empty() && (category_.empty() || category_ == category))
        add({{"category", category}}, printable(category), to_json(policy), out);
    for (const auto& [stream, policy] : policies.streams()) {
      const auto& [category, key] = stream;
      const std::string name = category + "/" + key;
      if (category_.empty() ? stream_.empty() || stream_ == name : category_ == category)
        add({{"category", category}, {"key", key}}, printable(name), to_json(policy), out);
    }
    return print(out);
  }

  void add(Json json, const std::string& name, const std::string& policy, std::string& out) const {
    json["policy"] = Json::parse(policy);
    out += json_ ? to_line(json) : name + "  " + policy + "\n";
  }

  std::string store_, category_, stream_, set_;
  bool json_ = false;
  PolicyEvent event_;
};

constexpr CommandText kConsumers{
    "log consumers", "list, register or remove the consumers that a store knows by name",
    "--store DIR [--register NAME [--offset N]\n"
    "                              [--when-late hold|lose]] [--remove NAME] [--json]",
    "A consumer is a reader whose place the store keeps. While it has not read what is about to\n"
    "expire, one that holds keeps it from being removed; one that may lose is told OFFSET_GONE\n"
    "when it reads on, with what it has lost. Without --register and --remove prints them all."};

class LogConsumers final : public Command {
 public:
  LogConsumers() : Command(kConsumers) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("register", po::value(&register_)->value_name("NAME"), "make a consumer known")       //
        ("offset", po::value(&offset_text_)->value_name("N"),
         "the first event that it has not read (default: 0)")  //
        ("when-late", po::value(&when_late_)->value_name("WHAT"),
         "hold (the default): what it has not read stays; lose: it goes")  //
        ("remove", po::value(&remove_)->value_name("NAME"), "forget one")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    if (!register_.empty() && !remove_.empty())
      return Error(ErrorCode::kInvalidArgument, "--register and --remove exclude each other");
    if (register_.empty() && !(offset_text_.empty() && when_late_.empty()))
      return Error(ErrorCode::kInvalidArgument, "--offset and --when-late need --register");
    if (when_late_.empty()) when_late_ = "hold";
    if (offset_text_.empty()) offset_text_ = "0";
    if (when_late_ != "hold" && when_late_ != "lose")
      return Error(ErrorCode::kInvalidArgument, "--when-late is hold or lose");
    MILLRACE_ASSIGN_OR_RETURN(offset_.value, parse_number("offset", offset_text_));
    for (const std::string& name : {register_, remove_})
      if (!name.empty()) MILLRACE_RETURN_IF_ERROR(check_consumer_name(name));
    return {};
  }

  Result<void> run() override {
    if (register_.empty() && remove_.empty()) return list();
    MILLRACE_ASSIGN_OR_RETURN(const auto store, open_existing(store_));
    if (!remove_.empty()) return store->remove_consumer(remove_);
    return store->register_consumer(
        register_, offset_, when_late_ == "hold" ? ConsumerPolicy::kHold : ConsumerPolicy::kLose);
  }

 private:
  Result<void> list() const {
    MILLRACE_RETURN_IF_ERROR(LogReader::open(store_));
    MILLRACE_ASSIGN_OR_RETURN(const auto consumers, list_consumers(store_));
    std::string out;
    TextTable table({"CONSUMER", "OFFSET", "WHEN LATE", "UPDATED", "EVENTS LOST"});
    for (const Consumer& one : consumers) {
      std::uint64_t lost = 0;
      for (const RemovedEvents& removed : one.lost) lost += removed.count;
      if (json_)
        out += to_line({{"consumer", one.name},
                        {"offset", one.offset.value},
                        {"when_late", name_of(one.policy)},
                        {"updated", to_iso8601(one.updated)},
                        {"lost", removed_json(one.lost)}});
      else
        table.add({one.name, grouped(one.offset.value), std::string(name_of(one.policy)),
                   to_iso8601(one.updated), grouped(lost)});
    }
    if (!json_ && !consumers.empty()) table.append_to(out);
    return print(out);
  }

  std::string store_, register_, remove_, offset_text_, when_late_;
  bool json_ = false;
  Offset offset_;
};

}  // namespace

Result<std::unique_ptr<SharedStore>> open_existing(const std::string& directory) {
  MILLRACE_RETURN_IF_ERROR(LogReader::open(directory));
  SharedStoreOptions options;
  options.store.partials = partial_changes();
  return SharedStore::open(directory, options);
}

Result<void> print(const std::string& text) {
  Output output;
  output.text() = text;
  return output.flush();
}

void add_maintenance_commands(Commands& commands) {
  commands.push_back(std::make_unique<LogCompact>());
  commands.push_back(std::make_unique<LogPolicy>());
  commands.push_back(std::make_unique<LogConsumers>());
  add_copy_commands(commands);
}

}  // namespace millrace
