#include <boost/program_options.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "capture/partial_changes.h"
#include "cli/command.h"
#include "cli/event_output.h"
#include "cli/json.h"
#include "cli/text.h"
#include "eventstore/event_metadata.h"
#include "eventstore/log_reader.h"
#include "eventstore/stream_reader.h"
#include "schemas/json.h"
#include "service/shared_store.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

constexpr std::uint64_t kDataBytesMax = kAppendBytesMax;

/// "cart/9f3a" apart at the first '/'; views into `text`.
Result<StreamName> parse_stream(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == text.npos || slash == 0)
    return Error(ErrorCode::kInvalidArgument, "--stream '" + printable(text) +
                                                  "' is no stream: category/key is one, such as "
                                                  "cart/9f3a");
  return StreamName{text.substr(0, slash), text.substr(slash + 1)};
}

constexpr CommandText kAppend{
    "stream append", "append an event of your own to a stream",
    "--store DIR --stream CATEGORY/KEY --type TYPE\n"
    "                              (--data JSON | --data-file FILE)\n"
    "                              [--expected-version any|none|N] [--id KEY] [--json]",
    "Appends one event to a stream and ends when it is durable. The store is made if it is "
    "missing.\n"
    "Works the same way whether a capture is running on the store or not: whoever holds it does "
    "it.\n"
    "\n"
    "With --expected-version the stream must be as you saw it: 'none' is one without events, a\n"
    "number the version of its last event. Another one is a conflict: nothing is appended, exit\n"
    "code 1. With --id an append can be repeated when its outcome is not known: the second one\n"
    "gives the first one's result.\n"
    "\n"
    "A stream of a captured table, such as public.orders/42, is refused with exit code 1: an\n"
    "event there would look like a change of the table.\n"
    "\n"
    "Examples:\n"
    "  millrace stream append --store ./store --stream cart/9f3a --type ItemAdded \\\n"
    "    --data '{\"sku\":\"A-1\"}' --expected-version none\n"
    "  millrace stream append --store ./store --stream cart/9f3a --type Note --data-file note.txt"};

class StreamAppendCommand final : public Command {
 public:
  StreamAppendCommand() : Command(kAppend) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("stream", po::value(&stream_text_)->value_name("S")->required(),
         "category/key; the category ends at the first '/'")                             //
        ("type", po::value(&type_)->value_name("TYPE")->required(), "the event's type")  //
        ("data", po::value(&data_)->value_name("JSON"), "the event's payload, as JSON")  //
        ("data-file", po::value(&data_file_)->value_name("FILE"),
         "the event's payload, any bytes; '-' for standard input")  //
        ("expected-version", po::value(&expected_text_)->value_name("V")->default_value("any"),
         "any, none, or the version of the stream's last event")                                 //
        ("id", po::value(&id_)->value_name("KEY"), "idempotency key: names this very append")    //
        ("event-id", po::value(&event_id_)->value_name("ID"), "metadata: the event's identity")  //
        ("correlation-id", po::value(&correlation_id_)->value_name("ID"),
         "metadata: what it belongs to")  //
        ("causation-id", po::value(&causation_id_)->value_name("ID"),
         "metadata: what led to it")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> check() override {
    MILLRACE_ASSIGN_OR_RETURN(stream_, parse_stream(stream_text_));
    if (stream_.category.front() == '$')
      return Error(ErrorCode::kInvalidArgument,
                   "categories that begin with '$' are millrace's own");
    if (data_.empty() == data_file_.empty())
      return Error(ErrorCode::kInvalidArgument, "give one of --data and --data-file");
    if (!data_.empty() && !nlohmann::json::accept(data_))
      return Error(ErrorCode::kInvalidArgument, "--data is not JSON")
          .hint("Quote strings: --data '\"text\"'. Other payloads come with --data-file.");
    if (expected_text_ == "none") {
      expected_ = ExpectedVersion::none();
    } else if (expected_text_ != "any") {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t version,
                                parse_number("expected-version", expected_text_));
      expected_ = ExpectedVersion::exact(version);
    }
    return {};
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const std::string payload, read_payload());
    const std::string metadata = encode_metadata(
        {.event_id = event_id_, .correlation_id = correlation_id_, .causation_id = causation_id_});
    const NewStreamEvent event{.type = type_, .payload = payload, .metadata = metadata};
    const StreamAppend part{.stream = stream_, .expected = expected_, .events = {&event, 1}};
    SharedStoreOptions options;
    options.store.partials = partial_changes();
    MILLRACE_ASSIGN_OR_RETURN(const auto store, SharedStore::open(store_, options));
    MILLRACE_ASSIGN_OR_RETURN(
        const AppendResult result,
        store->append_durably({.streams = {&part, 1}, .idempotency_key = id_}));
    Output output;
    output.text() = json_ ? json_of(result) : text_of(result);
    return output.flush();
  }

 private:
  Result<std::string> read_payload() const {
    if (!data_.empty()) return data_;
    return read_file(FileSystem::real(), data_file_ == "-" ? "/dev/stdin" : data_file_,
                     kDataBytesMax);
  }

  std::string text_of(const AppendResult& result) const {
    return printable(stream_text_) + "  version " + std::to_string(result.next_versions[0] - 1) +
           "  offset " + std::to_string(result.end.value - 1) +
           (result.repeated ? "  (appended before)\n" : "\n");
  }
  std::string json_of(const AppendResult& result) const {
    return to_line({{"stream", stream_text_},
                    {"version", result.next_versions[0] - 1},
                    {"offset", result.end.value - 1},
                    {"repeated", result.repeated}});
  }

  std::string store_, stream_text_, type_, expected_text_, id_;
  std::string event_id_, correlation_id_, causation_id_;
  std::string data_, data_file_;
  bool json_ = false;
  StreamName stream_;
  ExpectedVersion expected_;
};

