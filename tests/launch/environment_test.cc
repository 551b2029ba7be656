// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::HasSubstr;

using Variables = std::map<std::string, std::string, std::less<>>;

LaunchInfo read(const Variables& variables) {
  return launch_info([&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

Variables with(Variables base, const Variables& changes) {
  for (const auto& [name, value] : changes) base.insert_or_assign(name, value);
  return base;
}

Variables without(Variables base, const std::vector<std::string>& names) {
  for (const std::string& name : names) base.erase(name);
  return base;
}

// Every word must be in the message.
void expect_refused(const Variables& variables, const std::vector<std::string>& words) {
  try {
    read(variables);
    ADD_FAILURE() << "accepted; expected an error with: " << words.front();
  } catch (const ConfigError& error) {
    for (const std::string& word : words) EXPECT_THAT(error.what(), HasSubstr(word));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

const Variables kOurs = {
    {"TRIREME_RANK", "2"},        {"TRIREME_WORLD_SIZE", "5"},      {"TRIREME_LOCAL_RANK", "2"},
    {"TRIREME_LOCAL_SIZE", "5"},  {"TRIREME_ADDRESS", "127.0.0.1"}, {"TRIREME_PORT", "40001"},
    {"TRIREME_SECRET", "c0ffee"}, {"TRIREME_LAUNCHER_PID", "77"}};

const Variables kOurServer = {
    {"TRIREME_ROLE", "server"},    {"TRIREME_PS_COORDINATOR", "127.0.0.1:40007"},
    {"TRIREME_PS_SERVERS", "3"},   {"TRIREME_PS_WORKERS", "5"},
    {"TRIREME_PS_INDEX", "2"},     {"TRIREME_SECRET", "c0ffee"},
    {"TRIREME_LAUNCHER_PID", "77"}};
const Variables kJobWithServers = {{"TRIREME_PS_COORDINATOR", "127.0.0.1:40007"},
                                   {"TRIREME_PS_SERVERS", "3"},
                                   {"TRIREME_PS_WORKERS", "5"}};

// Seen from torchrun of PyTorch 1.13, --standalone --nproc_per_node=2.
const Variables kTorchrunStandalone = {{"GROUP_RANK", "0"},
                                       {"GROUP_WORLD_SIZE", "1"},
                                       {"LOCAL_RANK", "1"},
                                       {"LOCAL_WORLD_SIZE", "2"},
                                       {"MASTER_ADDR", "localhost"},
                                       {"MASTER_PORT", "60983"},
                                       {"OMP_NUM_THREADS", "1"},
                                       {"RANK", "1"},
                                       {"ROLE_NAME", "default"},
                                       {"ROLE_RANK", "1"},
                                       {"ROLE_WORLD_SIZE", "2"},
                                       {"TORCHELASTIC_MAX_RESTARTS", "0"},
                                       {"TORCHELASTIC_RESTART_COUNT", "0"},
                                       {"TORCHELASTIC_RUN_ID", "2d9c0b23-6050-4d4f-85f6"},
                                       {"TORCHELASTIC_USE_AGENT_STORE", "False"},
                                       {"WORLD_SIZE", "2"}};

const Variables kTorchrunTwoHosts = {{"RANK", "6"},
                                     {"WORLD_SIZE", "7"},
                                     {"LOCAL_RANK", "2"},
                                     {"LOCAL_WORLD_SIZE", "3"},
                                     {"MASTER_ADDR", "gpu-a.example"},
                                     {"MASTER_PORT", "29400"}};

// Seen from mpirun of Open MPI 4.1.4, -n 2 on one host; rank 1.
const Variables kOpenMpiOneHost = {{"OMPI_APP_CTX_NUM_PROCS", "2"},
                                   {"OMPI_COMMAND", "env"},
                                   {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                   {"OMPI_COMM_WORLD_NODE_RANK", "1"},
                                   {"OMPI_COMM_WORLD_RANK", "1"},
                                   {"OMPI_COMM_WORLD_SIZE", "2"},
                                   {"OMPI_MCA_ess_base_jobid", "1357578241"},
                                   {"OMPI_MCA_orte_num_nodes", "1"},
                                   {"OMPI_UNIVERSE_SIZE", "2"},
                                   {"PMIX_ID", "1357578241.1"},
                                   {"PMIX_NAMESPACE", "1357578241"},
                                   {"PMIX_RANK", "1"},
                                   {"PMIX_VERSION", "4.2.2rc2"}};

const Variables kOpenMpiTwoHosts =
    with(kOpenMpiOneHost, {{"OMPI_COMM_WORLD_RANK", "4"}, {"OMPI_COMM_WORLD_SIZE", "5"}});

// mpiexec -n 2 of MPICH 4.0.2, the second rank.
const Variables kMpichOneHost = {{"MPI_LOCALNRANKS", "2"},
                                 {"MPI_LOCALRANKID", "1"},
                                 {"PMI_FD", "8"},
                                 {"PMI_RANK", "1"},
                                 {"PMI_SIZE", "2"}};

// A step of srun on three nodes, 2 + 2 + 1 tasks; the last of them.
const Variables kSlurmStep = {{"SLURM_JOB_ID", "200505"},
                              {"SLURM_STEP_ID", "3"},
                              {"SLURM_PROCID", "4"},
                              {"SLURM_LOCALID", "0"},
                              {"SLURM_NODEID", "2"},
                              {"SLURM_NTASKS", "5"},
                              {"SLURM_STEP_NUM_TASKS", "5"},
                              {"SLURM_TASKS_PER_NODE", "2(x2),1"},
                              {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"},
                              {"SLURM_STEP_NODELIST", "node[003-004,7]"},
                              {"SLURM_JOB_NODELIST", "node[001-007]"}};

TEST(Environment, NothingLaunchedUs) {
  const LaunchInfo info = read({{"PATH", "/bin"}, {"MASTER_ADDR", "stale"}, {"LOCAL_RANK", "3"}});
  EXPECT_EQ(info.launcher, Launcher::kNone);
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.size, 1);
  EXPECT_EQ(info.local_rank, 0);
  EXPECT_EQ(info.local_size, 1);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_EQ(info.listen_fd, -1);
  EXPECT_EQ(info.secret, "");
}

TEST(Environment, OurLauncher) {
  LaunchInfo info = read(kOurs);
  EXPECT_EQ(info.launcher, Launcher::kTrireme);
  EXPECT_EQ(info.rank, 2);
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_rank, 2);
  EXPECT_EQ(info.local_size, 5);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_EQ(info.port, 40001);
  EXPECT_EQ(info.listen_fd, -1);
  EXPECT_EQ(info.secret, "c0ffee");

  info = read(with(
      kOurs, {{"TRIREME_RANK", "0"}, {"TRIREME_LOCAL_RANK", "0"}, {"TRIREME_LISTEN_FD", "9"}}));
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.listen_fd, 9);
}

TEST(Environment, OurLauncherRefuses) {
  for (const auto& [name, value] : kOurs) {
    if (name == "TRIREME_RANK" || name == "TRIREME_LAUNCHER_PID") continue;
    if (name == "TRIREME_SECRET") continue;
    expect_refused(without(kOurs, {name}), {name, "not set"});
  }
  expect_refused(with(kOurs, {{"TRIREME_RANK", "5"}}), {"TRIREME_RANK=5", "TRIREME_WORLD_SIZE=5"});
  expect_refused(with(kOurs, {{"TRIREME_LOCAL_RANK", "5"}}), {"TRIREME_LOCAL_RANK=5"});
  expect_refused(with(kOurs, {{"TRIREME_LOCAL_SIZE", "6"}}),
                 {"TRIREME_LOCAL_SIZE=6", "TRIREME_WORLD_SIZE=5"});
  expect_refused(with(kOurs, {{"TRIREME_LISTEN_FD", "9"}}), {"TRIREME_LISTEN_FD=9", "RANK=2"});
  const Variables far = with(kOurs, {{"TRIREME_ADDRESS", "host0"}});
  EXPECT_EQ(read(far).address, "host0");
  expect_refused(with(far, {{"TRIREME_SECRET", ""}}), {"TRIREME_SECRET"});
  expect_refused(without(far, {"TRIREME_SECRET"}), {"TRIREME_SECRET", "not set"});
}

TEST(Environment, OurLaunchersOfOneMachineNeedNoSecret) {
  EXPECT_EQ(read(without(kOurs, {"TRIREME_SECRET"})).secret, "");
  EXPECT_EQ(read(with(kOurs, {{"TRIREME_SECRET", ""}})).secret, "");
}

TEST(Environment, AWorkerWithServers) {
  EXPECT_FALSE(read(kOurs).parameter_servers);
  LaunchInfo info = read(with(kOurs, kJobWithServers));
  EXPECT_EQ(info.role, JobRole::kWorker);
  EXPECT_EQ(info.rank, 2);
  ASSERT_TRUE(info.parameter_servers);
  EXPECT_EQ(info.parameter_servers->address, "127.0.0.1");
  EXPECT_EQ(info.parameter_servers->port, 40007);
  EXPECT_EQ(info.parameter_servers->servers, 3);
  EXPECT_EQ(info.parameter_servers->workers, 5);
  EXPECT_EQ(info.parameter_servers->index, -1);
  EXPECT_EQ(info.parameter_servers->restart, 0);

  info = read(
      with(with(kOurs, kJobWithServers), {{"TRIREME_ROLE", "worker"}, {"TRIREME_RESTART", "4"}}));
  EXPECT_EQ(info.rank, 2);
  EXPECT_EQ(info.parameter_servers->restart, 4);
}

// Servers that somebody started by hand, say.
TEST(Environment, AnybodysWorkerWithServers) {
  const LaunchInfo info =
      read(with(with(kTorchrunStandalone, kJobWithServers), {{"TRIREME_PS_WORKERS", "2"}}));
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.rank, 1);
  ASSERT_TRUE(info.parameter_servers);
  EXPECT_EQ(info.parameter_servers->workers, 2);
  EXPECT_EQ(info.parameter_servers->servers, 3);
}

TEST(Environment, AServer) {
  LaunchInfo info = read(kOurServer);
  EXPECT_EQ(info.launcher, Launcher::kTrireme);
  EXPECT_EQ(info.role, JobRole::kServer);
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.size, 1);
  EXPECT_EQ(info.listen_fd, -1);
  EXPECT_EQ(info.secret, "c0ffee");
  ASSERT_TRUE(info.parameter_servers);
  EXPECT_EQ(info.parameter_servers->index, 2);
  EXPECT_EQ(info.parameter_servers->servers, 3);
  EXPECT_EQ(info.parameter_servers->workers, 5);
  EXPECT_EQ(info.parameter_servers->restart, 0);
  info = read(with(kOurServer,
                   {{"TRIREME_RESTART", "1"}, {"TRIREME_PS_COORDINATOR", "[2001:db8::1]:29502"}}));
  EXPECT_EQ(info.parameter_servers->restart, 1);
  EXPECT_EQ(info.parameter_servers->address, "2001:db8::1");
  EXPECT_EQ(info.parameter_servers->port, 29502);
}

TEST(Environment, TheCoordinator) {
  const Variables coordinator = without(kOurServer, {"TRIREME_PS_INDEX"});
  const LaunchInfo info =
      read(with(coordinator, {{"TRIREME_ROLE", "coordinator"}, {"TRIREME_LISTEN_FD", "4"}}));
  EXPECT_EQ(info.launcher, Launcher::kTrireme);
  EXPECT_EQ(info.role, JobRole::kCoordinator);
  EXPECT_EQ(info.listen_fd, 4);
  ASSERT_TRUE(info.parameter_servers);
  EXPECT_EQ(info.parameter_servers->port, 40007);
  EXPECT_EQ(info.parameter_servers->index, -1);
}

TEST(Environment, RolesThatAreRefused) {
  expect_refused(with(kOurServer, {{"TRIREME_ROLE", "Server"}}),
                 {"TRIREME_ROLE=Server", "worker", "coordinator"});
  expect_refused(with(kOurs, {{"TRIREME_ROLE", ""}}), {"TRIREME_ROLE="});
  for (const char* name :
       {"TRIREME_PS_COORDINATOR", "TRIREME_PS_SERVERS", "TRIREME_PS_WORKERS", "TRIREME_PS_INDEX"}) {
    expect_refused(without(kOurServer, {name}), {name, "not set"});
  }
  for (const char* name : {"TRIREME_PS_SERVERS", "TRIREME_PS_WORKERS", "TRIREME_PS_INDEX",
                           "TRIREME_RESTART", "TRIREME_LISTEN_FD"}) {
    expect_refused(with(kOurServer, {{name, "-1"}}), {std::string(name) + "=-1"});
  }
  expect_refused(with(kOurServer, {{"TRIREME_PS_SERVERS", "0"}}), {"TRIREME_PS_SERVERS=0"});
  expect_refused(with(kOurServer, {{"TRIREME_PS_INDEX", "3"}}),
                 {"TRIREME_PS_INDEX=3", "TRIREME_PS_SERVERS=3"});
  expect_refused(with(kOurServer, {{"TRIREME_PS_COORDINATOR", "host0"}}),
                 {"TRIREME_PS_COORDINATOR=host0", "host:port"});
  expect_refused(with(kOurServer, {{"TRIREME_LISTEN_FD", "4"}}),
                 {"TRIREME_LISTEN_FD=4", "coordinator", "TRIREME_ROLE=server"});
  const Variables far = with(kOurServer, {{"TRIREME_PS_COORDINATOR", "host0:29502"}});
  expect_refused(without(far, {"TRIREME_SECRET"}), {"TRIREME_SECRET", "not set"});
  expect_refused(with(with(kOurs, kJobWithServers), {{"TRIREME_PS_WORKERS", "4"}}),
                 {"TRIREME_PS_WORKERS=4", "5 ranks"});
  expect_refused(without(with(kOurs, kJobWithServers), {"TRIREME_PS_SERVERS"}),
                 {"TRIREME_PS_SERVERS", "not set"});
}

TEST(Environment, NumbersAreStrict) {
  for (const char* value : {"", " 1", "1 ", "+1", "-1", "1.0", "0x1", "one", "1e0", "2147483648",
                            "99999999999999999999"}) {
    expect_refused(with(kOurs, {{"TRIREME_RANK", value}}), {"TRIREME_RANK=" + std::string(value)});
  }
  for (const char* port : {"0", "65536", "-5", "http"}) {
    expect_refused(with(kOurs, {{"TRIREME_PORT", port}}), {"TRIREME_PORT=" + std::string(port)});
  }
  EXPECT_EQ(read(with(kOurs, {{"TRIREME_PORT", "65535"}})).port, 65535);
}

TEST(Environment, TorchrunOnOneHost) {
  const LaunchInfo info = read(kTorchrunStandalone);
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.size, 2);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 2);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_EQ(info.port, 60983);
}

