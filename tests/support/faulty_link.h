#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace millrace::test {

/// A network between clients and a PostgreSQL server of this machine, with the faults of one: it is
/// cut, slow, or holds everything back for a while and then hands it on at once. It knows so much
/// of the protocol that, without TLS, it tells replication connections from others, and can play a
/// server that says something else.
/// Threads: one that asks; one of its own, which calls what rewrite() was given.
class FaultyLink {
 public:
  explicit FaultyLink(int to_port);
  ~FaultyLink();
  FaultyLink(const FaultyLink&) = delete;
  FaultyLink& operator=(const FaultyLink&) = delete;

  int port() const { return port_; }

  /// The next replication connections end once the server's first so many bytes were handed on, one
  /// number each; later ones last.
  void cut_after(std::deque<std::uint64_t> bytes);
  std::size_t cuts_left() const;
  /// What each connection carries from the server. 0: as much as there is.
  void throttle(std::uint64_t bytes_per_second) { rate_ = bytes_per_second; }
  /// While true, nothing comes from the server.
  void hold(bool held) { held_ = held; }
  /// While true, every byte is held in both directions, new connections and ends too, as in a
  /// network that was cut: nobody is told.
  void freeze(bool frozen) { frozen_ = frozen; }
  /// Where replication connections go from now on.
  void send_replication_to(int port) { replication_port_ = port; }

  /// Puts `bytes` between two messages of the server, on each connection that streams changes.
  void inject(const std::string& bytes);
  /// Every message of the server goes through `change` from now on; without TLS.
  void rewrite(std::function<std::string(std::string_view)> change);

  std::uint64_t statuses() const { return statuses_; }        ///< Of clients that stream changes.
  std::uint64_t from_server() const { return from_server_; }  ///< Bytes handed on.
  /// What the server sent on the last replication connection, in parts: each one what came after a
  /// command of the client.
  std::vector<std::string> recorded() const;

 private:
  struct Link {
    int client = -1, server = -1;
    bool replication = false, opaque = false, streaming = false, ended = false;
    bool started = false;                  ///< The client's first packet was seen.
    std::optional<std::uint64_t> cut_at;   ///< In bytes to the client.
    std::uint64_t sent = 0;                ///< To the client.
    double allowance = 0;                  ///< Bytes that the rate lets through by now.
    std::string from_client, from_server;  ///< Not yet whole messages.
    std::string to_client;                 ///< Whole ones.
  };
  void run();
  void accept_one();
  void take_from_client(Link& link);
  void first_packet(Link& link, std::string_view packet);
  void take_from_server(Link& link);
  void give_to_client(Link& link, double seconds);
  std::string_view next_message(const Link& link) const;

  int to_port_, port_ = 0, listener_;
  std::atomic<std::uint64_t> rate_ = 0, statuses_ = 0, from_server_ = 0;
  std::atomic<int> replication_port_;
  std::atomic<bool> held_ = false, frozen_ = false, stop_ = false;
  mutable std::mutex mutex_;  // guards what follows
  std::deque<std::uint64_t> cuts_;
  std::string injected_;
  std::function<std::string(std::string_view)> change_;
  std::vector<std::string> recorded_;
  std::list<Link> links_;  // of thread_ only
  std::thread thread_;
};

}  // namespace millrace::test
