// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who am I? Reads what torchrun, Slurm, OpenMPI, MPICH, or trireme's own launcher said through the
// environment.
//
//   const LaunchInfo info = launch_info();
//   if (info.launcher == Launcher::kNone && workers > 1) return run_local_workers(...);
//
// docs/launch.md lists every variable that is read here.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

enum class Launcher { kNone, kTrireme, kTorchrun, kSlurm, kOpenMpi, kMpich };

// What a process of the job does. Only jobs with parameter servers have others than workers.
enum class JobRole { kWorker, kServer, kCoordinator };

// A job with parameter servers, as its workers, its servers and its coordinator are told.
struct ParameterServerJob {
  // Where the coordinator listens.
  std::string address;
  int port = 0;
  int servers = 1;  // over all hosts
  int workers = 1;  // over all hosts: in a world that our launcher has made, its size
  int index = -1;   // of this server, below servers; -1 in the other roles
  // How many processes have been worker `rank` or server `index` before this one, and died.
  int restart = 0;
};

struct LaunchInfo {
  Launcher launcher = Launcher::kNone;
  // Servers and the coordinator are of no world: rank 0 of 1.
  JobRole role = JobRole::kWorker;
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // among this host's ranks
  int local_size = 1;
  std::string address = "127.0.0.1";  // of the rendezvous, see comm/world.h
  int port = 29500;
  // A listening socket inherited from our own launcher: rank 0's, of the rendezvous, and the
  // coordinator's.
  int listen_fd = -1;
  std::string secret;  // TRIREME_SECRET; our launcher makes one per job
  std::optional<ParameterServerJob> parameter_servers;
};

// Value of a variable by its name, or nothing where it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(std::string_view name)>;

// Reads the environment, nothing else. Precedence: our own launcher, torchrun (RANK, WORLD_SIZE,
// LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), OpenMPI (OMPI_COMM_WORLD_*), MPICH
// (PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS), Slurm (SLURM_PROCID,
// SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_STEP_NODELIST, ...), none. OpenMPI and MPICH stand
// before Slurm because inside a Slurm job mpirun starts its daemons by srun, and their identity in
// the step is inherited by the ranks. Slurm counts only inside a job step of more than
// one task: a batch script or a shell of salloc is no rank.
//
// Where all ranks are on this host the address is 127.0.0.1, which needs no secret. Otherwise
// MASTER_ADDR and MASTER_PORT hold, and where they are not set Slurm's first host and a port
// derived from the job's number.
//
// Whoever launched it, a process is of a job with parameter servers where TRIREME_PS_COORDINATOR is
// set; TRIREME_ROLE says that it is no worker.
//
// Throws ConfigError on values that are not numbers, are missing, or contradict each other (rank
// not below size), naming the variable and its value.
LaunchInfo launch_info();
// The same from any source of variables.
LaunchInfo launch_info(const EnvironmentLookup& lookup);

// The process environment. Every variable that Trireme reads goes through here.
std::optional<std::string> environment_variable(std::string_view name);

// "torchrun", "Slurm", ... for the log.
std::string launcher_name(Launcher launcher);

// "worker", "server", "coordinator": the words of TRIREME_ROLE.
std::string_view role_name(JobRole role);

}  // namespace trireme
