// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The processes of one launcher's part of a job, as a table: what each is called, what it executes
// what it is told and what its death means. Who watches them (job_supervisor.h) knows no more.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trireme/launch/endpoint.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"

namespace trireme::detail {

struct JobProcess {
  JobRole role = JobRole::kWorker;
  int number = 0;        // a worker's rank, a server's index
  std::string name;      // "worker 3", "server 0", "coordinator"
  std::string prefix;    // of its lines: "[3] ", "[server 0] "
  std::string log_name;  // of its log files, without .out: "rank-3", "server-0"
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> environment;  // see WorkerStart
  // Where it listens with a socket that its launcher made.
  std::optional<Endpoint> listens;
  // What its death means; but a mistake of the user (status 2) ends the job whoever has found it.
  bool death_ends_job = false;
  int restarts = 0;  // how often another may take its place
};

// Where the processes of a job meet, all ports chosen.
struct JobEndpoints {
  Endpoint rendezvous;
  int torch_port = 0;  // of what reads torchrun's variables
  std::optional<Endpoint> coordinator;
};

// The port that stands that many after another, or before it where there is none. For ports that
// all launchers of a job agree on: the first is for what reads torchrun's variables, the second is
// the coordinator's.
int port_beside(int port, int distance);

// The coordinator, where this launcher has it, the servers by index, the workers by rank.
std::vector<JobProcess> job_processes(const LocalWorkersOptions& options, const JobShare& share,
                                      const JobEndpoints& endpoints);

}  // namespace trireme::detail
