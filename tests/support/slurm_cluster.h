// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A real Slurm of one node for one test: munged, slurmctld and slurmd on loopback, by the user who
// runs the test, with files in a temporary folder.
//
//   SlurmCluster slurm;
//   if (!slurm.unavailable().empty()) GTEST_SKIP() << slurm.unavailable();
//   const ProgramResult result = slurm.run({"srun", "-n", "3", program});
//
// The destructor ends the daemons and whatever jobs have left behind. Until then this process is
// the one to which Slurm's orphans fall; the daemons die with it, however it ends. Needs Debian's
// slurm-wlm and munge, none of whose own services have to run.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/launch/launch_request.h"

namespace trireme::testing {

// Used by one thread.
class SlurmCluster {
 public:
  // Blocks until the node is idle. Throws runtime_error with what the daemons said when it is not
  // soon.
  SlurmCluster() {
    try {
      for (const char* name :
           {"munged", "slurmctld", "slurmd", "sinfo", "srun", "salloc", "sbatch"})
        program(name);
    } catch (const ConfigError& error) {
      unavailable_ = std::string("no Slurm (slurm-wlm, munge): ") + error.what();
      return;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    // Another program may take a port between its choice and its use.
    constexpr int kAttempts = 3;
    for (int attempt = 1; !start(); ++attempt) {
      const std::string said = log();
      stop();
      if (attempt == kAttempts) throw std::runtime_error("Slurm does not start:\n" + said);
    }
  }
  SlurmCluster(const SlurmCluster&) = delete;
  SlurmCluster& operator=(const SlurmCluster&) = delete;
  ~SlurmCluster() {
    stop();
    prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  // Why there is no Slurm; empty when there is.
  const std::string& unavailable() const { return unavailable_; }

  // A command of Slurm's, found on the search path, with the configuration of this cluster.
  ProgramResult run(std::vector<std::string> command) const {
    command.front() = program(command.front());
    return run_program(command, kPatience, environment());
  }

  // What the daemons have said so far.
  std::string log() const {
    std::string text;
    for (const char* name : {"munged", "slurmctld", "slurmd"}) {
      std::ifstream file(path(name) + ".log");
      text += fmt::format("== {}\n", name);
      text.append(std::istreambuf_iterator<char>(file), {});
    }
    return text;
  }

 private:
  static constexpr std::chrono::seconds kPatience{60};

  std::string path(const std::string& name) const { return folder_ / name; }

  // Daemons are where users have no search path.
  static std::string program(const std::string& name) {
    const char* path = std::getenv("PATH");
    return find_program(name, std::string(path != nullptr ? path : "") + ":/usr/sbin:/usr/bin");
  }

  Program::Environment environment() const { return {{"SLURM_CONF", path("slurm.conf")}}; }

  // False when a daemon ends or the node does not become idle.
  bool start() {
    for (const char* name : {"state", "spool"}) std::filesystem::create_directories(path(name));
    write_text(path("key"), std::string(1024, 'k'));  // guards nothing beyond this folder
    std::filesystem::permissions(
        path("key"), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    write_text(path("slurm.conf"), configuration());
    const Deadline deadline = Deadline::after(kPatience);
    const std::string socket = path("munge.socket");
    start_daemon({"munged", "--foreground", "--force", "--socket=" + socket,
                  "--key-file=" + path("key"), "--pid-file=" + path("munged.pid"),
                  "--log-file=" + path("munged.own.log"), "--seed-file=" + path("seed")});
    if (!wait([&] { return std::filesystem::exists(socket); }, deadline)) return false;
    start_daemon({"slurmctld", "-D", "-f", path("slurm.conf")});
    start_daemon({"slurmd", "-D", "-f", path("slurm.conf")});
    return wait([&] { return run({"sinfo", "--noheader", "-o", "%T"}).out == "idle\n"; }, deadline);
  }

  std::string configuration() const {
    char host[256] = "";
    gethostname(host, sizeof host);
    const std::string name = std::string(host).substr(0, std::string(host).find('.'));
    const passwd* user = getpwuid(geteuid());
    const Listener control = listen_on_free_port();
    const Listener node = listen_on_free_port();
    ::close(control.fd);
    ::close(node.fd);
    return fmt::format(
        "ClusterName=test\n"
        "SlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={control}\nSlurmdPort={node}\n"
        "SlurmUser={user}\nSlurmdUser={user}\n"
        "AuthType=auth/munge\nAuthInfo=socket={folder}/munge.socket\n"
        "StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        "SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\n"
        "MpiDefault=none\nMailProg=/bin/true\nSelectType=select/linear\n"
        // More tasks than this machine has cores.
        "SlurmdParameters=config_overrides\nNodeName={host} NodeAddr=127.0.0.1 CPUs=8\n"
        "PartitionName=all Nodes={host} Default=YES\n",
        fmt::arg("host", name), fmt::arg("control", control.port), fmt::arg("node", node.port),
        fmt::arg("user", user != nullptr ? user->pw_name : "root"),
        fmt::arg("folder", folder_.path().string()));
  }

  // Its output goes to a file of its name. It dies with this process.
  void start_daemon(std::vector<std::string> command) {
    const std::string log_path = path(command.front()) + ".log";
    command.front() = program(command.front());
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t self = getpid();
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error("no process for " + command.front());
    if (pid == 0) {
      const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
      close_range(STDERR_FILENO + 1, ~0U, 0);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() == self) execv(argv[0], argv.data());
      _exit(127);
    }
    daemons_.push_back(pid);
  }

  template <class Condition>
  bool wait(const Condition& condition, const Deadline& deadline) const {
    constexpr int kLookAgainMs = 20;
    for (; !condition(); poll(nullptr, 0, kLookAgainMs)) {
      if (deadline.expired()) return false;
      for (const pid_t daemon : daemons_) {
        siginfo_t info{};
        waitid(P_PID, static_cast<id_t>(daemon), &info, WEXITED | WNOHANG | WNOWAIT);
        if (info.si_pid != 0) return false;
      }
    }
    return true;
  }

  void stop() {
    for (; !daemons_.empty(); daemons_.pop_back()) end_daemon(daemons_.back());
    // Steps of Slurm and their tasks; each that ends may leave us its children.
    for (std::vector<pid_t> left = orphans(); !left.empty(); left = orphans()) {
      for (const pid_t pid : left) {
        ::kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
      }
    }
  }

  static void end_daemon(pid_t pid) {
    constexpr int kTimeToEndMs = 10000;
    ::kill(pid, SIGTERM);
    const FileDescriptor process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    pollfd ended{process.get(), POLLIN, 0};
    if (poll(&ended, 1, kTimeToEndMs) != 1) ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }

  // This process's children.
  static std::vector<pid_t> orphans() {
    std::ifstream file(fmt::format("/proc/self/task/{}/children", getpid()));
    std::vector<pid_t> result;
    for (pid_t pid = 0; file >> pid;) result.push_back(pid);
    return result;
  }

  TemporaryFolder folder_;
  std::string unavailable_;
  std::vector<pid_t> daemons_;
};

}  // namespace trireme::testing
