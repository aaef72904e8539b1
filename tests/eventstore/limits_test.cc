#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>

#include "eventstore/consumers.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "eventstore/log/store_files.h"
#include "tests/support/forwarding_fs.h"
#include "tests/support/store_fixture.h"

// Stores and files that are very large, and files that are somebody else's.

using namespace millrace;
using namespace millrace::test;

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

/// The kernel's files, with the bytes counted that are read; zeros that are written to new space
/// take none, nor does space that is reserved.
class SparseFs final : public ForwardingFileSystem {
 public:
  class Sparse final : public ForwardingFile {
   public:
    Sparse(std::unique_ptr<File> file, std::atomic<std::uint64_t>& read)
        : ForwardingFile(std::move(file)), read_(read) {}
    Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
      auto count = ForwardingFile::read_at(position, into);
      if (count) read_ += *count;
      return count;
    }
    Result<void> allocate(std::uint64_t position, std::uint64_t bytes) override {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t now, size());
      return now < position + bytes ? truncate(position + bytes) : Result<void>{};
    }
    Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
      static const std::string zeros(1 << 20, '\0');
      while (!bytes.empty()) {
        const std::string_view part = bytes.substr(0, zeros.size() - position % zeros.size());
        MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t now, size());
        const bool is_hole = part.size() == zeros.size() && now >= position + part.size() &&
                             std::memcmp(part.data(), zeros.data(), part.size()) == 0;
        if (!is_hole) MILLRACE_RETURN_IF_ERROR(ForwardingFile::write_at(position, part));
        position += part.size();
        bytes.remove_prefix(part.size());
      }
      return {};
    }

   private:
    std::atomic<std::uint64_t>& read_;
  };

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
    return std::make_unique<Sparse>(std::move(file), read);
  }
  std::atomic<std::uint64_t> read = 0;
};

void write_page(const Path& path, const log::SegmentHeader& header) {
  std::string page(log::kSegmentHeaderBytes, '\0');
  log::encode_segment_header(header, page.data());
  std::ofstream(path, std::ios::binary) << page;
}

/// Forty sealed segments of 32 GiB each and a small one, as far as their headers tell. Gives the
/// offset at which the log ends.
std::uint64_t make_store_of_a_terabyte(const Path& directory) {
  StoreOptions options = small_options(FileSystem::real());
  const StoreId id = must(EventStore::open(directory, options))->id();
  constexpr std::uint64_t kSegments = 41, kEvents = 1000, kBytes = 32 * kGiB;
  const log::StorePaths paths(directory);
  for (std::uint64_t i = 0; i < kSegments; ++i) {
    const std::uint64_t first = i * kEvents;
    log::SegmentHeader header{.store = id,
                              .segment = first,
                              .created = {1},
                              .predecessor = {},
                              .mark = {.end = {first},
                                       .segment = first,
                                       .position = log::kSegmentHeaderBytes,
                                       .source = {},
                                       .commit_time = {}}};
    if (i != 0) header.predecessor = {.segment = first - kEvents, .bytes_used = kBytes, .chain = i};
    write_page(paths.segment(first), header);
    std::filesystem::resize_file(paths.segment(first), i + 1 < kSegments ? kBytes : 128 << 10);
  }
  return (kSegments - 1) * kEvents;
}

/// This process as somebody else, who owns nothing but what he is given.
constexpr uid_t kSomebody = 65'534;
class AsSomebody {
 public:
  AsSomebody() { REQUIRE((::setegid(kSomebody) == 0 && ::seteuid(kSomebody) == 0)); }
  AsSomebody(const AsSomebody&) = delete;
  AsSomebody& operator=(const AsSomebody&) = delete;
  ~AsSomebody() { static_cast<void>(::seteuid(0) == 0 && ::setegid(0) == 0); }
};

bool can_be_somebody() {
  if (::geteuid() == 0) return true;
  WARN("left out: becoming somebody else needs root");
  return false;
}

void give(const Path& path, uid_t user) { REQUIRE(::chown(path.c_str(), user, user) == 0); }

void give_all(const Path& directory, uid_t user) {
  give(directory, user);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    give(entry.path(), user);
}

/// Everything that a user does with a store; the first error.
Result<void> use(const Path& directory) {
  const StoreOptions options = small_options(FileSystem::real());
  MILLRACE_ASSIGN_OR_RETURN(const auto store, EventStore::open(directory, options));
  MILLRACE_RETURN_IF_ERROR(list_consumers(directory));
  MILLRACE_RETURN_IF_ERROR(store->maintenance().advance_consumer("view", Offset{1}));
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(directory, {.from = {}}));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const Batch* batch, reader->next());
    if (batch == nullptr) return {};
  }
}

