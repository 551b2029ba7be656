// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How ranks meet: the rendezvous of a job, and the group of all its ranks.
//
//   WorldOptions options;
//   options.rank = 0;  options.size = 2;  options.address = "127.0.0.1";  options.port = 29500;
//   options.secret = job_secret;
//   options.fingerprint = {{"config", config_hash}, {"threads", "1"}};
//   const std::unique_ptr<Group> world = join_world(options);
//
// Rank 0 listens at address:port. The others connect, prove that they know the job's secret (HMAC-
// SHA256 challenge both ways) and compare fingerprints. A stranger is refused and logged and
// disturbs nobody. The connections stay open as control plane: a rank whose connection ends is
// announced to all others at once, which ends their pending work with PeerLostError.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/comm/nccl/cuda_options.h"

namespace trireme {

struct WorldOptions {
  int rank = 0;
  int size = 1;
  // Where rank 0 listens: a name or an address of its host.
  std::string address = "127.0.0.1";
  int port = 29500;
  // Already bound and listening socket for rank 0 to take over (a launcher reserves the port this
  // way), or -1.
  int listen_fd = -1;
  // Shared by the ranks of one job. May be empty only while address is a loopback address.
  std::string secret;
  // What carries the bytes. "auto": shared memory between ranks of one host, gloo between hosts;
  // the same as "shm+gloo". "shm+mpi": shared memory and MPI. "shm", "gloo", "mpi": that one
  // between all ranks. Those with mpi want all ranks to be started by one mpirun (docs/launch.md),
  // and a build with MPI.
  std::string engine = "auto";
  // For buffers on a CUDA device, beside the engine of those on the host.
  CudaOptions cuda;
  // Ranks with equal ids share a host. Empty: the environment variable TRIREME_HOST_ID or, where
  // that is not set, one kernel, process and network namespace.
  std::string host_id;
  // Interface or address that the gloo engine binds to; empty: the one that reaches address.
  std::string network_interface;
  // Name and value pairs that all ranks must agree on. A difference is a ConfigError that names the
  // key, both ranks and both values.
  std::vector<std::pair<std::string, std::string>> fingerprint;
  // For all ranks to arrive.
  std::chrono::milliseconds join_timeout = std::chrono::minutes(5);
  // For each later operation.
  std::chrono::milliseconds timeout = std::chrono::minutes(5);
};

// Blocks until all ranks have joined. All ranks call it once per job. A size of 1 opens no socket.
// listen_fd is closed in any case. Throws ConfigError: port in use, a secret that is missing for a
// non-loopback address or is another than rank 0's, fingerprints or sizes that differ, a rank that
// comes twice, an engine or a CUDA device that cannot be had, two ranks with one CUDA device;
// TimeoutError: names the ranks that did not come (the least patient rank's join_timeout counts);
// PeerLostError: a rank ended while others were joining.
std::unique_ptr<Group> join_world(const WorldOptions& options);

// Throws ConfigError, with the names that there are, unless WorldOptions::engine may be this one.
void check_engine_name(std::string_view engine);

}  // namespace trireme
