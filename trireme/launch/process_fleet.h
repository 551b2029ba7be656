// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The processes of a job that run on this host, and where their outputs go.
//
//   Fleet fleet(options);
//   fleet.start(table[0], listener);
//   for (const Fleet::Ended& ended : fleet.reap()) ...
#pragma once

#include <string>
#include <vector>

#include "trireme/base/file_descriptor.h"
#include "trireme/launch/job_process.h"
#include "trireme/launch/local_workers.h"
#include "trireme/launch/worker_output.h"
#include "trireme/launch/worker_process.h"

namespace trireme::detail {

// Those of a job that are asked to end together: first the workers, then who serves them.
enum class JobPart { kWorkers, kServing };
JobPart part_of(JobRole role);

// For a process of one thread.
class Fleet {
 public:
  struct Ended {
    const JobProcess* process;
    pid_t pid;
    WorkerEnd how;

    // "worker 1 (pid 4242) was killed by signal 9 (Killed)".
    std::string description() const;
  };

  // options and the processes that are started must outlive it.
  explicit Fleet(const LocalWorkersOptions& options) : options_(options) {}
  // Kills what is left, which is only something when an exception passes.
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Starts the process with the socket, where it is to have one. restart: how often it has been
  // started before. Throws as start_worker() does, and ConfigError when its log cannot be written.
  void start(const JobProcess& process, FileDescriptor listener, int restart = 0);

  // Who has ended since the last call. Does not block.
  std::vector<Ended> reap();

  bool empty() const { return running_.empty(); }
  bool has(JobPart part) const;
  // To every process, or to those of a part.
  void send(int signal) const;
  void send(JobPart part, int signal) const;
  // Those of the part that run: "worker 0, 2", "coordinator, server 1, 4".
  std::string names(JobPart part) const;

  // Of their lines, where they get a prefix.
  LinePrinter& lines() { return lines_; }

 private:
  struct Running {
    const JobProcess* process;
    pid_t pid;
  };

  const LocalWorkersOptions& options_;
  LinePrinter lines_;
  std::vector<Running> running_;
};

}  // namespace trireme::detail
