// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/environment.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/launch/endpoint.h"
#include "trireme/launch/slurm_lists.h"

namespace trireme {
namespace {

constexpr int kHighestPort = 65535;
// Derived ports lie in [10000, 30000): above what services of the system use, below the first port
// that Linux gives to outgoing connections (net.ipv4.ip_local_port_range starts at 32768).
constexpr int kFirstDerivedPort = 10000;
constexpr int kDerivedPorts = 20000;

// Typed access to the variables, with errors that name them.
class Variables {
 public:
  explicit Variables(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  std::optional<std::string> text(std::string_view name) const { return lookup_(name); }
  bool has(std::string_view name) const { return text(name).has_value(); }

  std::string required_text(std::string_view name, std::string_view because) const {
    const auto value = text(name);
    if (!value || value->empty()) throw_error<ConfigError>("{} is not set: {}", name, because);
    return *value;
  }

  // A whole number in [low, high], or nothing where the variable is not set.
  std::optional<int> number(std::string_view name, int low, int high) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int parsed = 0;
    const char* end = value->data() + value->size();
    const auto [stop, error] = std::from_chars(value->data(), end, parsed);
    if (error != std::errc() || stop != end) {
      throw_error<ConfigError>("{}={} is not a whole number", name, *value);
    }
    if (parsed < low || parsed > high) {
      throw_error<ConfigError>("{}={} is not in [{}, {}]", name, *value, low, high);
    }
    return parsed;
  }

  int required_number(std::string_view name, int low, int high, std::string_view because) const {
    const auto value = number(name, low, high);
    if (!value) throw_error<ConfigError>("{} is not set: {}", name, because);
    return *value;
  }

 private:
  const EnvironmentLookup& lookup_;
};

constexpr int kMost = std::numeric_limits<int>::max();

// Names of one launcher's variables for who a rank is.
struct IdentityNames {
  std::string_view rank, size, local_rank, local_size;
};

void check_below(std::string_view name, int value, std::string_view bound_name, int bound) {
  if (value >= bound) {
    throw_error<ConfigError>("{}={} is not below {}={}", name, value, bound_name, bound);
  }
}

void check_identity(const LaunchInfo& info, const IdentityNames& names) {
  check_below(names.rank, info.rank, names.size, info.size);
  check_below(names.local_rank, info.local_rank, names.local_size, info.local_size);
  if (info.local_size > info.size) {
    throw_error<ConfigError>("{}={} is above {}={}", names.local_size, info.local_size, names.size,
                             info.size);
  }
}

LaunchInfo identity(const Variables& variables, Launcher launcher, const IdentityNames& names) {
  const std::string because = launcher_name(launcher) + " sets it for every rank";
  LaunchInfo info;
  info.launcher = launcher;
  info.rank = variables.required_number(names.rank, 0, kMost, because);
  info.size = variables.required_number(names.size, 1, kMost, because);
  info.local_rank = variables.required_number(names.local_rank, 0, kMost, because);
  info.local_size = variables.required_number(names.local_size, 1, kMost, because);
  check_identity(info, names);
  return info;
}

bool all_ranks_local(const LaunchInfo& info) { return info.local_size == info.size; }

// FNV-1a: every rank derives the same port from the same words.
int derived_port(std::string_view words) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : words) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  return kFirstDerivedPort + static_cast<int>((hash >> 32) % kDerivedPorts);
}

