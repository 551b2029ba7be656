// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Running a program as a user does: arguments, environment, both outputs, exit status, signals.
//
//   Program program({kTrireme, "train", config, "--workers", "2"});
//   program.send(SIGINT);
//   const ProgramResult result = program.wait(std::chrono::seconds(60));
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"

namespace trireme::testing {

struct ProgramResult {
  int exit_code = -1;  // -1: ended by a signal
  int signal = 0;
  std::string out;
  std::string err;
};

// One running child. The destructor kills it if it still runs. Not thread-safe.
class Program {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  // argv[0] is a path. variables are added to this process's environment.
  explicit Program(const std::vector<std::string>& argv, const Environment& variables = {}) {
    std::array<int, 2> out{};
    std::array<int, 2> err{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) {
      throw std::runtime_error("pipe");
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    std::vector<std::string> environment = merged_environment(variables);
    const int error = ::posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr,
                                    pointers(argv).data(), pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    ::close(err[1]);
    out_fd_ = out[0];
    err_fd_ = err[0];
    if (error != 0) throw std::runtime_error("cannot start " + argv[0]);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(out_fd_);
    ::close(err_fd_);
  }

  pid_t pid() const { return pid_; }
  void send(int signal) const { ::kill(pid_, signal); }

  bool running() const {
    siginfo_t info{};
    return pid_ > 0 &&
           ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
  }

  // Its children, as the kernel lists them.
  std::vector<pid_t> children() const {
    const std::string pid = std::to_string(pid_);
    std::ifstream file("/proc/" + pid + "/task/" + pid + "/children");
    std::vector<pid_t> result;
    for (pid_t child = 0; file >> child;) result.push_back(child);
    return result;
  }

  // Collects both outputs to their ends, then the exit status. Throws when the time is over.
  ProgramResult wait(std::chrono::milliseconds timeout) {
    const Deadline deadline = Deadline::after(timeout);
    std::array<pollfd, 2> fds{pollfd{out_fd_, POLLIN, 0}, pollfd{err_fd_, POLLIN, 0}};
    std::array<std::string*, 2> texts{&result_.out, &result_.err};
    int open = 2;
    while (open > 0) {
      const int ready =
          ::poll(fds.data(), fds.size(), static_cast<int>(deadline.remaining().count()));
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0) {
        throw std::runtime_error("program did not end in time; stdout:\n" + result_.out +
                                 "\nstderr:\n" + result_.err);
      }
      for (std::size_t i = 0; i < fds.size(); ++i) open -= drain(fds[i], *texts[i]);
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result_.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return result_;
  }

 private:
  // Returns 1 when this stream ended.
  static int drain(pollfd& fd, std::string& text) {
    if (fd.fd < 0 || fd.revents == 0) return 0;
    std::array<char, 4096> chunk{};
    const ssize_t count = ::read(fd.fd, chunk.data(), chunk.size());
    if (count > 0) {
      text.append(chunk.data(), static_cast<std::size_t>(count));
      return 0;
    }
    fd.fd = -1;
    return 1;
  }
  static std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const std::string& s : strings) result.push_back(const_cast<char*>(s.c_str()));
    result.push_back(nullptr);
    return result;
  }
  static std::vector<std::string> merged_environment(const Environment& variables) {
    std::vector<std::string> result;
    for (char** e = environ; *e != nullptr; ++e) {
      const std::string entry = *e;
      bool replaced = false;
      for (const auto& [name, value] : variables) replaced |= entry.starts_with(name + "=");
      if (!replaced) result.push_back(entry);
    }
    for (const auto& [name, value] : variables) result.push_back(name + "=" + value);
    return result;
  }

  pid_t pid_ = -1;
  int out_fd_ = -1;
  int err_fd_ = -1;
  ProgramResult result_;
};

inline ProgramResult run_program(const std::vector<std::string>& argv,
                                 std::chrono::milliseconds timeout = std::chrono::seconds(120),
                                 const Program::Environment& variables = {}) {
  return Program(argv, variables).wait(timeout);
}

}  // namespace trireme::testing
