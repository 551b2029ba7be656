// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The other workers of a job of which this process is rank 0: for a program that nothing launched
// and that says itself how many workers it wants (train/strategy.h). Where a launcher of its own is
// wanted, which only watches, see local_workers.h.
//
//   CompanionWorkers companions(4);                            // ranks 1, 2 and 3 run now
//   const auto world = join_world(world_options(companions.info()));
//   ...
//   world->close();
//   companions.wait();
//
// A companion is this program again with the same arguments, its identity in the environment
// (environment.h), no input and the same outputs. It starts at main(), so what stands before this
// object is done by each of them. Companions outlive neither this object nor the thread that made
// it: the kernel kills them when that thread ends, however it ends.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "trireme/launch/environment.h"

namespace trireme {

// Not thread-safe.
class CompanionWorkers {
 public:
  // Starts ranks 1 to workers - 1, by fork and exec, so LibTorch and threads may be in use. From
  // the main thread. Throws ConfigError: less than 2 workers, a program that cannot be executed;
  // Error when the machine refuses a socket or a process.
  explicit CompanionWorkers(int workers);
  // Kills those that still run.
  ~CompanionWorkers();
  CompanionWorkers(const CompanionWorkers&) = delete;
  CompanionWorkers& operator=(const CompanionWorkers&) = delete;

  // Who this process is: rank 0 of workers. Its listening socket is for one join_world().
  const LaunchInfo& info() const { return info_; }
  // Which has failed first so far, and how it ended; empty: none has. Does not block.
  const std::string& failure();
  // Blocks until all have ended; who has not after the grace is killed. Idempotent. Throws Error
  // when one failed or was killed, naming the first and how it ended.
  void wait(std::chrono::milliseconds grace = std::chrono::seconds(30));

 private:
  struct Companion {
    int rank;
    pid_t pid;
  };
  void kill_all();

  LaunchInfo info_;
  std::vector<Companion> running_;
  std::string failure_;
};

}  // namespace trireme
