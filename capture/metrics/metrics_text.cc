#include "capture/metrics/metrics_text.h"

#include <prometheus/text_serializer.h>

#include <limits>

#include "base/bytes.h"

namespace millrace {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

class Families {
 public:
  void gauge(const char* name, const char* help, double value) {
    metric(name, help, MetricType::Gauge).gauge.value = value;
  }
  template <typename T>
  void gauge(const char* name, const char* help, const std::optional<T>& value) {
    if (value) gauge(name, help, static_cast<double>(*value));
  }
  void gauge(const char* name, const char* help, Lsn value) {
    gauge(name, help, static_cast<double>(value.value));
  }
  void counter(const char* name, const char* help, std::uint64_t value) {
    metric(name, help, MetricType::Counter).counter.value = static_cast<double>(value);
  }
  /// Further ones of the same name differ in their label.
  ClientMetric& metric(const char* name, const char* help, MetricType type) {
    if (list.empty() || list.back().name != name)
      list.push_back({.name = name, .help = help, .type = type, .metric = {}});
    return list.back().metric.emplace_back();
  }

  std::vector<MetricFamily> list;
};

void add_states(Families& families, const CaptureStatus& status) {
  const std::string now = status.state();
  bool told = false;
  const auto add = [&](const std::string& state) {
    ClientMetric& metric = families.metric(
        "millrace_capture_state", "1 for the state that the capture is in.", MetricType::Gauge);
    metric.label = {{"state", state}};
    metric.gauge.value = state == now ? 1 : 0;
    told = told || state == now;
  };
  for (int phase = 0; phase < static_cast<int>(CapturePhase::kHalted); ++phase)
    add(std::string(name_of(static_cast<CapturePhase>(phase))));
  if (!told) add(now);
}

void add_tables(Families& families, const CaptureStatus& status) {
  for (const auto& [table, changes] : status.tables) {
    ClientMetric& metric =
        families.metric("millrace_capture_table_changes_total",
                        "Changes appended of each table; of those beyond the first thousand "
                        "together as (other).",
                        MetricType::Counter);
    metric.label = {{"table", printable(table)}};
    metric.counter.value = static_cast<double>(changes);
  }
}

void add_latency(Families& families, const ProbeLatency& latency) {
  auto& histogram = families
                        .metric("millrace_capture_commit_to_durable_seconds",
                                "From the commit of a probe to its being durable in the store.",
                                MetricType::Histogram)
                        .histogram;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < latency.buckets.size(); ++i) {
    sum += latency.buckets[i];
    histogram.bucket.push_back({.cumulative_count = sum,
                                .upper_bound = i < ProbeLatency::kBounds.size()
                                                   ? ProbeLatency::kBounds[i]
                                                   : std::numeric_limits<double>::infinity()});
  }
  histogram.sample_count = latency.count;
  histogram.sample_sum = latency.seconds_sum;
}

}  // namespace

std::string metrics_text(const CaptureStatus& status) {
  Families families;
  add_states(families, status);
  families.gauge("millrace_capture_ready", "1 while it streams and is at most a minute behind.",
                 status.ready() ? 1.0 : 0.0);
  families.gauge("millrace_capture_start_time_seconds", "When the process began, Unix time.",
                 static_cast<double>(status.started.value) / 1e6);
  families.gauge("millrace_capture_lag_bytes",
                 "WAL between the end of the server's and what is durable in the store.",
                 static_cast<double>(status.lag_bytes));
  families.gauge("millrace_capture_lag_seconds",
                 "For how long something on the server has not been durable in the store.",
                 status.lag_seconds);
  families.gauge("millrace_capture_stalled_seconds",
                 "For how long nothing has become durable although something was appended.",
                 status.stalled_seconds);
  families.counter("millrace_capture_transactions_total", "Transactions appended.",
                   status.transactions);
  families.counter("millrace_capture_changes_total", "Changes appended.", status.changes);
  add_tables(families, status);
  families.counter("millrace_capture_reconnects_total", "Connections made again.",
                   status.reconnects);
  families.counter("millrace_capture_repeated_transactions_total",
                   "Transactions that the server sent again and that were dropped.",
                   status.repeated);
  families.gauge("millrace_capture_server_end_lsn", "End of the server's WAL when last looked at.",
                 status.server_end);
  families.gauge("millrace_capture_durable_lsn", "Up to where the source is durable in the store.",
                 status.durable);
  families.gauge("millrace_capture_confirmed_lsn", "What the server was told is durable.",
                 status.confirmed);
  families.gauge("millrace_store_end_offset", "Durable end of the log.",
                 static_cast<double>(status.store_end));
  families.gauge("millrace_slot_retained_wal_bytes", "WAL that the server keeps for the slot.",
                 status.retained_bytes);
  families.gauge("millrace_slot_safe_wal_bytes",
                 "WAL that may be written until the slot is in danger of being lost.",
                 status.safe_wal_bytes);
  add_latency(families, status.latency);
  return prometheus::TextSerializer().Serialize(families.list);
}

}  // namespace millrace
