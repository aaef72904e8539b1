#include <time.h>

#include "base/bytes.h"
#include "bench/bench.h"
#include "capture/pgoutput/decoder.h"
#include "capture/pipeline/change_encoder.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace::bench {
namespace {

namespace bytes = test::bytes;

constexpr std::uint32_t kTable = 16'400;

/// Where an encoder's events end: nowhere, but counted.
class Counted final : public EventOut {
 public:
  Result<void> begin(const TransactionInfo&) override { return {}; }
  Result<void> add(const NewEvent& event) override {
    ++events;
    bytes += event.payload.size() + event.key.size();
    return {};
  }
  Result<void> commit(std::uint64_t) override { return {}; }
  Result<void> rollback() override { return {}; }

  std::uint64_t events = 0, bytes = 0;
};

/// The types of W1: (id bigint, customer int, status text, total numeric(12,2), note text,
/// created_at timestamptz, paid bool).
class Types final : public CatalogLookup {
 public:
  Result<ColumnType> type(std::uint32_t oid, std::int32_t) override {
    switch (oid) {
      case 16: return ColumnType{ValueKind::kBool, false, "boolean", oid};
      case 20: return ColumnType{ValueKind::kInt64, false, "bigint", oid};
      case 23: return ColumnType{ValueKind::kInt32, false, "integer", oid};
      case 1184: return ColumnType{ValueKind::kTimestampTz, false, "timestamptz", oid};
      case 1700: return ColumnType{ValueKind::kNumeric, false, "numeric(12,2)", oid};
      default: return ColumnType{ValueKind::kText, false, "text", oid};
    }
  }
  Result<std::optional<std::vector<std::string>>> primary_key(std::uint32_t) override {
    return std::optional(std::vector<std::string>{"id"});
  }
};

std::string relation() {
  return bytes::relation(kTable, "public", "orders", 'd',
                         {{"id", 20, true},
                          {"customer", 23},
                          {"status", 25},
                          {"total", 1700},
                          {"note", 25},
                          {"created_at", 1184},
                          {"paid", 16}});
}

std::string be(std::uint64_t value, int size) {
  std::string out;
  append_be<std::uint64_t>(out, value);
  return out.substr(static_cast<std::size_t>(8 - size));
}

struct Rows {
  std::vector<std::string> text, binary;
};

Rows make_rows(int count) {
  Rows rows;
  for (int i = 0; i < count; ++i) {
    const unsigned id = 1'000'000u + static_cast<unsigned>(i) * 7919u % 9'000'000u;
    const unsigned customer = static_cast<unsigned>(i) * 31u % 100'000u;
    const unsigned euros = id % 10'000u, cents = id % 100u;
    const unsigned second = id % 60u, micros = id % 1'000'000u;
    const std::string status = i % 3 == 0 ? "shipped" : "new",
                      note = "note of order " + std::to_string(id);
    std::string amount = std::to_string(euros) + ".", at = "2026-01-01 12:34:";
    append_padded(cents, 2, amount);
    append_padded(second, 2, at);
    at += '.';
    append_padded(micros, 6, at);
    while (at.back() == '0') at.pop_back();
    if (at.back() == '.') at.pop_back();
    rows.text.push_back(bytes::insert(
        kTable, {bytes::text(std::to_string(id)), bytes::text(std::to_string(customer)),
                 bytes::text(status), bytes::text(amount), bytes::text(note),
                 bytes::text(at + "+00"), bytes::text(i % 2 == 0 ? "t" : "f")}));
    // 9497 days from 2000-01-01 to 2026-01-01.
    const std::uint64_t stamp =
        ((9497ull * 24 + 12) * 3600 + 34 * 60 + second) * 1'000'000 + micros;
    std::string number;  // groups of four digits; none that is zero stands at an end
    std::vector<unsigned> groups = {euros, cents * 100};
    while (!groups.empty() && groups.back() == 0) groups.pop_back();
    int weight = 0;
    if (!groups.empty() && groups.front() == 0) groups.erase(groups.begin()), weight = -1;
    number =
        be(groups.size(), 2) +
        be(groups.empty() ? 0 : static_cast<std::uint64_t>(static_cast<std::int64_t>(weight)), 2) +
        be(0, 2) + be(2, 2);
    for (const unsigned group : groups) number += be(group, 2);
    rows.binary.push_back(bytes::insert(
        kTable, {bytes::binary(be(id, 8)), bytes::binary(be(customer, 4)), bytes::binary(status),
                 bytes::binary(number), bytes::binary(note), bytes::binary(be(stamp, 8)),
                 bytes::binary(std::string(1, i % 2 == 0 ? '\1' : '\0'))}));
  }
  return rows;
}

/// Of this thread: what others do on the machine is not measured.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// CPU seconds for one change, and the bytes of all events, which must be the same for both forms.
double encode(const std::vector<std::string>& messages, int repeats, std::uint64_t& event_bytes) {
  const auto registry = SchemaRegistry::in_memory();
  Types types;
  Counted out;
  ChangeEncoder encoder(*registry, types, out);
  pgoutput::Decoder decoder;
  const std::string shape = relation();
  must(encoder.relation(*std::get<const pgoutput::Relation*>(must(decoder.decode(shape))), Lsn{1}));
  const double start = cpu_seconds();
  for (int repeat = 0; repeat < repeats; ++repeat) {
    stop_if_asked();
    for (const std::string& message : messages) {
      const auto decoded = decoder.decode(message);
      if (!decoded) give_up(decoded.error().to_string());
      const auto done = encoder.insert(*std::get<const pgoutput::Insert*>(*decoded), Lsn{77});
      if (!done) give_up(done.error().to_string());
    }
  }
  event_bytes = out.bytes;
  return (cpu_seconds() - start) / static_cast<double>(out.events);
}

}  // namespace

std::vector<Figure> run_encode(const Settings& settings) {
  Figure figure{.name = "encode W1 row, binary", .unit = "ns", .limit = "the same row as text"};
  figure.at_most = true;
  const Rows rows = make_rows(settings.tiny ? 100 : 10'000);
  for (int round = 0; round < settings.rounds; ++round) {
    std::uint64_t binary_bytes = 0, text_bytes = 0;
    figure.ours.push_back(1e9 * encode(rows.binary, settings.tiny ? 2 : 100, binary_bytes));
    figure.limits.push_back(1e9 * encode(rows.text, settings.tiny ? 2 : 100, text_bytes));
    if (binary_bytes != text_bytes) give_up("text and binary make other events");
  }
  return {figure};
}

}  // namespace millrace::bench
