// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/job_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include "trireme/comm/meeting/socket.h"

namespace trireme::detail {
namespace {

constexpr int kHighestPort = 65535;

class Table {
 public:
  Table(const LocalWorkersOptions& options, const JobShare& share, const JobEndpoints& endpoints)
      : options_(options), share_(share), endpoints_(endpoints) {}

  std::vector<JobProcess> all() const;

 private:
  JobProcess coordinator() const;
  JobProcess server(int local_index) const;
  JobProcess worker(int local_rank) const;
  void tell_job(JobProcess& process) const;

  const LocalWorkersOptions& options_;
  const JobShare& share_;
  const JobEndpoints& endpoints_;
};

std::vector<JobProcess> Table::all() const {
  std::vector<JobProcess> processes;
  if (options_.parameter_servers) {
    if (share_.node == 0) processes.push_back(coordinator());
    for (int i = 0; i < options_.parameter_servers->servers; ++i) processes.push_back(server(i));
  }
  for (int i = 0; i < options_.workers; ++i) processes.push_back(worker(i));
  for (JobProcess& process : processes) tell_job(process);
  return processes;
}

JobProcess Table::coordinator() const {
  JobProcess process;
  process.role = JobRole::kCoordinator;
  process.name = "coordinator";
  process.prefix = "[coordinator] ";
  process.log_name = "coordinator";
  process.command = options_.parameter_servers->coordinator_command;
  process.listens = endpoints_.coordinator;
  process.death_ends_job = true;
  return process;
}

JobProcess Table::server(int local_index) const {
  JobProcess process;
  process.role = JobRole::kServer;
  process.number = share_.node * options_.parameter_servers->servers + local_index;
  process.name = fmt::format("server {}", process.number);
  process.prefix = fmt::format("[server {}] ", process.number);
  process.log_name = fmt::format("server-{}", process.number);
  process.command = options_.parameter_servers->server_command;
  process.restarts = options_.parameter_servers->restarts;
  process.environment = {{"TRIREME_PS_INDEX", std::to_string(process.number)}};
  return process;
}

JobProcess Table::worker(int local_rank) const {
  JobProcess process;
  process.number = share_.first_rank + local_rank;
  const std::string rank = std::to_string(process.number);
  const std::string size = std::to_string(share_.world_size);
  const std::string local = std::to_string(local_rank);
  const std::string local_size = std::to_string(options_.workers);
  process.name = "worker " + rank;
  process.prefix = fmt::format("[{}] ", rank);
  process.log_name = "rank-" + rank;
  process.command = options_.command;
  process.death_ends_job = !options_.parameter_servers;
  if (options_.parameter_servers) process.restarts = options_.parameter_servers->restarts;
  process.environment = {{"TRIREME_RANK", rank},
                         {"TRIREME_WORLD_SIZE", size},
                         {"TRIREME_LOCAL_RANK", local},
                         {"TRIREME_LOCAL_SIZE", local_size},
                         {"TRIREME_ADDRESS", endpoints_.rendezvous.address},
                         {"TRIREME_PORT", std::to_string(endpoints_.rendezvous.port)},
                         {"RANK", rank},
                         {"WORLD_SIZE", size},
                         {"LOCAL_RANK", local},
                         {"LOCAL_WORLD_SIZE", local_size},
                         {"MASTER_ADDR", endpoints_.rendezvous.address},
                         {"MASTER_PORT", std::to_string(endpoints_.torch_port)}};
  if (process.number == 0) process.listens = endpoints_.rendezvous;
  return process;
}

void Table::tell_job(JobProcess& process) const {
  process.environment.emplace_back("TRIREME_SECRET", share_.secret);
  process.environment.emplace_back("TRIREME_LAUNCHER_PID", std::to_string(getpid()));
  if (!options_.parameter_servers) return;
  const Endpoint& coordinator = *endpoints_.coordinator;
  const int servers = options_.parameter_servers->servers * share_.nodes;
  process.environment.emplace_back("TRIREME_ROLE", role_name(process.role));
  process.environment.emplace_back("TRIREME_PS_COORDINATOR",
                                   endpoint_text(coordinator.address, coordinator.port));
  process.environment.emplace_back("TRIREME_PS_SERVERS", std::to_string(servers));
  process.environment.emplace_back("TRIREME_PS_WORKERS", std::to_string(share_.world_size));
}

}  // namespace

int port_beside(int port, int distance) {
  return port + distance <= kHighestPort ? port + distance : port - distance;
}

std::vector<JobProcess> job_processes(const LocalWorkersOptions& options, const JobShare& share,
                                      const JobEndpoints& endpoints) {
  return Table(options, share, endpoints).all();
}

}  // namespace trireme::detail
