// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The launcher is one thread that sleeps in poll: everything that can happen reaches it as a signal
// (SIGCHLD: a worker ended; SIGINT, SIGTERM, SIGHUP: we are asked to end; SIGPIPE: nobody reads
// what we print; SIGTSTP: the user pressed Ctrl-Z), as a deadline or, where lines get a prefix, as
// output of a worker. It moves through the stages below and never back.
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
#include <fcntl.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/signal_inbox.h"
#include "trireme/launch/worker_output.h"
#include "trireme/launch/worker_process.h"

namespace trireme {
namespace {

using detail::SignalInbox;
using detail::WorkerEnd;

constexpr int kUserMistake = 2;
constexpr int kHighestPort = 65535;

int port_of(const FileDescriptor& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw_error<Error>("getsockname: {}", strerror(errno));
  }
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

// A free port that others are kept from while the socket lives. It does not listen: whoever wants
// to listen there with SO_REUSEADDR, as PyTorch's store does, can.
FileDescriptor reserve_port() {
  FileDescriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw_error<Error>("cannot reserve a port for the workers: {}", strerror(errno));
  }
  return fd;
}

std::string random_secret() {
  std::uint8_t bytes[32];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    throw_error<Error>("getrandom: {}", strerror(errno));
  }
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

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

JobShare share_of(const LocalWorkersOptions& options) {
  if (options.share) return *options.share;
  return {.world_size = options.workers, .address = "127.0.0.1", .secret = random_secret()};
}

FileDescriptor open_log(const std::string& folder, int rank, const char* extension) {
  const std::string path = fmt::format("{}/rank-{}.{}", folder, rank, extension);
  FileDescriptor fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd) throw_error<ConfigError>("cannot write {}: {}", path, strerror(errno));
  return fd;
}

// This launcher's workers, from their start to the last one's end.
class Fleet {
 public:
  explicit Fleet(const LocalWorkersOptions& options)
      : options_(options), share_(share_of(options)), port_(options.port) {}
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

  void start_worker(int local_rank, FileDescriptor listener, int torch_port);
  detail::WorkerStart start_of(int local_rank, int torch_port) const;
  void wait_for_event(const SignalInbox& inbox);
  void reap_ended();
  void note_failures(std::vector<std::pair<Worker, WorkerEnd>> failures);
  void on_signal(int signal);
  void on_interrupt(int signal);
  void on_deadline();
  void suspend();
  void enter(Stage stage, std::chrono::milliseconds time);
  void send(int signal) const;
  std::string running_ranks() const;

  // Constant after construction, but for the port, which start() chooses where none was given.
  const LocalWorkersOptions& options_;
  JobShare share_;
  int port_;

  FileDescriptor torch_port_;  // reserved
  detail::LinePrinter lines_;
  std::vector<Worker> running_;  // by rank
  Stage stage_ = Stage::kRunning;
  std::optional<Deadline> deadline_;  // of the stage
  bool interrupted_ = false;
  int result_ = 0;
};

detail::WorkerStart Fleet::start_of(int local_rank, int torch_port) const {
  const std::string rank = std::to_string(share_.first_rank + local_rank);
  const std::string size = std::to_string(share_.world_size);
  const std::string local = std::to_string(local_rank);
  const std::string local_size = std::to_string(options_.workers);
  detail::WorkerStart start;
  start.command = options_.command;
  start.environment = {{"TRIREME_RANK", rank},
                       {"TRIREME_WORLD_SIZE", size},
                       {"TRIREME_LOCAL_RANK", local},
                       {"TRIREME_LOCAL_SIZE", local_size},
                       {"TRIREME_ADDRESS", share_.address},
                       {"TRIREME_PORT", std::to_string(port_)},
                       {"TRIREME_SECRET", share_.secret},
                       {"TRIREME_LAUNCHER_PID", std::to_string(getpid())},
                       {"RANK", rank},
                       {"WORLD_SIZE", size},
                       {"LOCAL_RANK", local},
                       {"LOCAL_WORLD_SIZE", local_size},
                       {"MASTER_ADDR", share_.address},
                       {"MASTER_PORT", std::to_string(torch_port)}};
  return start;
}

