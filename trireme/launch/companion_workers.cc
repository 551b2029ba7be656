// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/companion_workers.h"

#include <errno.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/launch/worker_process.h"

namespace trireme {
namespace {

using detail::WorkerEnd;

// Between two looks at companions that are about to end.
constexpr auto kPollInterval = std::chrono::milliseconds(5);

// argv of this process, as the kernel has it.
std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.empty()) {
    throw_error<Error>("cannot start workers: /proc/self/cmdline does not say what runs here");
  }
  return words;
}

std::string random_secret() {
  std::uint8_t bytes[32];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    throw_error<Error>("cannot make a secret for the workers: {}", strerror(errno));
  }
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

// A listening socket on a free port of loopback; sets the port.
int listen_on_loopback(int& port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (fd < 0 || bind(fd, generic, size) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, generic, &size) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    throw_error<Error>("cannot listen on 127.0.0.1 for the workers: {}", strerror(error));
  }
  port = ntohs(address.sin_port);
  return fd;
}

detail::WorkerStart companion_start(const std::vector<std::string>& command, int rank,
                                    const LaunchInfo& info) {
  detail::WorkerStart start;
  start.command = command;
  start.environment = {{"TRIREME_RANK", std::to_string(rank)},
                       {"TRIREME_WORLD_SIZE", std::to_string(info.size)},
                       {"TRIREME_LOCAL_RANK", std::to_string(rank)},
                       {"TRIREME_LOCAL_SIZE", std::to_string(info.size)},
                       {"TRIREME_ADDRESS", info.address},
                       {"TRIREME_PORT", std::to_string(info.port)},
                       {"TRIREME_SECRET", info.secret},
                       {"TRIREME_LAUNCHER_PID", std::to_string(getpid())}};
  return start;
}

std::string describe(int rank, const WorkerEnd& end) {
  return end.signal == 0 ? fmt::format("worker {} ended with status {}", rank, end.status)
                         : fmt::format("worker {} was killed by signal {} ({})", rank, end.signal,
                                       strsignal(end.signal));
}

}  // namespace

CompanionWorkers::CompanionWorkers(int workers) {
  if (workers < 2) {
    throw_error<ConfigError>("{} workers: this process is one, companions make it two or more",
                             workers);
  }
  const std::vector<std::string> command = own_command();
  info_.launcher = Launcher::kTrireme;
  info_.size = info_.local_size = workers;
  info_.secret = random_secret();
  info_.listen_fd = listen_on_loopback(info_.port);
  try {
    for (int rank = 1; rank < workers; ++rank) {
      running_.push_back({rank, detail::start_worker(companion_start(command, rank, info_))});
    }
  } catch (...) {
    close(info_.listen_fd);
    kill_all();
    throw;
  }
}

CompanionWorkers::~CompanionWorkers() { kill_all(); }

const std::string& CompanionWorkers::failure() {
  std::erase_if(running_, [&](const Companion& companion) {
    const auto end = detail::try_reap_worker(companion.pid);
    if (end && end->failed() && failure_.empty()) failure_ = describe(companion.rank, *end);
    return end.has_value();
  });
  return failure_;
}

void CompanionWorkers::wait(std::chrono::milliseconds grace) {
  const Deadline deadline = Deadline::after(grace);
  for (failure(); !running_.empty(); failure()) {
    if (deadline.expired()) {
      if (failure_.empty()) {
        failure_ = fmt::format("worker {} did not end within {} ms and was killed",
                               running_.front().rank, grace.count());
      }
      kill_all();
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  const std::string failure = std::exchange(failure_, {});
  if (!failure.empty()) throw_error<Error>("{}", failure);
}

void CompanionWorkers::kill_all() {
  for (const Companion& companion : running_) detail::signal_worker(companion.pid, SIGKILL);
  for (const Companion& companion : running_) detail::reap_worker(companion.pid);
  running_.clear();
}

}  // namespace trireme
