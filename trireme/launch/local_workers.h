// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Starting and watching the workers of one host: what `trireme train --workers N` does when nothing
// else launched it.
//
// Each worker is this program again with the same arguments (or the given command), its identity in
// the environment (launch/environment.h). The launcher forwards SIGINT and SIGTERM to all of them
// once, ends the rest when one fails, and outlives none: a worker whose launcher dies is killed by
// the kernel.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace trireme {

struct LocalWorkersOptions {
  int workers = 1;
  // argv of each worker; argv[0] is executed without a search path.
  std::vector<std::string> command;
  // 0: a free port. Otherwise a ConfigError when it is in use.
  int port = 0;
  // After a worker failed, or was asked to end, how long the others may take before they are
  // killed.
  std::chrono::milliseconds grace = std::chrono::seconds(8);
  // The same after SIGINT or SIGTERM was forwarded: saving a checkpoint takes time.
  std::chrono::milliseconds interrupt_grace = std::chrono::minutes(5);
  // Who has used up the grace gets SIGTERM, and this much later SIGKILL.
  std::chrono::milliseconds terminate_grace = std::chrono::seconds(1);
};

// Runs the workers and waits for all of them. Blocks; call it before any LibTorch call and with no
// other threads. Returns 0 when all ended with 0, else the status of the first that failed (2 when
// it said 2, else 1). Logs which worker failed and how ("worker 1 (pid 4242) was killed by signal 9
// (Killed)"). A second SIGINT kills at once.
int run_local_workers(const LocalWorkersOptions& options);

// In a worker: asks the kernel to end this process when its launcher dies. No effect unless our
// launcher started it.
void follow_launcher();

}  // namespace trireme
