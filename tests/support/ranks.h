// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ranks for tests: a world of n, as threads of the test or as processes of their own.
//
//   run_threads(3, [](Group& group) { ...; EXPECT_EQ(...); });
//
//   const auto ranks = start_processes(3, [](int rank, const WorldOptions& options) {
//     const auto group = join_world(options);  ...;  return std::string("fine"); });
//   kill(ranks[1].pid(), SIGKILL);
//   EXPECT_EQ(ranks[0].result(), "fine");
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/comm/world.h"

namespace trireme::testing {

// No test takes longer; one that does is told so instead of hanging.
constexpr std::chrono::milliseconds kTestDeadline = std::chrono::seconds(60);

// A lost rank is known to the others within five seconds; instrumented code is slower.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::chrono::milliseconds kLossTime = std::chrono::seconds(15);
#else
constexpr std::chrono::milliseconds kLossTime = std::chrono::seconds(5);
#endif

// A listening socket on a free loopback port.
struct Listener {
  int fd = -1;
  int port = 0;
};

inline Listener listen_on_free_port() {
  Listener listener;
  listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(listener.fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener.fd, SOMAXCONN) != 0 ||
      getsockname(listener.fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("no free loopback port");
  }
  listener.port = ntohs(address.sin_port);
  return listener;
}

// Options of each rank of a new world. listener.fd goes to rank 0.
inline std::vector<WorldOptions> world_options(int n, const Listener& listener,
                                               const std::string& engine = "auto") {
  std::vector<WorldOptions> all(static_cast<std::size_t>(n));
  for (int rank = 0; rank < n; ++rank) {
    WorldOptions& options = all[static_cast<std::size_t>(rank)];
    options.rank = rank;
    options.size = n;
    options.port = listener.port;
    options.listen_fd = rank == 0 ? listener.fd : -1;
    options.secret = "a secret of this test";
    options.engine = engine;
    options.join_timeout = kTestDeadline;
    options.timeout = kTestDeadline;
  }
  return all;
}

// Calls body(rank) on n threads. Exceptions become test failures.
inline void run_rank_threads(int n, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank) {
    threads.emplace_back([rank, &body] {
      try {
        body(rank);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A world of n threads; every rank's group is closed afterwards. adapt may change the options.
inline void run_threads(int n, const std::function<void(Group&)>& body,
                        const std::string& engine = "auto",
                        const std::function<void(WorldOptions&)>& adapt = {}) {
  const Listener listener = listen_on_free_port();
  const std::vector<WorldOptions> options = world_options(n, listener, engine);
  if (n == 1) ::close(listener.fd);
  run_rank_threads(n, [&](int rank) {
    WorldOptions own = options[static_cast<std::size_t>(rank)];
    if (n == 1) own.listen_fd = -1;
    if (adapt) adapt(own);
    const std::unique_ptr<Group> group = join_world(own);
    body(*group);
    group->close();
  });
}

// A process that runs one rank. Killed when it is destroyed.
class RankProcess {
 public:
  RankProcess(int rank, const std::function<std::string()>& body) : rank_(rank) {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error("no pipe");
    std::fflush(nullptr);
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("no process");
    read_end_ = ends[0];
    if (pid_ == 0) {
      ::close(ends[0]);
      run_child(body, ends[1]);
    }
    ::close(ends[1]);
  }
  RankProcess(RankProcess&& other) noexcept
      : rank_(other.rank_),
        pid_(std::exchange(other.pid_, -1)),
        read_end_(std::exchange(other.read_end_, -1)),
        text_(std::move(other.text_)) {}
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (read_end_ >= 0) ::close(read_end_);
  }

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }

  // Blocks until the child has said `say(word)`; false when it ended or the deadline passed.
  bool wait_to_hear(const std::string& word) {
    const Deadline deadline = Deadline::after(kTestDeadline);
    while (text_.find(word + "\n") == std::string::npos) {
      if (!read_some(deadline)) return false;
    }
    text_.erase(0, text_.find(word + "\n") + word.size() + 1);
    return true;
  }

  // Blocks until the child has ended. What its body returned, "TypeOfError: message" when it threw,
  // or a note on how else it ended; "hung" at the deadline.
  std::string result(const Deadline& deadline = Deadline::after(kTestDeadline)) {
    while (read_some(deadline)) {
    }
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      waitpid(std::exchange(pid_, -1), nullptr, 0);
      return "hung";
    }
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
    if (WEXITSTATUS(status) != 0) return "exit " + std::to_string(WEXITSTATUS(status)) + text_;
    return text_;
  }

  // In a child: tells the test something, see wait_to_hear().
  static void say(const std::string& word) { write_all(child_end(), word + "\n"); }
  // In a child that becomes another program: where that writes its result.
  static int result_fd() { return child_end(); }

 private:
  static int& child_end() {
    static int fd = -1;
    return fd;
  }
  static void write_all(int fd, const std::string& text) {
    std::size_t at = 0;
    while (at < text.size()) {
      const ssize_t n = ::write(fd, text.data() + at, text.size() - at);
      if (n <= 0) return;
      at += static_cast<std::size_t>(n);
    }
  }
  [[noreturn]] static void run_child(const std::function<std::string()>& body, int write_end) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child_end() = write_end;
    std::string text;
    try {
      text = body();
    } catch (const std::exception& error) {
      text = error_text(error);
    }
    write_all(write_end, text);
    _exit(0);
  }
  // False at the end of what the child says, or at the deadline.
  bool read_some(const Deadline& deadline) {
    pollfd ready{read_end_, POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(deadline.remaining().count())) != 1) return false;
    char chunk[4096];
    const ssize_t n = ::read(read_end_, chunk, sizeof(chunk));
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    text_.append(chunk, static_cast<std::size_t>(n));
    return true;
  }

  int rank_;
  pid_t pid_ = -1;
  int read_end_ = -1;
  std::string text_;
  bool ended_ = false;
};

// A world of n processes; call it while the test has one thread. adapt may change the options.
inline std::vector<RankProcess> start_processes(
    int n, const std::function<std::string(const WorldOptions&)>& body,
    const std::string& engine = "auto", const std::function<void(WorldOptions&)>& adapt = {}) {
  const Listener listener = listen_on_free_port();
  std::vector<WorldOptions> options = world_options(n, listener, engine);
  std::vector<RankProcess> processes;
  processes.reserve(static_cast<std::size_t>(n));
  for (WorldOptions& own : options) {
    if (adapt) adapt(own);
    processes.emplace_back(own.rank, [&, own] {
      // Only rank 0 may hold the listening socket open.
      if (own.rank != 0) ::close(listener.fd);
      return body(own);
    });
  }
  ::close(listener.fd);
  return processes;
}

}  // namespace trireme::testing
