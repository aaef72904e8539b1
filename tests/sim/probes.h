#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace millrace::sim {

/// The rare paths. A test that never takes one of them proves nothing about it, so a run of many
/// seeds fails if one of these was never taken.
enum class Probe : std::uint8_t {
  kSegmentRolled,
  kRolledInTransaction,
  kSpilled,
  kAppenderBlocked,
  kRolledBack,
  kRewound,
  kRewoundSegments,
  kEpochChanged,
  kWriteFailed,
  kSyncFailed,
  kOldContentAfterFailedSync,
  kSyncFailedLate,
  kSyncLied,
  kLieCostEvents,
  kDiskFull,
  kDiskFullWhileOpening,
  kReadFailed,
  kKilled,
  kPowerLost,
  kDiedInOperation,
  kDiedInRecovery,
  kDiedInRecoveryTwice,
  kDiedWhileMakingStore,
  kDiedInClose,
  kTornTailCut,
  kUnfinishedDropped,
  kUnfinishedSegmentsDropped,
  kUnacknowledgedSurvived,
  kUnacknowledgedLost,
  kNothingLost,
  kGarbageRefused,
  kStaleRefused,
  kLieRefused,
  kReaderFoundEnd,
  kReaderSurvivedWriter,
  kReaderFollowed,
  kFilteredReaderSkipped,
  kSecondWriterRefused,
  kDamageRefused,
  kDamageServedNothing,
  kDamageWithoutEffect,
  kMissingFile,
  kHotCopyOpened,
  kOptionsChanged,
  kIndexed,
  kMaintenanceFailed,
  kIndexDamaged,
  kAppendedToStreams,
  kAppendConflicted,
  kAppendRepeated,
  kModeOsCostEvents,
  kCompacted,
  kCompactedInPasses,
  kSegmentRewritten,
  kPartialCompleted,
  kExpired,
  kTombstoneRemoved,
  kDiedInCompaction,
  kDiskFullInCompaction,
  kCompactionFailed,
  kReaderMetHole,
  kReaderToldOfLoss,
  kErased,
  kErasingFailed,
  kConsumerAdvanced,
  kConsumerLost,
  kSnapshotTaken,
  kSnapshotLinked,
  kSnapshotFailed,
  kSnapshotRestored,
  kUnfinishedSnapshotRefused,
  kRepaired,
  kRepairNotNeeded,
  kRepairRefused,
  kRepairInterrupted,
  kScrubbed,
  kRotFound,
  kRotFoundAfterRestart,
  kVersioned,
  kVersionedSpilled,
  kVersionsTakenBack,
  kVersionNotReadable,
  kAppendedBeside,
  kCount,
};

inline constexpr std::size_t kProbes = static_cast<std::size_t>(Probe::kCount);

std::string_view name_of(Probe probe);

/// In memory that the workers of a run share.
using ProbeCounters = std::array<std::atomic<std::uint64_t>, kProbes>;
/// Where this process counts; not set: nowhere.
void count_in(ProbeCounters* counters);
void hit(Probe probe);

}  // namespace millrace::sim
