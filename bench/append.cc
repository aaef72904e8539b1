#include <mutex>
#include <thread>

#include "bench/bench.h"
#include "eventstore/event_store.h"
#include "tests/support/forwarding_fs.h"

namespace millrace::bench {
namespace {

/// What the store did to its disk: bytes written, then 0 for a sync.
class Rhythm {
 public:
  void wrote(std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    steps_.push_back(bytes);
  }
  std::vector<std::size_t> take() {
    const std::scoped_lock lock(mutex_);
    return std::move(steps_);
  }

 private:
  std::mutex mutex_;
  std::vector<std::size_t> steps_;
};

class ListeningFile final : public test::ForwardingFile {
 public:
  ListeningFile(std::unique_ptr<File> file, Rhythm& rhythm)
      : ForwardingFile(std::move(file)), rhythm_(rhythm) {}
  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    rhythm_.wrote(bytes.size());
    return ForwardingFile::write_at(position, bytes);
  }
  Result<void> sync() override {
    rhythm_.wrote(0);
    return ForwardingFile::sync();
  }

 private:
  Rhythm& rhythm_;
};

class ListeningFileSystem final : public test::ForwardingFileSystem {
 public:
  Rhythm rhythm;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
    // Segments; not their indexes, which are made beside the appending.
    const bool segment = path.extension() == ".log" || path.stem().extension() == ".log";
    if (!segment) return file;
    return std::unique_ptr<File>(std::make_unique<ListeningFile>(std::move(file), rhythm));
  }
};

double append_events(const Path& directory, ListeningFileSystem& files, int events) {
  StoreOptions options;
  options.files = &files;
  const auto store = must(EventStore::open(directory, options));
  files.rhythm.take();
  const std::string payload(110, 'x');
  const Stopwatch watch;
  for (int i = 0; i < events; ++i) {
    char key[16];
    std::snprintf(key, sizeof key, "%d", i);
    const NewEvent event{.category = "public.orders",
                         .key = key,
                         .type = "Added",
                         .payload = payload,
                         .metadata = {}};
    must(store->append({}, std::span(&event, 1)));
  }
  must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1)));
  return watch.seconds();
}

/// The same writes and syncs, one after the other, into a preallocated file.
double raw_writes(const Path& path, const std::vector<std::size_t>& rhythm) {
  const auto file = must(FileSystem::real().open(path, OpenMode::kCreate));
  std::uint64_t total = 0;
  std::size_t largest = 0;
  for (const std::size_t bytes : rhythm) total += bytes, largest = std::max(largest, bytes);
  constexpr std::uint64_t kStep = 32u << 20;
  const std::string bytes(largest, 'y');
  const Stopwatch watch;
  std::uint64_t position = 0, allocated = 0;
  for (const std::size_t size : rhythm) {
    if (size == 0) {
      must(file->sync());
      continue;
    }
    if (position + size > allocated) {
      must(file->allocate(allocated, kStep + size));
      allocated += kStep + size;
    }
    must(file->write_at(position, std::string_view(bytes).substr(0, size)));
    position += size;
  }
  must(file->sync());
  return watch.seconds();
}

}  // namespace

std::vector<Figure> run_append(const Settings& settings) {
  const int events = settings.tiny ? 10'000 : 2'000'000;
  Figure figure{
      .name = "append", .unit = "events/s", .limit = "raw write + fdatasync", .goal = 0.8};
  for (int round = 0; round < settings.rounds; ++round) {
    const Path store = settings.directory / "append", raw = settings.directory / "append.raw";
    ListeningFileSystem files;
    figure.ours.push_back(events / append_events(store, files, events));
    figure.limits.push_back(events / raw_writes(raw, files.rhythm.take()));
    std::filesystem::remove_all(store);
    std::filesystem::remove(raw);
  }
  return {figure};
}

}  // namespace millrace::bench