// With a static rendezvous torchrun's agent listens at MASTER_PORT itself.
TEST(Environment, TorchrunWithItsAgentOnThePort) {
  Variables agent = with(kTorchrunStandalone,
                         {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"MASTER_PORT", "29611"}});
  EXPECT_EQ(read(agent).port, 29612);
  agent["MASTER_PORT"] = "65535";
  EXPECT_EQ(read(agent).port, 65534);
}

TEST(Environment, TorchrunOnSeveralHosts) {
  const LaunchInfo info = read(with(kTorchrunTwoHosts, {{"TRIREME_SECRET", "s3"}}));
  EXPECT_EQ(info.rank, 6);
  EXPECT_EQ(info.size, 7);
  EXPECT_EQ(info.local_rank, 2);
  EXPECT_EQ(info.local_size, 3);
  EXPECT_EQ(info.address, "gpu-a.example");
  EXPECT_EQ(info.port, 29400);
  EXPECT_EQ(info.secret, "s3");
}

// Kubernetes' PyTorchJob gives no local rank: one rank per pod.
TEST(Environment, OneRankPerPod) {
  const LaunchInfo info = read({{"RANK", "3"},
                                {"WORLD_SIZE", "5"},
                                {"MASTER_ADDR", "job-master-0"},
                                {"MASTER_PORT", "23456"}});
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_rank, 0);
  EXPECT_EQ(info.local_size, 1);
  EXPECT_EQ(info.address, "job-master-0");
  EXPECT_EQ(info.port, 23456);
}

