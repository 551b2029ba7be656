// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A job whose coordinator, servers and workers are processes (programs/ps_process.cc), to be killed
// and stopped.
//
//   ProcessJob job(3, 2, kShortHeartbeat);
//   Process first = job.start_worker(0, "whole", 20, {"30", "signal", signal_to(SIGKILL, pid)});
//   EXPECT_EQ(first.out(), unbroken("whole", 20));
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "trireme/base/file_descriptor.h"

namespace trireme::ps {

// What a test may take.
constexpr std::chrono::milliseconds kTime = std::chrono::seconds(40);
// Silence after which a process counts as gone, where a test need not wait for the real one.
constexpr std::chrono::milliseconds kShortHeartbeat = std::chrono::seconds(2);

struct Process {
  explicit Process(const std::vector<std::string>& words) {
    std::vector<std::string> argv{TRIREME_PS_PROCESS};
    argv.insert(argv.end(), words.begin(), words.end());
    program = std::make_unique<trireme::testing::Program>(argv);
  }
  std::string out() { return program->wait(kTime).out; }
  std::unique_ptr<trireme::testing::Program> program;
};

class ProcessJob {
 public:
  ProcessJob(int servers, int workers, std::chrono::milliseconds heartbeat)
      : port_(std::to_string(free_port())),
        coordinator_({"coordinator", port_, std::to_string(servers), std::to_string(workers),
                      std::to_string(heartbeat.count()), "127.0.0.1"}) {
    for (int i = 0; i < servers; ++i) start_server(i);
  }
  void start_server(int index) {
    servers_.push_back(std::make_unique<Process>(
        std::vector<std::string>{"server", "127.0.0.1", port_, std::to_string(index)}));
  }
  Process start_worker(int rank, const std::string& style, int steps,
                       const std::vector<std::string>& actions = {}) {
    std::vector<std::string> words{"worker", "127.0.0.1",          port_, std::to_string(rank),
                                   style,    std::to_string(steps)};
    words.insert(words.end(), actions.begin(), actions.end());
    return Process(words);
  }
  pid_t server_pid(std::size_t index) const { return servers_.at(index)->program->pid(); }
  Process& server(std::size_t index) { return *servers_.at(index); }
  Process& coordinator() { return coordinator_; }

 private:
  // On which nobody listens.
  static int free_port() {
    const trireme::testing::Listener listener = trireme::testing::listen_on_free_port();
    ::close(listener.fd);
    return listener.port;
  }

  std::string port_;
  Process coordinator_;
  std::vector<std::unique_ptr<Process>> servers_;
};

inline std::string signal_to(int signal, pid_t pid) { return fmt::format("{}:{}", signal, pid); }

// What workers print where nothing happens to two of them.
inline std::string unbroken(const std::string& style, int steps) {
  std::string out;
  Job job({.servers = 1, .workers = 2});
  job.run(layout_of_style(style), [&](Worker& worker) {
    begin(worker);
    const Values values = train(worker, script_of_style(style, steps));
    if (worker.rank() == 0) out = hash_of(values) + "\n";
  });
  return out;
}

// A place where a worker waits until the test opens it.
class Gate {
 public:
  explicit Gate(std::string path) : path_(std::move(path)) {
    if (mkfifo(path_.c_str(), 0600) != 0) throw std::runtime_error("no fifo " + path_);
  }
  // Before the call of that number, as an action of a worker.
  std::vector<std::string> before(int event) const {
    return {std::to_string(event), "gate", path_};
  }
  // Waits until a worker is there, and keeps it there while the descriptor is open. None when
  // nobody comes.
  FileDescriptor hold() const {
    const Deadline deadline = Deadline::after(kTime);
    while (!deadline.expired()) {
      FileDescriptor fd(::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
      if (fd) return fd;
      ::poll(nullptr, 0, 5);
    }
    return FileDescriptor();
  }

 private:
  std::string path_;
};

}  // namespace trireme::ps
