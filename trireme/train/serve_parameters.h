// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One process of those that serve a job's parameters: what `trireme serve-parameters` does.
#pragma once

#include <string>

#include "trireme/launch/environment.h"

namespace trireme {

struct ServeParametersOptions {
  JobRole role = JobRole::kServer;  // or kCoordinator
  // job.address and job.port are where the coordinator listens, or is to listen. A server that
  // somebody started by hand has not been told how many servers and workers there are (0): the
  // coordinator knows.
  ParameterServerJob job;
  // Of a server: the address at which it listens for workers. Empty: the one of this host on the
  // network that leads to the coordinator.
  std::string bind_address;
  // Of the coordinator: a socket that listens already, closed in any case; -1: there is none.
  int listen_fd = -1;
  // May be empty only while job.address is a loopback address.
  std::string secret;
  // By a launcher that will end it: what ends before it is told to looks like a failure.
  bool launched = false;
};

// Serves until the workers have done their work, or until SIGTERM or SIGINT. A server that the
// coordinator takes for gone, after a stop, say, joins again. Logs where it listens, what it holds,
// and at the end what it has seen. Blocks; for a process of one thread. Returns 0. Throws
// ConfigError: a port in use, an index that is taken, another secret than the coordinator's;
// CommError: the coordinator cannot be reached or is lost, or the job is lost.
int serve_parameters(const ServeParametersOptions& options);

}  // namespace trireme