TEST(Environment, TorchrunOfOneNeedsNoMaster) {
  const LaunchInfo info = read({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.size, 1);
}

TEST(Environment, TorchrunRefuses) {
  expect_refused({{"RANK", "0"}}, {"WORLD_SIZE", "not set", "unset both"});
  expect_refused({{"WORLD_SIZE", "2"}}, {"RANK", "not set", "unset both"});
  expect_refused(with(kTorchrunTwoHosts, {{"RANK", "7"}}), {"RANK=7", "WORLD_SIZE=7"});
  expect_refused(with(kTorchrunTwoHosts, {{"LOCAL_RANK", "3"}}),
                 {"LOCAL_RANK=3", "LOCAL_WORLD_SIZE=3"});
  expect_refused(with(kTorchrunTwoHosts, {{"LOCAL_WORLD_SIZE", "8"}}),
                 {"LOCAL_WORLD_SIZE=8", "WORLD_SIZE=7"});
  expect_refused(with(kTorchrunTwoHosts, {{"WORLD_SIZE", "seven"}}), {"WORLD_SIZE=seven"});
  for (const char* name : {"LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    expect_refused(without(kTorchrunTwoHosts, {name}), {std::string(name) + " is not set"});
  }
}

TEST(Environment, OpenMpiOnOneHost) {
  const LaunchInfo info = read(kOpenMpiOneHost);
  EXPECT_EQ(info.launcher, Launcher::kOpenMpi);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.size, 2);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 2);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_GE(info.port, 10000);
  EXPECT_LT(info.port, 30000);

  const Variables other_rank = with(kOpenMpiOneHost, {{"OMPI_COMM_WORLD_RANK", "0"},
                                                      {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                                                      {"PMIX_RANK", "0"},
                                                      {"PMIX_ID", "1357578241.0"}});
  EXPECT_EQ(read(other_rank).port, info.port);
  // Open MPI 5 names its jobs with words.
  const Variables other_job = with(kOpenMpiOneHost, {{"PMIX_NAMESPACE", "prterun-host-4242@1"}});
  EXPECT_NE(read(other_job).port, info.port);
  EXPECT_EQ(read(with(kOpenMpiOneHost, {{"MASTER_PORT", "4321"}})).port, 4321);
}

TEST(Environment, OpenMpiOnSeveralHosts) {
  expect_refused(kOpenMpiTwoHosts, {"MASTER_ADDR is not set", "mpirun -x MASTER_ADDR"});
  const LaunchInfo info = read(with(kOpenMpiTwoHosts, {{"MASTER_ADDR", "10.0.0.9"}}));
  EXPECT_EQ(info.address, "10.0.0.9");
  EXPECT_EQ(info.rank, 4);
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_size, 2);
}

