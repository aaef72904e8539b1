#include "bench/rhythm.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "bench/bench.h"

namespace millrace::bench {
namespace {

class ListeningFile final : public test::ForwardingFile {
 public:
  ListeningFile(std::unique_ptr<File> file, Rhythm& rhythm)
      : ForwardingFile(std::move(file)), rhythm_(rhythm) {}
  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    rhythm_.add(bytes.size());
    return ForwardingFile::write_at(position, bytes);
  }
  Result<void> sync() override {
    rhythm_.add(0);
    return ForwardingFile::sync();
  }

 private:
  Rhythm& rhythm_;
};

}  // namespace

Result<std::unique_ptr<File>> ListeningFileSystem::open(const Path& path, OpenMode mode) {
  MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
  // Segments; not their indexes, which are made beside the appending.
  const bool segment = path.extension() == ".log" || path.stem().extension() == ".log";
  if (!segment) return file;
  return std::unique_ptr<File>(std::make_unique<ListeningFile>(std::move(file), rhythm));
}

std::vector<double> raw_writes(const Path& path, const std::vector<std::size_t>& rhythm) {
  const auto file = must(FileSystem::real().open(path, OpenMode::kCreate));
  const std::size_t largest = rhythm.empty() ? 0 : *std::max_element(rhythm.begin(), rhythm.end());
  constexpr std::uint64_t kStep = 32u << 20;
  const std::string bytes(largest, 'y');
  std::vector<double> seconds;
  std::uint64_t position = 0, allocated = 0;
  Stopwatch watch;
  const auto end_step = [&] {
    if (position != 0) seconds.push_back(watch.seconds());
    watch = Stopwatch();
  };
  for (const std::size_t size : rhythm) {
    if (size == 0) {
      must(file->sync());
      continue;
    }
    end_step();
    if (position + size > allocated) {
      must(file->allocate(allocated, kStep + size));
      allocated += kStep + size;
    }
    must(file->write_at(position, std::string_view(bytes).substr(0, size)));
    position += size;
  }
  must(file->sync());
  end_step();
  return seconds;
}

double total_of(const std::vector<double>& seconds) {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

}  // namespace millrace::bench
