// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who am I? Reads what torchrun, Slurm, OpenMPI, or trireme's own launcher said through the
// environment.
//
//   const LaunchInfo info = launch_info();
//   if (info.launcher == Launcher::kNone && workers > 1) return run_local_workers(...);
#pragma once

#include <string>

namespace trireme {

enum class Launcher { kNone, kTrireme, kTorchrun, kSlurm, kOpenMpi };

struct LaunchInfo {
  Launcher launcher = Launcher::kNone;
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // among this host's ranks
  int local_size = 1;
  std::string address = "127.0.0.1";  // of the rendezvous, see comm/world.h
  int port = 29500;
  int listen_fd = -1;  // a listening socket inherited from our own launcher, rank 0 only
  std::string secret;  // TRIREME_SECRET; our launcher makes one per job
};

// Reads the environment, nothing else. Precedence: our own launcher, torchrun (RANK, WORLD_SIZE,
// LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), Slurm (SLURM_PROCID, SLURM_NTASKS,
// SLURM_LOCALID, SLURM_STEP_NODELIST, ...), OpenMPI (OMPI_COMM_WORLD_*), none. Throws ConfigError
// on values that are not numbers or contradict each other (rank not below size), naming the
// variable.
LaunchInfo launch_info();

// "torchrun", "Slurm", ... for the log.
std::string launcher_name(Launcher launcher);

}  // namespace trireme
