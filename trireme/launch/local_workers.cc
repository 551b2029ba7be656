// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/local_workers.h"

#include <errno.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/job_process.h"
#include "trireme/launch/job_supervisor.h"
#include "trireme/launch/launcher_link.h"
#include "trireme/launch/process_fleet.h"
#include "trireme/launch/signal_inbox.h"

namespace trireme {
namespace {

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

JobShare share_of(const LocalWorkersOptions& options) {
  if (options.share) return *options.share;
  return {.world_size = options.workers, .address = "127.0.0.1", .secret = random_secret()};
}

WorldOptions launchers_world(const LocalWorkersOptions& options, const JobShare& share, int port) {
  WorldOptions world;
  world.rank = share.node;
  world.size = share.nodes;
  world.address = share.address;
  world.port = port;
  world.secret = share.secret;
  world.fingerprint = {
      {"what trireme launch starts on each host",
       fmt::format("{} servers and {} workers, restarts {}", options.parameter_servers->servers,
                   options.workers, options.parameter_servers->restarts)}};
  return world;
}

// This launcher's part of a job, from its sockets to the last process's end.
class Job {
 public:
  explicit Job(const LocalWorkersOptions& options) : options_(options), share_(share_of(options)) {}

  int run();

 private:
  void bind();
  void bind_coordinator();
  void meet();
  void start(detail::Fleet& fleet);

  const LocalWorkersOptions& options_;
  const JobShare share_;
  detail::JobEndpoints endpoints_;
  FileDescriptor rendezvous_;
  FileDescriptor coordinator_;
  FileDescriptor torch_port_;  // reserved
  std::unique_ptr<detail::LauncherLink> link_;
  std::vector<detail::JobProcess> table_;
};

int Job::run() {
  bind();
  meet();  // a Ctrl-C still ends this process
  const detail::SignalInbox inbox;
  detail::Fleet fleet(options_);
  start(fleet);
  return detail::JobSupervisor(options_, fleet, link_.get()).run(inbox);
}

// The ports are bound before any process exists: they cannot be lost to somebody else, and who
// comes before rank 0 or the coordinator is ready waits in the queue instead of being refused.
//
// What reads torchrun's variables has its own rendezvous, so it needs another port. Several
// launchers agree on the next one.
void Job::bind() {
  endpoints_.rendezvous = {share_.address, options_.port};
  if (share_.first_rank == 0) {
    rendezvous_ = listen_on(share_.address, options_.port);
    endpoints_.rendezvous.port = port_of(rendezvous_);
  }
  endpoints_.torch_port = detail::port_beside(endpoints_.rendezvous.port, 1);
  if (!options_.share) {
    torch_port_ = reserve_port();
    endpoints_.torch_port = port_of(torch_port_);
  }
  if (options_.parameter_servers) bind_coordinator();
}

void Job::bind_coordinator() {
  const int port = options_.share ? detail::port_beside(options_.port, 2) : 0;
  endpoints_.coordinator = {share_.address, port};
  if (share_.node != 0) return;
  coordinator_ = listen_on(share_.address, port);
  endpoints_.coordinator->port = port_of(coordinator_);
}

void Job::meet() {
  if (!options_.parameter_servers || share_.nodes == 1) return;
  log_info("meeting the launchers of {} nodes at {}", share_.nodes,
           endpoint_text(share_.address, options_.port));
  link_ = std::make_unique<detail::LauncherLink>(launchers_world(options_, share_, options_.port),
                                                 rendezvous_);
}

// Who listens takes the socket with it: when it dies, nobody keeps its port answering.
void Job::start(detail::Fleet& fleet) {
  table_ = detail::job_processes(options_, share_, endpoints_);
  for (const detail::JobProcess& process : table_) {
    FileDescriptor listener;
    if (process.listens) {
      listener = std::move(process.role == JobRole::kWorker ? rendezvous_ : coordinator_);
    }
    fleet.start(process, std::move(listener));
  }
  log_debug("started {} processes, rendezvous at {}", table_.size(),
            endpoint_text(endpoints_.rendezvous.address, endpoints_.rendezvous.port));
}

void validate_share(const JobShare& share, const LocalWorkersOptions& options) {
  if (share.first_rank < 0 || share.first_rank > share.world_size - options.workers) {
    throw_error<ConfigError>("{} workers from rank {} are not in a world of {}", options.workers,
                             share.first_rank, share.world_size);
  }
  if (share.node < 0 || share.node >= share.nodes) {
    throw_error<ConfigError>("node {} is not in a job of {} launchers", share.node, share.nodes);
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

void validate_serving(const ServingOptions& serving) {
  if (serving.servers < 1) {
    throw_error<ConfigError>("{} servers: at least one is needed", serving.servers);
  }
  if (serving.restarts < 0) {
    throw_error<ConfigError>("{} restarts: 0 or more can be allowed", serving.restarts);
  }
  for (const auto* command : {&serving.server_command, &serving.coordinator_command}) {
    if (command->empty() || command->front().empty()) {
      throw_error<ConfigError>("no command given for the servers or the coordinator");
    }
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
  if (options.parameter_servers) validate_serving(*options.parameter_servers);
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
  return Job(options).run();
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