void check_is_told(const Error& error, const Path& file) {
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(error.message().find(file.string() + ": Permission denied") != std::string::npos);
  CHECK(error.hint().find("user 65534") != std::string::npos);
  CHECK(error.hint().find("chown") != std::string::npos);
}

}  // namespace

TEST_CASE("B32: of a store of a terabyte opening reads the last segment only",
          "[eventstore][limits]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const std::uint64_t end = make_store_of_a_terabyte(directory);
  SparseFs files;
  {
    const auto store = must(EventStore::open(directory, small_options(files)));
    CHECK(store->durable_end().value == end);
    CHECK(files.read < 1 << 20);
    must(append_durably(*store, sample_transaction(1, 3)));
  }
  const StoreSummary summary = must(summarize_store(directory, files));
  std::uint64_t bytes = 0;
  for (const SegmentSummary& segment : summary.segments) bytes += segment.bytes;
  CHECK(bytes > 1024 * kGiB);
  CHECK(summary.durable_end.value == end + 3);
  const auto reader = must(LogReader::open(directory, {.from = {end}, .files = &files}));
  CHECK(must(reader->next())->first.value == end);
  CHECK(must(reader->next()) == nullptr);
  // Where one should be full of batches and is not, a reader stops, and looks no further.
  const auto from_the_start = must(LogReader::open(directory, {.from = {}, .files = &files}));
  CHECK(from_the_start->next().error().code() == ErrorCode::kCorruption);
  CHECK(files.read < 8 << 20);
}

TEST_CASE("B32: a segment that somebody made a terabyte long is refused by its size",
          "[eventstore][limits]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  {
    const auto store = must(EventStore::open(directory, small_options(FileSystem::real())));
    for (std::uint64_t number = 1; number <= 4; ++number)
      must(append_durably(*store, sample_transaction(number, 100)));
  }
  const auto segments = must(log::list_segments(FileSystem::real(), log::StorePaths(directory)));
  REQUIRE(segments.size() >= 3);
  const bool is_last = GENERATE(false, true);
  const std::uint64_t segment = is_last ? segments.back() : segments.front();
  const Path path = log::StorePaths(directory).segment(segment);
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, 1024 * kGiB);
  SparseFs files;
  const auto opened = EventStore::open(directory, small_options(files));
  std::optional<Error> error;
  if (!opened) error = opened.error();
  if (opened) read_history(directory, files, &error);
  REQUIRE(error);
  CHECK(error->code() == ErrorCode::kCorruption);
  CHECK(error->message().find(path.string() + " has 1099511627776 bytes") != std::string::npos);
  const auto report = must(verify_store(directory, {}, files));
  REQUIRE_FALSE(report.faults.empty());
  CHECK(report.faults[0].file == "log/" + path.filename().string());
  CHECK(files.read < 8 << 20);
  std::filesystem::resize_file(path, size);
  CHECK(read_history(directory, FileSystem::real()).size() == 4);
}

TEST_CASE("B32: positions beyond four gibibytes in one segment are found, indexed and verified",
          "[.][large]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  SparseFs files;
  StoreOptions options = small_options(files);
  options.segment_bytes = 4 * kGiB + (200 << 20);
  options.pending_bytes_max = 310 << 20;
  const std::string zeros(300 << 20, '\0');
  const auto append_one = [&](EventStore& store, std::uint64_t number, const std::string& category,
                              std::string_view payload) {
    must(store.begin({.source = {.epoch = 1, .commit = number * 10, .end = 0}, .commit_time = {}}));
    must(store.add(
        {.category = category, .key = "k", .type = {}, .payload = payload, .metadata = {}}));
    must(store.commit(number * 10 + 5));
    store.request_flush();
    REQUIRE(must(store.wait_durable({number}, number * 10 + 5, std::chrono::minutes(2))));
  };
  {
    const auto store = must(EventStore::open(directory, options));
    for (std::uint64_t number = 1; number <= 14; ++number)
      append_one(*store, number, "large", zeros);
    append_one(*store, 15, "needle", "far out");
    append_one(*store, 16, "large", zeros);  // in the next segment
    must(store->run_maintenance());
  }
  const auto segments = must(log::list_segments(files, log::StorePaths(directory)));
  REQUIRE(segments == std::vector<std::uint64_t>{0, 15});
  CHECK(std::filesystem::file_size(log::StorePaths(directory).segment(0)) > 4 * kGiB);
  CHECK(must(verify_store(directory, {}, files)).faults.empty());
  files.read = 0;
  const auto reader =
      must(LogReader::open(directory, {.from = {}, .categories = {"needle"}, .files = &files}));
  Batch* const batch = must(reader->next());
  REQUIRE(batch != nullptr);
  CHECK(batch->position > 4 * kGiB);
  CHECK(batch->next()->payload == "far out");
  CHECK(files.read < 8 << 20);
}