// The listener is rank 0's; the others are given none.
void Fleet::start_worker(int local_rank, FileDescriptor listener, int torch_port) {
  const int rank = share_.first_rank + local_rank;
  detail::WorkerStart start = start_of(local_rank, torch_port);
  start.listen_fd = listener.get();
  if (listener) {
    start.environment.emplace_back("TRIREME_LISTEN_FD", std::to_string(listener.get()));
  }
  FileDescriptor out;
  FileDescriptor err;
  if (options_.prefix) {
    const std::string prefix = fmt::format("[{}] ", rank);
    out = lines_.add(prefix, STDOUT_FILENO);
    err = lines_.add(prefix, STDERR_FILENO);
  } else if (!options_.log_folder.empty()) {
    out = open_log(options_.log_folder, rank, "out");
    err = open_log(options_.log_folder, rank, "err");
  }
  start.out_fd = out.get();
  start.err_fd = err.get();
  running_.push_back({rank, detail::start_worker(start)});
}

// The port of the rendezvous is bound before any worker exists: it cannot be lost to somebody else,
// and the ranks that come before rank 0 is ready wait in the queue instead of being refused. Rank 0
// starts first and takes the socket with it: when it dies, nobody keeps its port answering.
//
// What reads torchrun's variables has its own rendezvous, so it needs another port. Several
// launchers agree on the next one.
void Fleet::start() {
  FileDescriptor listener;
  if (share_.first_rank == 0) {
    listener = listen_on(share_.address, port_);
    port_ = port_of(listener);
  }
  int torch_port = port_ < kHighestPort ? port_ + 1 : port_ - 1;
  if (!options_.share) {
    torch_port_ = reserve_port();
    torch_port = port_of(torch_port_);
  }
  for (int local_rank = 0; local_rank < options_.workers; ++local_rank) {
    start_worker(local_rank, std::exchange(listener, {}), torch_port);
  }
  log_debug("started {} workers, rendezvous at {}", options_.workers,
            endpoint_text(share_.address, port_));
}

int Fleet::supervise(const SignalInbox& inbox) {
  for (reap_ended(); !running_.empty(); reap_ended()) wait_for_event(inbox);
  // Whoever reads our output may be slow. One Ctrl-C more does not wait for it, nor does one that
  // has killed the workers.
  if (stage_ != Stage::kKilled) interrupted_ = false;
  deadline_.reset();
  for (lines_.end(); lines_.pending() && !interrupted_;) wait_for_event(inbox);
  return result_;
}

void Fleet::wait_for_event(const SignalInbox& inbox) {
  std::vector<pollfd> ready{{inbox.fd(), POLLIN, 0}};
  lines_.append_waits(ready);
  poll(ready.data(), ready.size(),
       deadline_ ? static_cast<int>(deadline_->remaining().count()) : -1);
  lines_.move();
  while (const int signal = inbox.receive()) on_signal(signal);
  if (deadline_ && deadline_->expired()) on_deadline();
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
  if (signal == SIGTSTP) suspend();
  for (const int request : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    if (signal == request) on_interrupt(signal);
  }
}

void Fleet::on_interrupt(int signal) {
  if (!interrupted_) {
    interrupted_ = true;
    log_info("{}: passed on to the workers; Ctrl-C kills them at once", strsignal(signal));
    // To a worker a lost terminal, or a lost reader of its lines, is a request to end like another.
    send(signal == SIGINT ? SIGINT : SIGTERM);
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

void validate_share(const JobShare& share, const LocalWorkersOptions& options) {
  if (share.first_rank < 0 || share.first_rank > share.world_size - options.workers) {
    throw_error<ConfigError>("{} workers from rank {} are not in a world of {}", options.workers,
                             share.first_rank, share.world_size);
  }
  if (options.port == 0) {
    throw_error<ConfigError>("a job of several launchers needs a port that all of them know");
  }
  if (share.secret.empty() && !is_loopback(share.address)) {
    throw_error<ConfigError>(
        "ranks that meet at {} need a secret: give every host the same TRIREME_SECRET, such as "
        "what `openssl rand -hex 32` prints",
        endpoint_text(share.address, options.port));
  }
}

void validate(const LocalWorkersOptions& options) {
  if (options.workers < 1) {
    throw_error<ConfigError>("{} workers: at least one is needed", options.workers);
  }
  if (options.command.empty() || options.command.front().empty()) {
    throw_error<ConfigError>("no command given for the workers");
  }
  if (options.port < 0 || options.port > kHighestPort) {
    throw_error<ConfigError>("port {} is not in [0, {}]", options.port, kHighestPort);
  }
  if (options.prefix && !options.log_folder.empty()) {
    throw_error<ConfigError>("lines with a prefix go to the terminal, and not to the folder {}",
                             options.log_folder);
  }
  if (options.share) validate_share(*options.share, options);
}

void make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw_error<ConfigError>("cannot make the folder {}: {}", folder, error.message());
}

}  // namespace

int run_local_workers(const LocalWorkersOptions& options) {
  validate(options);
  if (!options.log_folder.empty()) make_folder(options.log_folder);
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