TEST(Environment, OpenMpiRefuses) {
  expect_refused(with(kOpenMpiOneHost, {{"OMPI_COMM_WORLD_RANK", "2"}}),
                 {"OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=2"});
  expect_refused(without(kOpenMpiOneHost, {"OMPI_COMM_WORLD_LOCAL_SIZE"}),
                 {"OMPI_COMM_WORLD_LOCAL_SIZE is not set"});
  expect_refused(without(kOpenMpiOneHost, {"PMIX_NAMESPACE"}), {"PMIX_NAMESPACE", "MASTER_PORT"});
}

TEST(Environment, Mpich) {
  expect_refused(kMpichOneHost, {"MASTER_PORT is not set", "mpiexec -genv MASTER_PORT"});
  const Variables with_port = with(kMpichOneHost, {{"MASTER_PORT", "4321"}});
  const LaunchInfo info = read(with_port);
  EXPECT_EQ(info.launcher, Launcher::kMpich);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.size, 2);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 2);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_EQ(info.port, 4321);

  const Variables two_hosts = with(with_port, {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}});
  expect_refused(two_hosts, {"MASTER_ADDR is not set", "mpiexec -genv MASTER_ADDR"});
  EXPECT_EQ(read(with(two_hosts, {{"MASTER_ADDR", "10.0.0.9"}})).address, "10.0.0.9");
  expect_refused(with(with_port, {{"PMI_RANK", "2"}}), {"PMI_RANK=2", "PMI_SIZE=2"});
  // One rank needs no port; srun with PMI2 is Slurm's.
  EXPECT_EQ(read({{"PMI_RANK", "0"},
                  {"PMI_SIZE", "1"},
                  {"MPI_LOCALRANKID", "0"},
                  {"MPI_LOCALNRANKS", "1"}})
                .size,
            1);
  EXPECT_EQ(read(with(kSlurmStep, {{"PMI_RANK", "4"}, {"PMI_SIZE", "5"}})).launcher,
            Launcher::kSlurm);
}