constexpr CommandText kRead{
    "stream read", "print the events of one stream",
    "--store DIR --stream CATEGORY/KEY [--from N] [--backward] [--limit N]\n"
    "                            [--follow] [--json]",
    "Prints the events of one stream, one a line as `log tail` does, found through the store's\n"
    "indexes. A captured row is a stream too: its key is the key column's text, and its events "
    "have\n"
    "no versions.\n"
    "\n"
    "Examples:\n"
    "  millrace stream read --store ./store --stream cart/9f3a --json\n"
    "  millrace stream read --store ./store --stream cart/9f3a --backward --limit 1\n"
    "  millrace stream read --store ./store --stream public.orders/42"};

class StreamRead final : public Command {
 public:
  StreamRead() : Command(kRead) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("stream", po::value(&stream_text_)->value_name("S")->required(),
         "category/key; the category ends at the first '/'")  //
        ("from", po::value(&from_text_)->value_name("N"),
         "begin with this version (with --backward: the highest one wanted)")                 //
        ("backward", po::bool_switch(&backward_), "newest first")                             //
        ("limit", po::value(&limit_text_)->value_name("N"), "end after so many events")       //
        ("follow", po::bool_switch(&follow_), "wait for more at the end, until interrupted")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    MILLRACE_ASSIGN_OR_RETURN(stream_, parse_stream(stream_text_));
    if (!from_text_.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(range_.from, parse_number("from", from_text_));
    }
    if (!limit_text_.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(range_.limit, parse_number("limit", limit_text_));
      if (range_.limit == 0)
        return Error(ErrorCode::kInvalidArgument, "--limit must be at least 1");
    }
    if (backward_ && follow_)
      return Error(ErrorCode::kInvalidArgument, "--backward and --follow exclude each other");
    if (backward_) range_.direction = ReadDirection::kBackward;
    return {};
  }

  Result<void> run() override {
    auto printed = print_events();
    auto flushed = output_.flush();
    return printed ? std::move(flushed) : std::move(printed);
  }

 private:
  Result<void> print_events() {
    std::optional<StopSignals> signals;
    if (follow_) signals.emplace();
    const std::stop_token stop = signals ? signals->token() : std::stop_token();
    MILLRACE_ASSIGN_OR_RETURN(const auto reader, StreamReader::open(store_));
    MILLRACE_ASSIGN_OR_RETURN(const auto schemas, SchemaRegistry::open_read_only(store_));
    Offset next;  // what is printed already lies below
    for (;;) {
      Result<void> printed;
      const auto print = [&](const EventView& event, const TransactionInfo& transaction) {
        if (event.offset < next && !backward_) return true;
        next = {event.offset.value + 1};
        printed = output_.print(event, transaction, *schemas, json_);
        return printed.has_value() && --range_.limit > 0;
      };
      MILLRACE_RETURN_IF_ERROR(
          reader->read(stream_, {.from = range_.from, .direction = range_.direction}, print));
      MILLRACE_RETURN_IF_ERROR(printed);
      if (!follow_ || range_.limit == 0) return {};
      MILLRACE_ASSIGN_OR_RETURN(const bool more, output_.wait_for_more(*reader, stop));
      if (!more) return {};
    }
  }

  std::string store_, stream_text_, from_text_, limit_text_;
  bool backward_ = false, follow_ = false, json_ = false;
  StreamName stream_;
  StreamRange range_;
  EventOutput output_;
};

