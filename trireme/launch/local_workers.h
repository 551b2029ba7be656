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
//
// With parameter servers it also starts these and their coordinator, lives through the death of
// workers and servers, and ends the servers after the last worker.
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
  // Of the launchers, one per host. Node 0 has rank 0, and the coordinator.
  int node = 0;
  int nodes = 1;
};

// Who serves the parameters of a job. All of them are told TRIREME_ROLE, TRIREME_PS_COORDINATOR,
// TRIREME_PS_SERVERS and TRIREME_PS_WORKERS, and servers TRIREME_PS_INDEX; docs/launch.md has what
// these mean.
struct ServingOptions {
  int servers = 1;  // on this host
  // argv of each; argv[0] is executed without a search path.
  std::vector<std::string> server_command;
  std::vector<std::string> coordinator_command;
  // How often a worker or a server that failed is started again, each of them; it is told
  // TRIREME_RESTART then. The coordinator is not.
  int restarts = 0;
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
  // Nothing: the job has none.
  std::optional<ServingOptions> parameter_servers = std::nullopt;
  // Puts "[rank] ", "[server index] " or "[coordinator] " before each line that they print.
  bool prefix = false;
  // Where the outputs of each go, appended to rank-<rank>.out and rank-<rank>.err, and in the same
  // way to server-<index> and coordinator; made where it is missing. Empty: they are the launcher's
  // own. Not together with prefix.
  std::string log_folder = {};
  // After a worker failed, or was asked to end, how long the others may take before they are
  // killed. Also what servers and the coordinator have from SIGTERM to SIGKILL.
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
//
// With parameter servers on several hosts the launchers meet first, for up to 5 minutes. A worker
// or a server that fails is started again or done without, unless it says 2. Returns, the same on
// every host: 0 when a worker has ended with 0, and all that had been asked to end did; else 2 when
// a process said 2, or 1: no worker is left, the coordinator or its host is lost.
//
// Throws ConfigError before any process runs: options that contradict each other, a port in use, a
// log folder that cannot be written, launchers that do not agree; with those that run already
// killed, when a command cannot be executed. CommError: the launchers did not meet.
int run_local_workers(const LocalWorkersOptions& options);

// In a worker: asks the kernel to end this process when its launcher dies. No effect unless our
// launcher started it.
void follow_launcher();

}  // namespace trireme
