// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A launcher in a process of its own, whose workers are shell scripts that talk to the test.
//
// In each worker descriptor 9 is a pipe to the test ("echo ready >&9"), and 8 is one that ends when
// the test calls release() ("read x <&8" blocks until then). As all of them hold the first pipe,
// its end proves that no process of the job is left, grandchildren included.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "trireme/base/deadline.h"
#include "trireme/launch/local_workers.h"

namespace trireme::testing {

// Far above what any step here takes, even on a busy machine. Reaching it is a failure.
constexpr std::chrono::seconds kPatience{30};

// Waits for a process that need not be a child of ours. False when it is still there at the end.
inline bool wait_for_end(pid_t pid) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) return errno == ESRCH;
  pollfd ended{fd, POLLIN, 0};
  const int result = poll(&ended, 1, static_cast<int>(kPatience / std::chrono::milliseconds(1)));
  close(fd);
  return result == 1;
}

// Asks again and again; for what no descriptor reports. False when it has not come true.
template <class Condition>
bool wait_until(const Condition& condition) {
  for (const Deadline deadline = Deadline::after(kPatience); !condition(); poll(nullptr, 0, 1)) {
    if (deadline.expired()) return false;
  }
  return true;
}

class LauncherProcess {
 public:
  // What an exception in the launcher becomes as its exit status.
  static constexpr int kThrew = 99;

  // Every worker is `sh -c script`. prepare runs in the launcher's process before it starts.
  LauncherProcess(
      int workers, const std::string& script, LocalWorkersOptions options = {},
      const std::function<void()>& prepare = [] {}) {
    options.workers = workers;
    if (options.command.empty()) options.command = {"/bin/sh", "-c", script};
    int events[2];
    int gate[2];
    if (pipe2(events, O_CLOEXEC) != 0 || pipe2(gate, O_CLOEXEC) != 0) throw std::bad_alloc();
    std::fflush(nullptr);
    pid_ = fork();
    if (pid_ == 0) run(options, prepare, events[1], gate[0]);
    close(events[1]);
    close(gate[0]);
    events_ = events[0];
    gate_ = gate[1];
  }
  LauncherProcess(const LauncherProcess&) = delete;
  LauncherProcess& operator=(const LauncherProcess&) = delete;
  ~LauncherProcess() {
    release();
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(events_);
  }

  pid_t pid() const { return pid_; }
  void send(int signal) const { kill(pid_, signal); }
  void release() {
    if (gate_ >= 0) close(std::exchange(gate_, -1));
  }

  // The next n lines of the workers, in the order in which they came; fewer after a failure.
  std::vector<std::string> lines(std::size_t n) {
    std::vector<std::string> result;
    while (result.size() < n) {
      if (const std::size_t end = pending_.find('\n'); end != std::string::npos) {
        result.push_back(pending_.substr(0, end));
        pending_.erase(0, end + 1);
      } else if (!read_more()) {
        ADD_FAILURE() << "got " << result.size() << " lines of " << n << "\n" << log();
        break;
      }
    }
    return result;
  }

  // What the workers still say until all of them, and what they started, are gone.
  std::string rest() {
    while (read_more()) {
    }
    EXPECT_TRUE(ended_) << "a process of the job still runs\n" << log();
    return std::exchange(pending_, "");
  }

  // Exit status of the launcher, or minus the signal that ended it.
  int wait() {
    EXPECT_TRUE(wait_for_end(pid_)) << "the launcher still runs\n" << log();
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string log() const {
    std::ifstream file(log_path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // For files of the workers; they find it in $FOLDER.
  std::string folder() const { return folder_.path().string(); }

 private:
  std::string log_path() const { return folder() + "/log"; }

  [[noreturn]] void run(const LocalWorkersOptions& options, const std::function<void()>& prepare,
                        int events, int gate) {
    // Out of the way of the numbers that follow.
    events = fcntl(events, F_DUPFD_CLOEXEC, 20);
    gate = fcntl(gate, F_DUPFD_CLOEXEC, 20);
    dup2(open(log_path().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), STDERR_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    for (int fd = 3; fd < 20; ++fd) close(fd);
    dup2(events, 9);
    dup2(gate, 8);
    dup2(gate, STDIN_FILENO);  // anything but /dev/null
    close_range(20, ~0U, 0);
    setenv("FOLDER", folder().c_str(), 1);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
    int status = kThrew;
    try {
      prepare();
      status = run_local_workers(options);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(status);
  }

  bool read_more() {
    pollfd ready{events_, POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(kPatience / std::chrono::milliseconds(1))) != 1) {
      return false;
    }
    char bytes[4096];
    const ssize_t got = read(events_, bytes, sizeof bytes);
    if (got > 0) pending_.append(bytes, static_cast<std::size_t>(got));
    ended_ = got == 0;
    return got > 0;
  }

  TemporaryFolder folder_;
  pid_t pid_ = -1;
  int events_ = -1;
  int gate_ = -1;
  std::string pending_;
  bool ended_ = false;
};

}  // namespace trireme::testing
