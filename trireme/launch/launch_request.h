// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What `trireme launch` was asked for, made into what run_local_workers() does.
//
//   LaunchRequest request;
//   request.workers = "2";  request.nodes = 3;  request.node_rank = 1;
//   request.rendezvous = "host0:29500";  request.command = {"./program", "--steps", "7"};
//   return run_local_workers(plan_launch(request, environment_variable));   // ranks 2 and 3 of 6
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"

namespace trireme {

// As the words of the command line, so that one place judges them.
struct LaunchRequest {
  std::optional<std::string> workers;  // on each host: a number, or "auto", one per core; else 1
  std::optional<int> servers;          // of parameters, on each host; not given or 0: none
  std::optional<int> restarts;         // of each worker and server; else none
  std::optional<int> nodes;            // hosts, each with a launcher of its own; not given: one
  std::optional<int> node_rank;        // of this host
  std::string rendezvous;              // host:port of node 0
  int port = 0;                        // of the rendezvous on one host; 0: a free one
  bool prefix = false;
  std::string log_folder;
  std::vector<std::string> command;  // a program and its arguments
};

// Who the workers are and what they execute: the program found, the secret of a job of several
// hosts read from TRIREME_SECRET. Servers and their coordinator execute the running program with
// the argument serve-parameters. Reads the environment by lookup and the file system, changes
// nothing. Throws ConfigError: numbers out of range, options that are missing, or contradict each
// other, or clash with a launcher that started this process, a program that cannot be found or
// executed, no secret for ranks that meet beyond loopback.
LocalWorkersOptions plan_launch(const LaunchRequest& request, const EnvironmentLookup& lookup);

// The file that a shell would execute for the name: the name itself where it has a slash, else the
// first executable in search_path, folders with colons between them (PATH). Throws ConfigError.
std::string find_program(const std::string& name, std::string_view search_path);

}  // namespace trireme