TEST(Environment, SlurmStep) {
  const LaunchInfo info = read(kSlurmStep);
  EXPECT_EQ(info.launcher, Launcher::kSlurm);
  EXPECT_EQ(info.rank, 4);
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_rank, 0);
  EXPECT_EQ(info.local_size, 1);
  EXPECT_EQ(info.address, "node003");
  EXPECT_GE(info.port, 10000);
  EXPECT_LT(info.port, 30000);

  const LaunchInfo other = read(
      with(kSlurmStep, {{"SLURM_PROCID", "3"}, {"SLURM_LOCALID", "1"}, {"SLURM_NODEID", "1"}}));
  EXPECT_EQ(other.rank, 3);
  EXPECT_EQ(other.local_rank, 1);
  EXPECT_EQ(other.local_size, 2);
  EXPECT_EQ(other.address, info.address);
  EXPECT_EQ(other.port, info.port);
}

TEST(Environment, SlurmPortsDifferByJobAndStep) {
  const int port = read(kSlurmStep).port;
  EXPECT_NE(read(with(kSlurmStep, {{"SLURM_JOB_ID", "200506"}})).port, port);
  EXPECT_NE(read(with(kSlurmStep, {{"SLURM_STEP_ID", "4"}})).port, port);
  EXPECT_EQ(read(with(kSlurmStep, {{"MASTER_PORT", "1234"}})).port, 1234);
}

