// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/parameter_server_job.h"

#include <thread>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/server.h"

namespace trireme {

ps::WorkerOptions worker_options(const LaunchInfo& info) {
  if (!info.parameter_servers) {
    throw_error<ConfigError>(
        "this process is of no job with parameter servers: start it by trireme launch --servers 1 "
        "--workers 2 -- PROGRAM");
  }
  ps::WorkerOptions options;
  options.coordinator_address = info.parameter_servers->address;
  options.coordinator_port = info.parameter_servers->port;
  options.secret = info.secret;
  options.rank = info.rank;
  return options;
}

class ServedJob::Own {
 public:
  Own() : server_({.coordinator_port = coordinator_.port()}), thread_([this] { watch(); }) {}
  ~Own() {
    server_.stop();
    thread_.join();
  }
  int port() const { return coordinator_.port(); }

 private:
  // The worker hears of the server's end by its coordinator's.
  void watch() {
    try {
      server_.wait();
    } catch (const CommError& error) {
      log_error("{}", error.what());
      coordinator_.close();
    }
  }

  ps::Coordinator coordinator_{{.servers = 1, .workers = 1}};
  ps::Server server_;
  std::thread thread_;
};

ServedJob::ServedJob() {
  const LaunchInfo info = launch_info();
  if (info.launcher == Launcher::kNone && !info.parameter_servers) {
    own_ = std::make_unique<Own>();
    worker_.coordinator_port = own_->port();
    return;
  }
  worker_ = worker_options(info);
  num_workers_ = info.parameter_servers->workers;
}

ServedJob::~ServedJob() = default;

}  // namespace trireme
