#pragma once

#include <memory>
#include <string>

#include "projections/sink.h"

// Sinks in a Redis server (5 or newer; no cluster: a transaction needs all keys in one place).
//
// Rows and checkpoint change in one MULTI/EXEC; the checkpoint is the hash
// "millrace.view.<view>". A Redis that forgets, be it a second or everything, is written again from
// the view's file as soon as that is noticed: at the next change, or when the connection breaks.
// One that may evict keys (maxmemory-policy other than noeviction) is refused.

namespace millrace::projections {

struct RedisHashesOptions {
  /// redis://[user[:password]@]host[:port][/database] or unix:///path/of/socket[?db=N]. A password
  /// is better taken from the environment than written into a program.
  std::string server{};
  /// Of the keys; "<view>:" if it is empty. All keys that begin with it are the view's own: others
  /// are removed when it is compared.
  std::string prefix{};
};
/// A hash per row, "<prefix><key>", with a field per column that is not null, and the key as well.
std::shared_ptr<const SinkKind> redis_hashes(RedisHashesOptions options);

struct RedisSetOptions {
  std::string server{};
  std::string key{};  ///< Of the set; the view's name if it is empty.
};
/// The keys of the rows in one set. The columns are not kept there.
std::shared_ptr<const SinkKind> redis_set(RedisSetOptions options);

struct RedisSortedSetOptions {
  std::string server{};
  std::string key{};    ///< Of the sorted set; the view's name if it is empty.
  std::string score{};  ///< The column by which they are sorted; never null, and exact as a double.
};
/// The keys of the rows in one sorted set. Of the columns only the score is kept there.
std::shared_ptr<const SinkKind> redis_sorted_set(RedisSortedSetOptions options);

}  // namespace millrace::projections
