#include "capture/tail.h"

#include <spdlog/spdlog.h>

#include <random>
#include <thread>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "base/wakeup.h"
#include "capture/pgoutput/framing.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/stream_applier.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/table_patterns.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

constexpr std::string_view kNamePrefix = "millrace_tail_";
constexpr milliseconds kStatusInterval{1000};
constexpr milliseconds kWait{200};
constexpr milliseconds kGoneMax{5000};

/// Hands events straight on: each is shown as it comes, and nothing is kept.
class CallbackOut final : public EventOut {
 public:
  using OnEvent = std::function<Result<void>(const EventRecord&, SchemaRegistry&)>;
  CallbackOut(const OnEvent& on_event, SchemaRegistry& schemas)
      : on_event_(on_event), schemas_(schemas) {}

  Result<void> begin(const TransactionInfo& info) override {
    info_ = info;
    return {};
  }
  Result<void> add(const NewEvent& event) override {
    return on_event_({.category = event.category,
                      .key = event.key,
                      .type = event.type,
                      .payload = event.payload,
                      .captured = true,
                      .commit_lsn = info_.source.commit,
                      .xid = info_.source_xid,
                      .commit_time = info_.commit_time},
                     schemas_);
  }
  Result<void> commit(std::uint64_t) override { return {}; }
  Result<void> rollback() override { return {}; }

 private:
  const OnEvent& on_event_;
  SchemaRegistry& schemas_;
  TransactionInfo info_;
};

/// A publication that exists as long as this object. One that a killed process left is known by
/// this: nobody is connected under its name any more, which each tail uses as its application_name.
class TemporaryPublication {
 public:
  static Result<std::unique_ptr<TemporaryPublication>> create(
      Catalog& catalog, const std::string& name, const std::vector<SourceTable>& tables,
      int server_version) {
    MILLRACE_RETURN_IF_ERROR(remove_leftovers(catalog));
    MILLRACE_RETURN_IF_ERROR(
        catalog.execute(create_publication_statement(name, tables, server_version)));
    return std::unique_ptr<TemporaryPublication>(new TemporaryPublication(catalog, name));
  }
  ~TemporaryPublication() {
    if (auto dropped = catalog_.execute("DROP PUBLICATION IF EXISTS " + quote_identifier(name_));
        !dropped)
      spdlog::warn("publication {} could not be dropped: {}", name_,
                   printable(dropped.error().message()));
  }

 private:
  TemporaryPublication(Catalog& catalog, std::string name)
      : catalog_(catalog), name_(std::move(name)) {}

  static Result<void> remove_leftovers(Catalog& catalog) {
    return catalog.execute(
        "DO $$ DECLARE leftover text; BEGIN"
        " FOR leftover IN SELECT pubname FROM pg_publication p WHERE pubname ~ "
        "'^millrace_tail_[0-9a-f]{16}$'"
        "   AND pg_has_role(p.pubowner, 'USAGE')"
        "   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = p.pubname)"
        " LOOP EXECUTE format('DROP PUBLICATION %I', leftover); END LOOP; END $$");
  }

  Catalog& catalog_;
  std::string name_;
};

std::string random_name() {
  std::random_device random;
  std::string bytes;
  append_le<std::uint32_t>(bytes, random());
  append_le<std::uint32_t>(bytes, random());
  return std::string(kNamePrefix) + to_hex(bytes);
}

/// The server drops the slot when it notices that we are gone: whoever looks after us shall find
/// nothing.
void wait_until_gone(Catalog& catalog, const std::string& slot) {
  const auto deadline = std::chrono::steady_clock::now() + kGoneMax;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto found = catalog.slot(slot);
    if (!found || !*found) return;
    std::this_thread::sleep_for(milliseconds(5));
  }
}

Result<void> stream(PostgresConnection& connection, StreamApplier& applier,
                    const std::stop_token& stop) {
  Wakeup never;
  Lsn seen;
  auto status_at = std::chrono::steady_clock::now();
  while (!stop.stop_requested()) {
    MILLRACE_ASSIGN_OR_RETURN(const auto bytes, connection.receive());
    bool reply = false;
    if (bytes) {
      MILLRACE_ASSIGN_OR_RETURN(const auto frame, pgoutput::decode_frame(*bytes));
      if (const auto* data = std::get_if<pgoutput::WalData>(&frame)) {
        MILLRACE_RETURN_IF_ERROR(applier.apply(data->payload, data->start));
      } else {
        const auto& keepalive = std::get<pgoutput::Keepalive>(frame);
        if (!applier.in_transaction()) seen = std::max(seen, keepalive.end);
        reply = keepalive.reply_requested;
      }
      seen = std::max(seen, applier.seen_end());
    } else {
      auto waited = connection.wait(kWait, never);
      if (!waited && !stop.stop_requested()) return std::move(waited).error();
    }
    const auto now = std::chrono::steady_clock::now();
    if (reply || now - status_at >= kStatusInterval) {
      status_at = now;
      MILLRACE_RETURN_IF_ERROR(connection.send(
          pgoutput::encode_status({.written = seen, .flushed = seen}, Clock::system().wall())));
    }
  }
  return {};
}

}  // namespace

Result<void> tail_source(
    const TailOptions& options, const std::stop_token& stop,
    const std::function<Result<void>(const EventRecord&, SchemaRegistry&)>& on_event,
    const std::function<void()>& on_ready) {
  const std::string name = random_name();
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress given, SourceAddress::parse(options.source));
  const SourceAddress address = given.with("application_name", name);
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(options.tables));
  Catalog catalog(address);
  MILLRACE_ASSIGN_OR_RETURN(
      const Preflight preflight,
      run_preflight(catalog,
                    {.patterns = patterns, .slot = name, .publication = name, .temporary = true}));
  preflight.log_findings();
  MILLRACE_RETURN_IF_ERROR(preflight.require_no_problem());
  if (preflight.tables.empty())
    return Error(ErrorCode::kFailedPrecondition, "no table is left to watch")
        .hint("The warnings above say what each one lacks.");

  MILLRACE_ASSIGN_OR_RETURN(
      const auto publication,
      TemporaryPublication::create(catalog, name, preflight.tables, preflight.server.version));
  // The slot lives on the connection that made it. Should the process be killed, it goes; the
  // publication is then removed by the next tail.
  MILLRACE_ASSIGN_OR_RETURN(auto connection, PostgresConnection::open(address, true, stop));
  MILLRACE_ASSIGN_OR_RETURN(const NewSlot slot,
                            create_temporary_slot(*connection, catalog, name, false));

  const auto schemas = SchemaRegistry::in_memory();
  CallbackOut out(on_event, *schemas);
  ChangeEncoder encoder(*schemas, catalog, out);
  StreamApplier applier(encoder, out, 1, Lsn{slot.consistent_point.value - 1});
  MILLRACE_RETURN_IF_ERROR(start_replication(*connection, name, slot.consistent_point, name));
  if (on_ready) on_ready();
  auto outcome = stream(*connection, applier, stop);
  connection->end_copy_both();
  connection.reset();
  wait_until_gone(catalog, name);
  if (!outcome && outcome.error().code() == ErrorCode::kCancelled) return {};
  return outcome;
}

}  // namespace millrace