TEST_CASE("B32: a device in place of a file of the store is refused, and at once",
          "[eventstore][limits]") {
  if (!can_be_somebody()) return;
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const auto open = [&] { return EventStore::open(directory, small_options(FileSystem::real())); };
  { must(append_durably(*must(open()), sample_transaction(1, 1))); }
  const std::string name = GENERATE("HEAD", "LOCK", "store.json", "log/00000000000000000000.log");
  const Path path = directory / name;
  std::filesystem::rename(path, folder / "elsewhere");
  if (::mknod(path.c_str(), S_IFCHR | 0600, 1 << 8 | 5) != 0) return;  // /dev/zero
  CHECK(open().error().code() == ErrorCode::kFailedPrecondition);
  std::filesystem::remove(path);
  std::filesystem::rename(folder / "elsewhere", path);
  CHECK(open());
}

TEST_CASE("B33: a file of somebody else's is named, with what to do, and nothing is changed",
          "[eventstore][limits]") {
  if (!can_be_somebody()) return;
  const TemporaryDirectory folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms{0755});
  const Path directory = folder / "store";
  {
    const auto store = must(EventStore::open(directory, small_options(FileSystem::real())));
    for (std::uint64_t number = 1; number <= 5; ++number)
      must(append_durably(*store, sample_transaction(number, 100)));
    must(store->run_maintenance());
    must(store->maintenance().register_consumer("view", Offset{0}, ConsumerPolicy::kHold));
  }
  give_all(directory, kSomebody);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    CAPTURE(entry.path());
    const bool is_index = entry.path().extension() == ".index";  // one does without it
    const auto bytes = std::filesystem::file_size(entry.path());
    give(entry.path(), 0);
    {
      const AsSomebody somebody;
      const auto used = use(directory);
      CHECK(used.has_value() == is_index);
      if (!used) check_is_told(used.error(), entry.path());
    }
    CHECK(std::filesystem::file_size(entry.path()) == bytes);
    give(entry.path(), kSomebody);
    ++files;
  }
  CHECK(files > 8);
  const AsSomebody somebody;
  CHECK(use(directory));
  CHECK(read_history(directory, FileSystem::real()).size() == 5);
}

TEST_CASE("B33: a folder in which nothing can be made is named, and writing goes on when it can",
          "[eventstore][limits]") {
  if (!can_be_somebody()) return;
  const TemporaryDirectory folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms{0755});
  const Path directory = folder / "store";
  const auto open = [&] { return EventStore::open(directory, small_options(FileSystem::real())); };
  { must(append_durably(*must(open()), sample_transaction(1, 1))); }
  give_all(directory, kSomebody);
  give(directory / "log", 0);
  std::filesystem::permissions(directory / "log", std::filesystem::perms{0755});
  History written{sample_transaction(1, 1)};
  {
    const AsSomebody somebody;
    const auto store = must(open());
    Result<void> appended;
    for (std::uint64_t number = 2; appended && number < 20; ++number) {
      written.push_back(sample_transaction(number, 20, 200));
      appended = append_durably(*store, written.back());
    }
    REQUIRE_FALSE(appended);
    CHECK(appended.error().code() == ErrorCode::kIo);
    CHECK(appended.error().message().find((directory / "log").string()) != std::string::npos);
    CHECK(appended.error().hint().find("chown") != std::string::npos);
    written.pop_back();
    CHECK(read_history(directory, FileSystem::real()) == written);
  }
  give(directory / "log", kSomebody);
  const AsSomebody somebody;
  written.push_back(sample_transaction(written.size() + 1, 20, 200));
  must(append_durably(*must(open()), written.back()));
  CHECK(read_history(directory, FileSystem::real()) == written);
}

TEST_CASE("B33: a folder that can't be looked into is no empty one, and gets no store",
          "[eventstore][limits]") {
  if (!can_be_somebody()) return;
  const TemporaryDirectory folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms{0755});
  const Path directory = folder / "private";
  std::filesystem::create_directory(directory);
  std::ofstream(directory / "file") << "mine";
  give(directory, kSomebody);
  std::filesystem::permissions(directory, std::filesystem::perms{0300});
  {
    const AsSomebody somebody;
    const auto opened = EventStore::open(directory, small_options(FileSystem::real()));
    REQUIRE_FALSE(opened);
    check_is_told(opened.error(), directory);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(directory), {}) == 1);
}
