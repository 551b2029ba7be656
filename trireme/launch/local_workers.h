// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Starting and watching the workers of one host: what `trireme launch` does, and `trireme train
// --workers N` when nothing else launched it.
//
//   return run_local_workers({.workers = 3, .command = {"/usr/bin/env", "RUN=7", "./program"}});
//
// Each worker is the given command, its identity in the environment (launch/environment.h), in
// torchrun's words too. The launcher forwards SIGINT and SIGTERM to all of them once, ends the rest
// when one fails, and outlives none: a worker whose launcher dies is killed by the kernel.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace trireme {

// A job of several launchers, one per host, and which part of it is this one's.
struct JobShare {
  int first_rank = 0;  // of this launcher's workers; the others follow it
  int world_size = 1;
  std::string address;  // where rank 0 listens, as every host knows it
  // The same on every host. May be empty only while address is a loopback address.
  std::string secret;
};

struct LocalWorkersOptions {
  int workers = 1;
  // argv of each worker; argv[0] is executed without a search path.
  std::vector<std::string> command;
  // Of the rendezvous. 0: a free port, which a job of several launchers cannot have. Rank 0's
  // launcher binds it: a ConfigError when it is in use.
  int port = 0;
  // Nothing: these workers are the whole job. They meet on loopback, with a secret made for them.
  std::optional<JobShare> share = std::nullopt;
  // Puts "[rank] " before each line that a worker prints.
  bool prefix = false;
  // Where each worker's outputs go, appended to rank-<rank>.out and rank-<rank>.err; made where it
  // is missing. Empty: they are the launcher's own. Not together with prefix.
  std::string log_folder = {};
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
// (Killed)"). A second SIGINT kills at once. Throws ConfigError before any worker runs: options
// that contradict each other, a command that cannot be executed, a port in use, a log folder that
// cannot be written.
int run_local_workers(const LocalWorkersOptions& options);

// In a worker: asks the kernel to end this process when its launcher dies. No effect unless our
// launcher started it.
void follow_launcher();

}  // namespace trireme
