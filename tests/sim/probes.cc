#include "tests/sim/probes.h"

namespace millrace::sim {
namespace {

ProbeCounters* counters_of_process = nullptr;

constexpr std::array<std::string_view, kProbes> kNames{
    "segment rolled",
    "segment rolled in the middle of a transaction",
    "transaction spilled before its commit",
    "appender waited for room",
    "transaction rolled back in memory",
    "transaction taken back from the disk",
    "transaction of several segments taken back from the disk",
    "source epoch changed",
    "operation of the file system failed",
    "sync failed",
    "sync failed and old content came back",
    "sync failed late",
    "sync lied",
    "a sync that lied cost acknowledged events",
    "disk full",
    "disk full while opening",
    "read failed",
    "writer killed",
    "power lost",
    "died in the middle of an operation",
    "died in recovery",
    "died in recovery twice",
    "died while the store was made",
    "died while closing",
    "torn tail cut off",
    "unfinished transaction dropped",
    "unfinished transaction of several segments dropped",
    "what was never acknowledged survived",
    "what was never acknowledged was lost",
    "a crash that cost nothing",
    "garbage in a torn sector refused",
    "stale bytes refused",
    "loss after a lie refused",
    "reader found the end without a writer",
    "reader outlived the writer",
    "reader followed",
    "filtered reader passed over batches",
    "second writer refused",
    "damage refused by open",
    "damage met by a reader, prefix and error given",
    "damage without effect",
    "missing file noticed",
    "hot copy opened",
    "store opened with other options",
    "sealed segments indexed",
    "indexing failed",
    "damaged index not believed",
    "appended to streams",
    "append to streams conflicted",
    "append to streams repeated",
    "mode os cost events in a power loss",
    "compacted",
    "compacted in several passes",
    "segment rewritten",
    "partial event completed",
    "events expired",
    "tombstones removed after their grace",
    "died in compaction",
    "disk full in compaction",
    "compaction failed",
    "reader met a hole",
    "reader told of a loss",
    "entity erased",
    "erasing failed",
    "consumer advanced",
    "consumer told of a loss",
    "snapshot taken",
    "snapshot taken with links",
    "snapshot failed",
    "snapshot restored",
    "unfinished snapshot refused",
    "damaged store repaired",
    "repair not needed",
    "repair refused",
    "repair interrupted",
    "scrub ended a pass over the store",
    "scrub found rot",
    "scrub found rot after a restart",
    "transaction with versions committed",
    "transaction with versions spilled before its commit",
    "versions of a transaction taken back",
    "version not given, since the log could not be read",
    "appended to streams while a transaction was open",
};

}  // namespace

std::string_view name_of(Probe probe) { return kNames[static_cast<std::size_t>(probe)]; }

void count_in(ProbeCounters* counters) { counters_of_process = counters; }

void hit(Probe probe) {
  if (counters_of_process != nullptr)
    (*counters_of_process)[static_cast<std::size_t>(probe)].fetch_add(1, std::memory_order_relaxed);
}

}  // namespace millrace::sim