LaunchInfo read_trireme(const Variables& variables) {
  LaunchInfo info =
      identity(variables, Launcher::kTrireme,
               {"TRIREME_RANK", "TRIREME_WORLD_SIZE", "TRIREME_LOCAL_RANK", "TRIREME_LOCAL_SIZE"});
  constexpr std::string_view kBecause = "trireme's launcher sets it for every rank";
  info.address = variables.required_text("TRIREME_ADDRESS", kBecause);
  info.port = variables.required_number("TRIREME_PORT", 1, kHighestPort, kBecause);
  // Launchers of one machine may share none.
  info.secret = is_loopback(info.address) ? variables.text("TRIREME_SECRET").value_or("")
                                          : variables.required_text("TRIREME_SECRET", kBecause);
  info.listen_fd = variables.number("TRIREME_LISTEN_FD", 0, kMost).value_or(-1);
  if (info.listen_fd >= 0 && info.rank != 0) {
    throw_error<ConfigError>("TRIREME_LISTEN_FD={} is for rank 0, but TRIREME_RANK={}",
                             info.listen_fd, info.rank);
  }
  return info;
}

// torchrun's agent may itself listen at MASTER_PORT, for torch's own store, and then says so in
// TORCHELASTIC_USE_AGENT_STORE: the next port is ours.
int torchrun_port(const Variables& variables, int master_port) {
  if (variables.text("TORCHELASTIC_USE_AGENT_STORE") != "True") return master_port;
  return master_port < kHighestPort ? master_port + 1 : master_port - 1;
}

