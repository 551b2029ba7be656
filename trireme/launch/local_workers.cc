// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The launcher is one thread that sleeps in sigtimedwait: everything that can happen reaches it as
// a signal (SIGCHLD: a worker ended; SIGINT, SIGTERM, SIGHUP: we are asked to end; SIGTSTP: the
// user pressed Ctrl-Z) or as a deadline. It moves through the stages below and never back.
//
//   running     --a worker fails-->           ending, for at most grace
//   running     --SIGINT, SIGTERM, SIGHUP-->  ending, for at most interrupt_grace
//   ending      --deadline-->                 terminated: SIGTERM sent, terminate_grace left
//   terminated  --deadline-->                 killed: SIGKILL sent, the kernel ends them
//   any         --SIGINT when asked before--> killed
//
// Workers in "ending" after a failure are left alone at first: their own connections tell them who
// is missing, so that they can say it before they go.

#include "trireme/launch/local_workers.h"

#include <errno.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/worker_process.h"

namespace trireme {
namespace {

using detail::WorkerEnd;

constexpr int kUserMistake = 2;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { reset(); }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

// Listens before any worker exists: the port cannot be lost to somebody else, and the ranks that
// come before rank 0 is ready wait in the queue instead of being refused.
int listen_on_loopback(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_error<Error>("cannot open a socket for the workers: {}", strerror(errno));
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = loopback(port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, SOMAXCONN) != 0) {
    const int error = errno;
    close(fd);
    if (error == EADDRINUSE) {
      throw_error<ConfigError>(
          "port {} is in use on 127.0.0.1; give another one, or 0 for any that is free", port);
    }
    throw_error<ConfigError>("cannot listen on 127.0.0.1:{}: {}", port, strerror(error));
  }
  return fd;
}

int port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw_error<Error>("getsockname: {}", strerror(errno));
  }
  return ntohs(address.sin_port);
}

std::string random_secret() {
  std::uint8_t bytes[32];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    throw_error<Error>("getrandom: {}", strerror(errno));
  }
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

// Blocks the launcher's signals while it lives, so that sigtimedwait receives them, and puts the
// thread back as it was. SIGHUP stays ignored under nohup. A request that comes while the last
// worker ends was for the job: it must not strike the caller afterwards.
class SignalInbox {
 public:
  SignalInbox() {
    sigemptyset(&set_);
    for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGTSTP}) sigaddset(&set_, signal);
    struct sigaction hangup {};
    sigaction(SIGHUP, nullptr, &hangup);
    if (hangup.sa_handler != SIG_IGN) sigaddset(&set_, SIGHUP);
    // An ignored SIGCHLD would reap the workers behind our back.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &standard, &old_child_action_);
    pthread_sigmask(SIG_BLOCK, &set_, &old_mask_);
  }
  SignalInbox(const SignalInbox&) = delete;
  SignalInbox& operator=(const SignalInbox&) = delete;
  ~SignalInbox() {
    while (receive(std::chrono::milliseconds(0)) != 0) {
    }
    sigaction(SIGCHLD, &old_child_action_, nullptr);
    pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  }

  // The next signal, or 0 when none came within the time. Without a time it waits for one.
  int receive(std::optional<std::chrono::milliseconds> time) const {
    int signal = -1;
    if (time) {
      const auto seconds = std::chrono::floor<std::chrono::seconds>(*time);
      const timespec limit{seconds.count(), std::chrono::nanoseconds(*time - seconds).count()};
      signal = sigtimedwait(&set_, nullptr, &limit);
    } else {
      signal = sigwaitinfo(&set_, nullptr);
    }
    return std::max(signal, 0);
  }

 private:
  sigset_t set_{};
  sigset_t old_mask_{};
  struct sigaction old_child_action_ {};
};

struct Worker {
  int rank;
  pid_t pid;
};

std::string describe(const Worker& worker, const WorkerEnd& end) {
  const std::string who = fmt::format("worker {} (pid {})", worker.rank, worker.pid);
  if (end.signal == 0) return fmt::format("{} ended with status {}", who, end.status);
  std::string_view hint;
  if (end.signal == SIGKILL) hint = "; if nobody did that, the machine ran out of memory";
  if (end.signal == SIGBUS) hint = "; /dev/shm or a disk may be full";
  return fmt::format("{} was killed by signal {} ({}){}", who, end.signal, strsignal(end.signal),
                     hint);
}

