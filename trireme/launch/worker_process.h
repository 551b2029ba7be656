// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One worker process from start to end: what local_workers.cc supervises.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme::detail {

struct WorkerStart {
  std::vector<std::string> command;
  std::string_view as = "worker";  // for messages
  // Laid over the caller's environment, from which every other TRIREME_ identity is removed.
  std::vector<std::pair<std::string, std::string>> environment;
  int listen_fd = -1;  // passed on under its number; -1: none
  // What its outputs are; -1: the caller's own.
  int out_fd = -1;
  int err_fd = -1;
};

// How a worker ended.
struct WorkerEnd {
  int status = 0;  // of exit, where no signal ended it
  int signal = 0;
  bool failed() const { return status != 0 || signal != 0; }
};

// Starts the command in a process group of its own, with no input, no signal blocked, SIGINT,
// SIGTERM, SIGHUP and SIGCHLD at their defaults, and bound to die by SIGKILL when this thread ends.
// Of the launcher's descriptors it has stdout, stderr and listen_fd, and whatever the launcher
// itself inherited. Returns its pid once exec has succeeded. Throws ConfigError: the command cannot
// be executed; Error: the machine refuses another process.
pid_t start_worker(const WorkerStart& start);

// How the worker ended, or nothing while it runs. Does not block. When it has ended, whatever it
// left in its process group is killed and the worker reaped: the pid is free afterwards.
std::optional<WorkerEnd> try_reap_worker(pid_t pid);

// The same, but waits. For workers that were sent SIGKILL.
WorkerEnd reap_worker(pid_t pid);

// Sends the signal to the worker and to the processes that it started.
void signal_worker(pid_t pid, int signal);

}  // namespace trireme::detail