TEST(Environment, SlurmTakesAnExportedMaster) {
  EXPECT_EQ(read(with(kSlurmStep, {{"MASTER_ADDR", "ib-node003"}})).address, "ib-node003");
  EXPECT_EQ(read(with(kSlurmStep, {{"MASTER_ADDR", ""}})).address, "node003");
}

TEST(Environment, SlurmOnOneNodeMeetsOnLoopback) {
  const LaunchInfo info = read({{"SLURM_JOB_ID", "9"},
                                {"SLURM_PROCID", "1"},
                                {"SLURM_LOCALID", "1"},
                                {"SLURM_STEP_NUM_TASKS", "3"},
                                {"SLURM_STEP_TASKS_PER_NODE", "3"},
                                {"SLURM_STEP_NODELIST", "node7"}});
  EXPECT_EQ(info.launcher, Launcher::kSlurm);
  EXPECT_EQ(info.address, "127.0.0.1");
  EXPECT_EQ(info.local_size, 3);
}

// srun with --preserve-env leaves the job's numbers in the variables without STEP.
TEST(Environment, SlurmPrefersTheStep) {
  const LaunchInfo info =
      read(with(kSlurmStep, {{"SLURM_NTASKS", "28"}, {"SLURM_TASKS_PER_NODE", "4(x7)"}}));
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_size, 1);
}

