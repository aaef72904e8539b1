#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <thread>

namespace millrace::test {

/// A port on the loopback interface that leads to a server on a Unix socket, and that is cut, in
/// both directions and without a word, once so many bytes have passed it. Threads: all of it, from
/// any.
class CutLink {
 public:
  explicit CutLink(std::filesystem::path to_socket);
  ~CutLink();
  CutLink(const CutLink&) = delete;
  CutLink& operator=(const CutLink&) = delete;

  int port() const { return port_; }
  /// The connection on which the byte after these would pass ends there; later ones last. What was
  /// sent before it may have arrived, and its answer may not.
  void cut_after(std::uint64_t bytes) { left_ = static_cast<std::int64_t>(bytes); }
  void mend() { left_ = -1; }
  std::uint64_t passed() const { return passed_; }  ///< Bytes, in both directions.

 private:
  void serve(const std::stop_token& stop);

  const std::filesystem::path to_;
  int listener_ = -1, port_ = 0;
  std::atomic<std::int64_t> left_{-1};
  std::atomic<std::uint64_t> passed_{0};
  std::jthread thread_;
};

}  // namespace millrace::test
