// The files beside the log, policies, and what a rewritten segment says is gone: whatever their
// bytes are, they are read to something that is written and read again as the same, or refused. The
// first byte says which one it is, and whether its checksum is made right.

#include <spdlog/spdlog.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"
#include "eventstore/consumers.h"
#include "eventstore/inspect.h"
#include "eventstore/log/checked_json.h"
#include "eventstore/log/removal.h"
#include "eventstore/policy.h"
#include "eventstore/scrub_report.h"
#include "eventstore/store_snapshot.h"
#include "eventstore/stream_snapshots.h"
#include "tests/support/fault_fs.h"

namespace {

using namespace millrace;

const Path kStore = "/store";
[[maybe_unused]] const bool is_quiet = (spdlog::set_level(spdlog::level::off), true);

struct Disk {
  Disk() { MILLRACE_CHECK(files.make_directory(kStore).has_value()); }
  test::FaultFs files;
};

std::string sealed_json(std::string_view bytes, bool mend) {
  std::string file(bytes);
  return mend && file.ends_with("\n}") ? log::with_checksum(std::move(file)) : file;
}

void try_consumer(std::string_view bytes, bool mend) {
  Disk disk;
  MILLRACE_CHECK(disk.files.make_directory(kStore / "consumers").has_value());
  disk.files.set_content(kStore / "consumers/c", sealed_json(bytes, mend));
  const auto found = find_consumer(kStore, "c", disk.files);
  if (!found) return;
  MILLRACE_CHECK(ConsumerFiles(disk.files, kStore).write(*found).has_value());
  const auto back = find_consumer(kStore, "c", disk.files);
  MILLRACE_CHECK(back && back->offset == found->offset && back->policy == found->policy);
  MILLRACE_CHECK(back->updated == found->updated);
}

void try_scrub_report(std::string_view bytes, bool mend) {
  Disk disk;
  disk.files.set_content(kStore / "scrub.json", sealed_json(bytes, mend));
  const auto found = read_scrub_report(kStore, disk.files);
  MILLRACE_CHECK(found.has_value());
  if (!*found) return;
  MILLRACE_CHECK(write_scrub_report(kStore, **found, disk.files).has_value());
  const auto back = read_scrub_report(kStore, disk.files);
  MILLRACE_CHECK(back && *back && (*back)->next == (*found)->next);
  MILLRACE_CHECK((*back)->faults.size() == (*found)->faults.size());
}

void try_descriptions(std::string_view bytes) {
  Disk disk;
  disk.files.set_content(kStore / "snapshot.json", std::string(bytes));
  disk.files.set_content(kStore / "store.json", std::string(bytes));
  static_cast<void>(read_store_copy(kStore, disk.files).has_value());
  static_cast<void>(read_store_id(kStore, disk.files).has_value());
}

/// KEY NUL PAYLOAD
void try_policy(std::string_view bytes) {
  const std::size_t end = bytes.find('\0');
  EventView event{};
  event.category = kPolicyCategory;
  event.key = bytes.substr(0, end);
  if (end != std::string_view::npos) event.payload = bytes.substr(end + 1);
  Policies policies;
  policies.apply(event);
  // What was read is what could have been written.
  Policies same;
  const auto apply_again = [&](const Result<PolicyEvent>& again) {
    MILLRACE_CHECK(again.has_value());
    EventView written{};
    written.category = kPolicyCategory;
    written.key = again->key;
    written.payload = again->payload;
    same.apply(written);
  };
  for (const auto& [category, policy] : policies.categories()) {
    apply_again(policy_event(category, policy));
    MILLRACE_CHECK(to_json(same.of(category)) == to_json(policy));
  }
  for (const auto& [stream, policy] : policies.streams()) {
    apply_again(policy_event(stream.first, stream.second, policy));
    const StreamPolicy* const back = same.of(stream.first, stream.second);
    MILLRACE_CHECK(back != nullptr && *back == policy);
  }
}

void try_stream_snapshot(std::string_view bytes, bool mend) {
  Disk disk;
  const StreamName stream{"c", "k"};
  const StreamSnapshots snapshots(kStore, StoreId{}, disk.files);
  MILLRACE_CHECK(snapshots.save(stream, {}).has_value());
  std::string file(bytes);
  if (mend) append_le<std::uint64_t>(file, checksum(bytes));
  const auto names = disk.files.names(kStore / "snapshots");
  disk.files.set_content(kStore / "snapshots" / names.at(0), file);
  constexpr std::size_t kFingerprintAt = 40;
  if (file.size() < kFingerprintAt + 8) return;
  const auto fingerprint = load_le<std::uint64_t>(file.data() + kFingerprintAt);
  const auto found = snapshots.load(stream, fingerprint);
  MILLRACE_CHECK(found.has_value());
  if (!*found) return;
  MILLRACE_CHECK(snapshots.save(stream, **found).has_value());
  MILLRACE_CHECK(disk.files.content(kStore / "snapshots" / names.at(0)) == file);
}

void try_removals(std::string_view bytes) {
  const auto removals = log::decode_removals(bytes);
  if (!removals) return;
  const auto back = log::decode_removals(log::encode_removals(*removals));
  MILLRACE_CHECK(back && *back == *removals);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool mend = (data[0] & 1) != 0;
  switch (data[0] >> 1 & 7) {
    case 0: try_consumer(rest, mend); break;
    case 1: try_scrub_report(rest, mend); break;
    case 2: try_descriptions(rest); break;
    case 3: try_policy(rest); break;
    case 4: try_stream_snapshot(rest, mend); break;
    default: try_removals(rest); break;
  }
  return 0;
}