LaunchInfo read_torchrun(const Variables& variables) {
  LaunchInfo info;
  const IdentityNames names{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
  if (variables.has(names.local_rank) || variables.has(names.local_size)) {
    info = identity(variables, Launcher::kTorchrun, names);
  } else {  // one rank per container, as Kubernetes' PyTorchJob starts them
    constexpr std::string_view kBecause =
        "RANK and WORLD_SIZE come in pairs; set both, or unset both to run without a launcher";
    info.launcher = Launcher::kTorchrun;
    info.rank = variables.required_number(names.rank, 0, kMost, kBecause);
    info.size = variables.required_number(names.size, 1, kMost, kBecause);
    check_below(names.rank, info.rank, names.size, info.size);
  }
  if (info.size == 1) return info;
  constexpr std::string_view kBecause = "with WORLD_SIZE above 1 the ranks meet there";
  const int port = variables.required_number("MASTER_PORT", 1, kHighestPort, kBecause);
  info.port = torchrun_port(variables, port);
  if (!all_ranks_local(info)) info.address = variables.required_text("MASTER_ADDR", kBecause);
  return info;
}

LaunchInfo read_openmpi(const Variables& variables) {
  LaunchInfo info = identity(variables, Launcher::kOpenMpi,
                             {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                              "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"});
  if (info.size == 1) return info;
  if (!all_ranks_local(info)) {
    info.address = variables.required_text(
        "MASTER_ADDR",
        "the ranks are on several hosts; export the name of rank 0's host with mpirun -x "
        "MASTER_ADDR=host");
  }
  if (const auto port = variables.number("MASTER_PORT", 1, kHighestPort)) {
    info.port = *port;
  } else {
    info.port = derived_port(variables.required_text(
        "PMIX_NAMESPACE", "no port can be derived; export one with mpirun -x MASTER_PORT=port"));
  }
  return info;
}

// The mpiexec of MPICH, and of those made from it. srun sets the PMI variables, too, but not those
// of this host.
LaunchInfo read_mpich(const Variables& variables) {
  LaunchInfo info = identity(variables, Launcher::kMpich,
                             {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
  if (info.size == 1) return info;
  if (!all_ranks_local(info)) {
    info.address = variables.required_text(
        "MASTER_ADDR",
        "the ranks are on several hosts; give the name of rank 0's host with mpiexec -genv "
        "MASTER_ADDR host");
  }
  info.port = variables.required_number(
      "MASTER_PORT", 1, kHighestPort,
      "MPICH says nothing that all ranks of a job share and other jobs do not; give a port with "
      "mpiexec -genv MASTER_PORT port");
  return info;
}

// Tasks of this node, from the most exact variable that is there.
int slurm_local_size(const Variables& variables, int size) {
  for (const std::string_view name : {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}) {
    const auto list = variables.text(name);
    if (!list) continue;
    const std::vector<int> counts = slurm_task_counts(*list, name);
    if (const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
        total != size) {
      throw_error<ConfigError>("{}={} adds up to {} tasks, but the job step has {}", name, *list,
                               total, size);
    }
    if (counts.size() == 1) return counts.front();
    const int node = variables.required_number("SLURM_NODEID", 0, kMost,
                                               "srun sets it on every node of a job step");
    if (node >= static_cast<int>(counts.size())) {
      throw_error<ConfigError>("SLURM_NODEID={} is not below the {} nodes of {}={}", node,
                               counts.size(), name, *list);
    }
    return counts[static_cast<std::size_t>(node)];
  }
  return variables.required_number("SLURM_NTASKS_PER_NODE", 1, kMost,
                                   "nor is SLURM_STEP_TASKS_PER_NODE, so this node's number of "
                                   "tasks is not known; start with srun --ntasks-per-node=N");
}

// The step's variable where it is set, else the job's.
std::string_view slurm_size_name(const Variables& variables) {
  return variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
}

// A batch script and a shell of salloc may carry SLURM_PROCID and SLURM_NTASKS too; what only srun
// sets are the variables of the step.
bool is_slurm_rank(const Variables& variables) {
  if (!variables.has("SLURM_PROCID")) return false;
  if (!variables.has("SLURM_STEP_NUM_TASKS") && !variables.has("SLURM_STEP_NODELIST")) return false;
  return variables.required_number(slurm_size_name(variables), 1, kMost,
                                   "srun sets it in every job step") > 1;
}

LaunchInfo read_slurm(const Variables& variables) {
  constexpr std::string_view kBecause = "srun sets it in every job step";
  const std::string_view size_name = slurm_size_name(variables);
  LaunchInfo info;
  info.launcher = Launcher::kSlurm;
  info.rank = variables.required_number("SLURM_PROCID", 0, kMost, kBecause);
  info.size = variables.required_number(size_name, 1, kMost, kBecause);
  check_below("SLURM_PROCID", info.rank, size_name, info.size);
  info.local_rank = variables.required_number("SLURM_LOCALID", 0, kMost, kBecause);
  info.local_size = slurm_local_size(variables, info.size);
  check_identity(info, {"SLURM_PROCID", size_name, "SLURM_LOCALID", "the tasks of this node"});

  if (!all_ranks_local(info)) {
    const auto master = variables.text("MASTER_ADDR");
    info.address = master && !master->empty()
                       ? *master
                       : first_slurm_host(variables.required_text("SLURM_STEP_NODELIST", kBecause),
                                          "SLURM_STEP_NODELIST");
  }
  if (const auto port = variables.number("MASTER_PORT", 1, kHighestPort)) {
    info.port = *port;
  } else {
    const std::string job = variables.required_text("SLURM_JOB_ID", "Slurm sets it in every job");
    info.port = derived_port(job + "." + variables.text("SLURM_STEP_ID").value_or("0"));
  }
  return info;
}

JobRole read_role(const Variables& variables) {
  const std::string name = variables.text("TRIREME_ROLE").value_or("worker");
  for (const JobRole role : {JobRole::kWorker, JobRole::kServer, JobRole::kCoordinator}) {
    if (name == role_name(role)) return role;
  }
  throw_error<ConfigError>("TRIREME_ROLE={} is neither worker, server nor coordinator", name);
}

ParameterServerJob read_parameter_servers(const Variables& variables, JobRole role) {
  constexpr std::string_view kBecause =
      "every process of a job with parameter servers (TRIREME_PS_COORDINATOR) is told";
  ParameterServerJob job;
  const std::string coordinator =
      variables.required_text("TRIREME_PS_COORDINATOR", "TRIREME_ROLE wants to know where it is");
  const Endpoint endpoint = parse_endpoint(coordinator, "TRIREME_PS_COORDINATOR=" + coordinator);
  job.address = endpoint.address;
  job.port = endpoint.port;
  job.servers = variables.required_number("TRIREME_PS_SERVERS", 1, kMost, kBecause);
  job.workers = variables.required_number("TRIREME_PS_WORKERS", 1, kMost, kBecause);
  job.restart = variables.number("TRIREME_RESTART", 0, kMost).value_or(0);
  if (role == JobRole::kServer) {
    job.index = variables.required_number("TRIREME_PS_INDEX", 0, kMost, "every server is told");
    check_below("TRIREME_PS_INDEX", job.index, "TRIREME_PS_SERVERS", job.servers);
  }
  return job;
}

// Of a server or of the coordinator.
LaunchInfo read_no_worker(const Variables& variables, JobRole role) {
  LaunchInfo info;
  info.launcher = Launcher::kTrireme;
  info.role = role;
  info.parameter_servers = read_parameter_servers(variables, role);
  info.secret = is_loopback(info.parameter_servers->address)
                    ? variables.text("TRIREME_SECRET").value_or("")
                    : variables.required_text("TRIREME_SECRET", "processes of several hosts meet");
  info.listen_fd = variables.number("TRIREME_LISTEN_FD", 0, kMost).value_or(-1);
  if (info.listen_fd >= 0 && role != JobRole::kCoordinator) {
    throw_error<ConfigError>("TRIREME_LISTEN_FD={} is for the coordinator, but TRIREME_ROLE={}",
                             info.listen_fd, role_name(role));
  }
  return info;
}

LaunchInfo read_worker(const Variables& variables) {
  if (variables.has("TRIREME_RANK")) return read_trireme(variables);
  LaunchInfo info;
  if (variables.has("RANK") || variables.has("WORLD_SIZE")) {
    info = read_torchrun(variables);
  } else if (variables.has("OMPI_COMM_WORLD_RANK")) {
    info = read_openmpi(variables);
  } else if (variables.has("PMI_RANK") && variables.has("MPI_LOCALRANKID")) {
    info = read_mpich(variables);
  } else if (is_slurm_rank(variables)) {
    info = read_slurm(variables);
  }
  info.secret = variables.text("TRIREME_SECRET").value_or("");
  return info;
}

}  // namespace

LaunchInfo launch_info(const EnvironmentLookup& lookup) {
  const Variables variables(lookup);
  const JobRole role = read_role(variables);
  if (role != JobRole::kWorker) return read_no_worker(variables, role);
  LaunchInfo info = read_worker(variables);
  if (!variables.has("TRIREME_PS_COORDINATOR")) return info;
  info.parameter_servers = read_parameter_servers(variables, role);
  // What nobody, or somebody else, has launched may be about to launch them.
  if (info.launcher == Launcher::kTrireme && info.parameter_servers->workers != info.size) {
    throw_error<ConfigError>("TRIREME_PS_WORKERS={}, but this is a world of {} ranks",
                             info.parameter_servers->workers, info.size);
  }
  return info;
}

LaunchInfo launch_info() { return launch_info(environment_variable); }

std::optional<std::string> environment_variable(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  if (value == nullptr) return std::nullopt;
  return value;
}

std::string launcher_name(Launcher launcher) {
  switch (launcher) {
    case Launcher::kNone:
      return "none";
    case Launcher::kTrireme:
      return "trireme";
    case Launcher::kTorchrun:
      return "torchrun";
    case Launcher::kSlurm:
      return "Slurm";
    case Launcher::kOpenMpi:
      return "OpenMPI";
    case Launcher::kMpich:
      return "MPICH";
  }
  return "unknown";
}

std::string_view role_name(JobRole role) {
  switch (role) {
    case JobRole::kWorker:
      return "worker";
    case JobRole::kServer:
      return "server";
    case JobRole::kCoordinator:
      return "coordinator";
  }
  return "unknown";
}

}  // namespace trireme
