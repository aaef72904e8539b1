#include <boost/program_options.hpp>
#include <optional>
#include <stop_token>

#include "base/clock.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "cli/command.h"
#include "cli/event_output.h"
#include "cli/log_report.h"
#include "cli/text.h"
#include "eventstore/inspect.h"
#include "eventstore/log_reader.h"
#include "schemas/json.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

constexpr CommandText kTail{
    "log tail", "print the events of a store, oldest first",
    "--store DIR [--from beginning|end|OFFSET|TIME] [--follow] [--limit N]\n"
    "                         [--category C] [--key K] [--json]",
    "Prints the events of a store in commit order, one a line: offset, operation, category, key\n"
    "and row; with --json one JSON object, as docs/events.md describes it. Reads beside a running\n"
    "capture without disturbing it, and shows whole transactions that are durable, nothing else.\n"
    "\n"
    "Operations: c insert, u update, d delete, r read by a snapshot, t truncate, m message, a "
    "appended.\n"
    "\n"
    "Examples:\n"
    "  millrace log tail --store ./store --limit 10\n"
    "  millrace log tail --store ./store --from end --follow --json | jq .after\n"
    "  millrace log tail --store ./store --from 2026-01-31T10:00:00+01:00\n"
    "  millrace log tail --store ./store --category public.orders --key 42"};

class LogTail final : public Command {
 public:
  LogTail() : Command(kTail) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("from", po::value(&from_)->value_name("WHERE")->default_value("beginning"),
         "beginning, end, the offset of the first event, or a time (RFC 3339): from the first "
         "transaction on that was committed then or later")                                   //
        ("follow", po::bool_switch(&follow_), "wait for more at the end, until interrupted")  //
        ("limit", po::value(&limit_text_)->value_name("N"), "end after so many events")       //
        ("category", po::value(&category_)->value_name("C"),
         "only events of this table, such as public.orders")  //
        ("key", po::value(&key_)->value_name("K"),
         "only events of this key: the key column's text; several are joined by ','")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_RETURN_IF_ERROR(check_from());
    if (limit_text_.empty()) return {};
    MILLRACE_ASSIGN_OR_RETURN(limit_, parse_number("limit", limit_text_));
    if (limit_ == 0) return Error(ErrorCode::kInvalidArgument, "--limit must be at least 1");
    return {};
  }

  Result<void> run() override {
    auto printed = print_events();
    auto flushed = output_.flush();  // also after an error: what came before it is good
    return printed ? std::move(flushed) : std::move(printed);
  }

 private:
  Result<void> print_events() {
    std::optional<StopSignals> signals;
    if (follow_) signals.emplace();
    const std::stop_token stop = signals ? signals->token() : std::stop_token();
    MILLRACE_ASSIGN_OR_RETURN(auto reader, open_reader());
    MILLRACE_ASSIGN_OR_RETURN(auto schemas, SchemaRegistry::open_read_only(store_));
    while (!stop.stop_requested() && limit_ > 0) {
      MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
      if (batch != nullptr) {
        MILLRACE_RETURN_IF_ERROR(print(*batch, *schemas));
        continue;
      }
      if (!follow_) break;
      MILLRACE_RETURN_IF_ERROR(output_.wait_for_more(*reader, stop));
    }
    return {};
  }

  Result<void> check_from() {
    if (from_ == "beginning" || from_ == "end") return {};
    if (const auto offset = parse_number("from", from_)) {
      first_.value = *offset;
      return {};
    }
    if (const auto time = parse_rfc3339(from_)) {
      from_time_ = *time;
      return {};
    }
    return Error(ErrorCode::kInvalidArgument,
                 "--from '" + from_ +
                     "' is neither 'beginning', 'end', an offset nor a time like "
                     "2026-01-31T10:00:00Z");
  }

  Result<std::unique_ptr<LogReader>> open_reader() {
    if (from_ == "end") {
      MILLRACE_ASSIGN_OR_RETURN(auto at_start, LogReader::open(store_));
      first_ = at_start->durable_end();
    }
    ReadOptions options{.from = first_, .from_time = from_time_};
    if (!category_.empty()) options.categories = {category_};
    return LogReader::open(store_, std::move(options));
  }

  Result<void> print(Batch& batch, SchemaRegistry& schemas) {
    while (const EventView* event = batch.next()) {
      if (event->offset < first_) continue;
      if (!category_.empty() && event->category != category_) continue;
      if (!key_.empty() && event->key != key_) continue;
      MILLRACE_RETURN_IF_ERROR(output_.print(*event, batch.info, schemas, json_));
      if (--limit_ == 0) return {};
    }
    return batch.status();
  }

  std::string store_, from_, category_, key_, limit_text_;
  bool follow_ = false, json_ = false;
  std::uint64_t limit_ = ~std::uint64_t{0};
  Offset first_;
  std::optional<UnixMicros> from_time_;
  EventOutput output_;
};

constexpr CommandText kStat{
    "log stat", "count the events of a store by category and operation", "--store DIR [--json]",
    "Reads the whole log once and tells, for each category, how many events of which operation it\n"
    "holds and how many bytes they take."};

class LogStat final : public Command {
 public:
  LogStat() : Command(kStat) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const StoreSummary summary, summarize_store(store_));
    MILLRACE_ASSIGN_OR_RETURN(const CategoryCounts counts, count_events(store_));
    Output output;
    output.text() = json_ ? stat_json(summary, counts) : stat_text(summary, counts);
    return output.flush();
  }

 private:
  std::string store_;
  bool json_ = false;
};

constexpr CommandText kVerify{
    "log verify", "check every byte of a store", "--store DIR [--json]",
    "Reads every byte that the log holds and checks it against its checksums, the chain over the\n"
    "batches, offsets and transaction bounds; then renders every event with its schema. Changes\n"
    "nothing and may run beside a capture. Prints each fault with file and position; ends with 3\n"
    "if there is one."};

class LogVerify final : public Command {
 public:
  LogVerify() : Command(kVerify) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    Progress progress("log verify", 0, ProgressUnit::kBytes);
    MILLRACE_ASSIGN_OR_RETURN(VerifyReport report,
                              verify_store(store_, [&](std::uint64_t done, std::uint64_t total) {
                                progress.update(done, total);
                              }));
    progress.finish();
    // The reader ends at the first damaged batch, so events are worth looking at only without one.
    if (report.faults.empty()) MILLRACE_RETURN_IF_ERROR(verify_events(store_, report));
    Output output;
    output.text() = json_ ? verify_json(report) : verify_text(report);
    MILLRACE_RETURN_IF_ERROR(output.flush());
    if (report.faults.empty()) return {};
    return Error(ErrorCode::kCorruption, grouped(report.faults.size()) +
                                             (report.faults.size() == 1 ? " fault" : " faults") +
                                             " found in " + store_)
        .hint(
            "Keep the store as it is and restore it from a copy; if there is none, see what "
            "`millrace log repair` says, or capture into a new one.");
  }

 private:
  std::string store_;
  bool json_ = false;
};

}  // namespace

void add_log_commands(Commands& commands) {
  commands.push_back(std::make_unique<LogTail>());
  commands.push_back(std::make_unique<LogStat>());
  commands.push_back(std::make_unique<LogVerify>());
}

}  // namespace millrace