constexpr CommandText kList{
    "stream list", "list the streams of a category",
    "--store DIR --category C [--limit N] [--json]",
    "Lists the streams of a category in the order of their first events, with the number of their\n"
    "events, the version of the last one and its offset. Reads all events of the category.\n"
    "\n"
    "Example:\n"
    "  millrace stream list --store ./store --category cart"};

class StreamList final : public Command {
 public:
  StreamList() : Command(kList) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("category", po::value(&category_)->value_name("C")->required(), "whose streams")      //
        ("limit", po::value(&limit_text_)->value_name("N"), "the first so many streams only")  //
        ("json", po::bool_switch(&json_), "one JSON object per line");
  }

  Result<void> check() override {
    if (limit_text_.empty()) return {};
    MILLRACE_ASSIGN_OR_RETURN(limit_, parse_number("limit", limit_text_));
    if (limit_ == 0) return Error(ErrorCode::kInvalidArgument, "--limit must be at least 1");
    return {};
  }

  Result<void> run() override {
    MILLRACE_RETURN_IF_ERROR(collect());
    Output output;
    for (const auto* stream : order_) {
      const auto& [key, info] = *stream;
      output.text() += json_ ? json_of(key, info) : text_of(key, info);
      output.text().pop_back();  // end_of_line() puts it there again
      MILLRACE_RETURN_IF_ERROR(output.end_of_line());
    }
    return output.flush();
  }

 private:
  struct Info {
    std::uint64_t events = 0;
    std::optional<std::uint64_t> version;
    Offset last;
  };
  using Streams = std::map<std::string, Info, std::less<>>;

  Result<void> collect() {
    ReadOptions options;
    options.categories = {category_};
    MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(store_, std::move(options)));
    const std::uint64_t end = reader->durable_end().value;
    Progress progress("stream list", end, ProgressUnit::kEvents);
    while (reader->position().value < end) {
      MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
      if (batch == nullptr) break;
      while (const EventView* event = batch->next())
        if (event->category == category_) take(*event);
      MILLRACE_RETURN_IF_ERROR(batch->status());
      progress.update(reader->position().value);
    }
    return {};
  }

  void take(const EventView& event) {
    auto stream = streams_.find(event.key);
    if (stream == streams_.end()) {
      if (streams_.size() >= limit_) return;
      stream = streams_.emplace(event.key, Info()).first;
      order_.push_back(&*stream);
    }
    Info& info = stream->second;
    ++info.events;
    if (event.version) info.version = event.version;
    info.last = event.offset;
  }

  std::string text_of(const std::string& key, const Info& info) const {
    return printable(category_ + "/" + key) + "  " + counted(info.events, "event") +
           (info.version ? "  version " + std::to_string(*info.version) : "") + "  offset " +
           std::to_string(info.last.value) + "\n";
  }
  std::string json_of(const std::string& key, const Info& info) const {
    Json json{{"stream", printable(category_ + "/" + key, kKeyBytesMax)}, {"events", info.events}};
    json["version"] = info.version ? Json(*info.version) : Json(nullptr);
    json["last_offset"] = info.last.value;
    return to_line(json);
  }

  std::string store_, category_, limit_text_;
  bool json_ = false;
  std::uint64_t limit_ = ~std::uint64_t{0};
  Streams streams_;
  std::vector<const Streams::value_type*> order_;
};

}  // namespace

void add_stream_commands(Commands& commands) {
  commands.push_back(std::make_unique<StreamAppendCommand>());
  commands.push_back(std::make_unique<StreamRead>());
  commands.push_back(std::make_unique<StreamList>());
}

}  // namespace millrace