// The workers of this job, from their start to the last one's end.
class Fleet {
 public:
  explicit Fleet(const LocalWorkersOptions& options) : options_(options) {}
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;
  // Workers are left only when an exception passes.
  ~Fleet() {
    send(SIGKILL);
    for (const Worker& worker : running_) detail::reap_worker(worker.pid);
  }

  void start();
  int supervise(const SignalInbox& inbox);

 private:
  enum class Stage { kRunning, kEnding, kTerminated, kKilled };

  detail::WorkerStart start_of(int rank, int port, const std::string& secret) const;
  void reap_ended();
  void note_failures(std::vector<std::pair<Worker, WorkerEnd>> failures);
  void on_signal(int signal);
  void on_interrupt(int signal);
  void on_deadline();
  void suspend();
  void enter(Stage stage, std::chrono::milliseconds time);
  void send(int signal) const;
  std::string running_ranks() const;

  const LocalWorkersOptions& options_;
  std::vector<Worker> running_;  // by rank
  Stage stage_ = Stage::kRunning;
  std::optional<Deadline> deadline_;  // of the stage
  bool interrupted_ = false;
  int result_ = 0;
};

detail::WorkerStart Fleet::start_of(int rank, int port, const std::string& secret) const {
  const std::string size = std::to_string(options_.workers);
  detail::WorkerStart start;
  start.command = options_.command;
  start.environment = {{"TRIREME_RANK", std::to_string(rank)},
                       {"TRIREME_WORLD_SIZE", size},
                       {"TRIREME_LOCAL_RANK", std::to_string(rank)},
                       {"TRIREME_LOCAL_SIZE", size},
                       {"TRIREME_ADDRESS", "127.0.0.1"},
                       {"TRIREME_PORT", std::to_string(port)},
                       {"TRIREME_SECRET", secret},
                       {"TRIREME_LAUNCHER_PID", std::to_string(getpid())}};
  return start;
}

// Rank 0 starts first and takes the listening socket with it: when it dies, nobody keeps its port
// answering.
void Fleet::start() {
  FileDescriptor listener(listen_on_loopback(options_.port));
  const int port = port_of(listener.get());
  const std::string secret = random_secret();
  for (int rank = 0; rank < options_.workers; ++rank) {
    detail::WorkerStart start = start_of(rank, port, secret);
    if (rank == 0) {
      start.listen_fd = listener.get();
      start.environment.emplace_back("TRIREME_LISTEN_FD", std::to_string(listener.get()));
    }
    running_.push_back({rank, detail::start_worker(start)});
    listener.reset();
  }
  log_debug("started {} workers, rendezvous at 127.0.0.1:{}", options_.workers, port);
}

int Fleet::supervise(const SignalInbox& inbox) {
  for (reap_ended(); !running_.empty(); reap_ended()) {
    std::optional<std::chrono::milliseconds> time;
    if (deadline_) time = deadline_->remaining();
    on_signal(inbox.receive(time));
    if (deadline_ && deadline_->expired()) on_deadline();
  }
  return result_;
}

void Fleet::reap_ended() {
  std::vector<std::pair<Worker, WorkerEnd>> failures;
  std::erase_if(running_, [&](const Worker& worker) {
    const std::optional<WorkerEnd> end = detail::try_reap_worker(worker.pid);
    if (end && end->failed()) failures.emplace_back(worker, *end);
    return end.has_value();
  });
  if (!failures.empty()) note_failures(std::move(failures));
}