TEST(Environment, SlurmWithoutTaskListUsesTasksPerNode) {
  Variables step = without(kSlurmStep, {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"});
  expect_refused(step, {"SLURM_NTASKS_PER_NODE", "not known"});
  step["SLURM_NTASKS_PER_NODE"] = "2";
  EXPECT_EQ(read(step).local_size, 2);
}

TEST(Environment, SlurmShellsAndBatchScriptsAreNoRanks) {
  const Variables salloc = {{"SLURM_JOB_ID", "7"},
                            {"SLURM_NTASKS", "4"},
                            {"SLURM_JOB_NODELIST", "n[1-2]"},
                            {"SLURM_TASKS_PER_NODE", "2(x2)"}};
  EXPECT_EQ(read(salloc).launcher, Launcher::kNone);
  const Variables batch =
      with(salloc, {{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "0"}});
  EXPECT_EQ(read(batch).launcher, Launcher::kNone);
  // srun --pty bash: a step of one task.
  const Variables shell =
      with(batch,
           {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_STEP_NODELIST", "n1"}, {"SLURM_STEP_ID", "0"}});
  EXPECT_EQ(read(shell).launcher, Launcher::kNone);
  EXPECT_EQ(read(shell).size, 1);
}

TEST(Environment, SlurmRefuses) {
  expect_refused(with(kSlurmStep, {{"SLURM_PROCID", "5"}}),
                 {"SLURM_PROCID=5", "SLURM_STEP_NUM_TASKS=5"});
  expect_refused(with(kSlurmStep, {{"SLURM_PROCID", "x"}}), {"SLURM_PROCID=x"});
  expect_refused(with(kSlurmStep, {{"SLURM_LOCALID", "1"}}), {"SLURM_LOCALID=1"});
  expect_refused(with(kSlurmStep, {{"SLURM_NODEID", "3"}}), {"SLURM_NODEID=3", "3 nodes"});
  expect_refused(with(kSlurmStep, {{"SLURM_STEP_TASKS_PER_NODE", "2(x3)"}}),
                 {"SLURM_STEP_TASKS_PER_NODE=2(x3)", "6 tasks", "5"});
  expect_refused(with(kSlurmStep, {{"SLURM_STEP_TASKS_PER_NODE", "two"}}),
                 {"SLURM_STEP_TASKS_PER_NODE=two"});
  expect_refused(with(kSlurmStep, {{"SLURM_STEP_NODELIST", "node[1"}}),
                 {"SLURM_STEP_NODELIST=node[1"});
  for (const char* name : {"SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID"}) {
    expect_refused(without(kSlurmStep, {name}), {std::string(name) + " is not set"});
  }
  expect_refused(without(kSlurmStep, {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}),
                 {"SLURM_NTASKS is not set"});
}

TEST(Environment, Precedence) {
  Variables all = kSlurmStep;
  EXPECT_EQ(read(all).launcher, Launcher::kSlurm);
  // mpirun inside a Slurm job: its daemon on this node is the task of srun, not we.
  all.insert(kOpenMpiOneHost.begin(), kOpenMpiOneHost.end());
  EXPECT_EQ(read(all).launcher, Launcher::kOpenMpi);
  EXPECT_EQ(read(all).rank, 1);
  all.insert(kTorchrunTwoHosts.begin(), kTorchrunTwoHosts.end());
  EXPECT_EQ(read(all).launcher, Launcher::kTorchrun);
  EXPECT_EQ(read(all).rank, 6);
  all.insert(kOurs.begin(), kOurs.end());
  EXPECT_EQ(read(all).launcher, Launcher::kTrireme);
  EXPECT_EQ(read(all).rank, 2);
}

TEST(Environment, ReadsTheProcess) {
  EXPECT_EQ(environment_variable("TRIREME_NEVER_SET_ANYWHERE"), std::nullopt);
  ASSERT_EQ(setenv("TRIREME_TEST_VALUE", "", 1), 0);
  EXPECT_EQ(environment_variable("TRIREME_TEST_VALUE"), "");
  ASSERT_EQ(unsetenv("TRIREME_TEST_VALUE"), 0);
}

TEST(Environment, LaunchersHaveNames) {
  EXPECT_EQ(launcher_name(Launcher::kNone), "none");
  EXPECT_EQ(launcher_name(Launcher::kTrireme), "trireme");
  EXPECT_EQ(launcher_name(Launcher::kTorchrun), "torchrun");
  EXPECT_EQ(launcher_name(Launcher::kSlurm), "Slurm");
  EXPECT_EQ(launcher_name(Launcher::kOpenMpi), "OpenMPI");
  EXPECT_EQ(launcher_name(Launcher::kMpich), "MPICH");
}

}  // namespace
}  // namespace trireme
