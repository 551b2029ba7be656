// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/parameter_server_job.h"

#include "trireme/base/error.h"
#include "trireme/train/hosted_job.h"

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

ServedJob::ServedJob() {
  const LaunchInfo info = launch_info();
  if (info.launcher == Launcher::kNone && !info.parameter_servers) {
    own_ = std::make_unique<HostedJob>(HostedJobOptions{});
    worker_.coordinator_port = own_->port();
    return;
  }
  worker_ = worker_options(info);
  num_workers_ = info.parameter_servers->workers;
}

ServedJob::~ServedJob() = default;

}  // namespace trireme