// Several that failed since the last look are put in the order of cause: a user's mistake, then a
// signal, then the errors of those who lost a peer.
void Fleet::note_failures(std::vector<std::pair<Worker, WorkerEnd>> failures) {
  const auto order = [](const auto& failure) {
    const WorkerEnd& end = failure.second;
    return end.status == kUserMistake ? 0 : end.signal != 0 ? 1 : 2;
  };
  std::ranges::stable_sort(failures, {}, order);
  if (result_ == 0) {
    result_ = failures.front().second.status == kUserMistake ? kUserMistake : 1;
  }
  const bool by_us = stage_ == Stage::kTerminated || stage_ == Stage::kKilled;
  for (const auto& [worker, end] : failures) {
    log_line(by_us ? LogLevel::kWarn : LogLevel::kError, describe(worker, end));
  }
  if (stage_ == Stage::kRunning && !running_.empty()) {
    log_info("worker {} still runs; waiting up to {} ms", running_ranks(), options_.grace.count());
    enter(Stage::kEnding, options_.grace);
  }
}

void Fleet::on_signal(int signal) {
  if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP) on_interrupt(signal);
  if (signal == SIGTSTP) suspend();
}

void Fleet::on_interrupt(int signal) {
  if (!interrupted_) {
    interrupted_ = true;
    log_info("{}: passed on to the workers; Ctrl-C kills them at once", strsignal(signal));
    // To a worker a lost terminal is a request to end like any other.
    send(signal == SIGHUP ? SIGTERM : signal);
    if (stage_ == Stage::kRunning) enter(Stage::kEnding, options_.interrupt_grace);
  } else if (signal == SIGINT && stage_ != Stage::kKilled) {
    log_warn("second interrupt: killing worker {}", running_ranks());
    send(SIGKILL);
    stage_ = Stage::kKilled;
    deadline_.reset();
  }
}

void Fleet::on_deadline() {
  if (stage_ == Stage::kEnding) {
    log_warn("worker {} did not end in time; terminating", running_ranks());
    send(SIGTERM);
    enter(Stage::kTerminated, options_.terminate_grace);
  } else if (stage_ == Stage::kTerminated) {
    log_warn("worker {} did not end on SIGTERM; killing", running_ranks());
    send(SIGKILL);
    stage_ = Stage::kKilled;
    deadline_.reset();
  }
}

// Ctrl-Z reaches only the launcher, because the workers are in process groups of their own.
void Fleet::suspend() {
  send(SIGSTOP);
  raise(SIGSTOP);
  send(SIGCONT);
}

void Fleet::enter(Stage stage, std::chrono::milliseconds time) {
  stage_ = stage;
  deadline_ = Deadline::after(time);
}

void Fleet::send(int signal) const {
  for (const Worker& worker : running_) detail::signal_worker(worker.pid, signal);
}

// "0, 2, 5".
std::string Fleet::running_ranks() const {
  std::vector<int> ranks;
  for (const Worker& worker : running_) ranks.push_back(worker.rank);
  return fmt::format("{}", fmt::join(ranks, ", "));
}

void validate(const LocalWorkersOptions& options) {
  if (options.workers < 1) {
    throw_error<ConfigError>("{} workers: at least one is needed", options.workers);
  }
  if (options.command.empty() || options.command.front().empty()) {
    throw_error<ConfigError>("no command given for the workers");
  }
  if (options.port < 0 || options.port > 65535) {
    throw_error<ConfigError>("port {} is not in [0, 65535]", options.port);
  }
}

}  // namespace

int run_local_workers(const LocalWorkersOptions& options) {
  validate(options);
  const SignalInbox inbox;
  Fleet fleet(options);
  fleet.start();
  return fleet.supervise(inbox);
}

// start_worker has asked the kernel already; this repeats it for a worker behind a wrapper that
// forks. There the parent is the wrapper, so the launcher is looked for by its pid.
void follow_launcher() {
  const std::optional<std::string> text = environment_variable("TRIREME_LAUNCHER_PID");
  if (!text) return;
  pid_t launcher = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), launcher);
  if (error != std::errc() || end != text->data() + text->size() || launcher <= 0) {
    throw_error<ConfigError>("TRIREME_LAUNCHER_PID={} is not a process", *text);
  }
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    throw_error<Error>("cannot follow the launcher: prctl: {}", strerror(errno));
  }
  if (getppid() != launcher && kill(launcher, 0) != 0 && errno == ESRCH) raise(SIGKILL);
}

}  // namespace trireme
