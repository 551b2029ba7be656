// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a process of a job with parameter servers (launch/environment.h) tells ps/.
//
//   ServedJob job;
//   ps::Worker worker(job.worker(), layout);
#pragma once

#include <memory>

#include "trireme/launch/environment.h"
#include "trireme/ps/worker.h"

namespace trireme {

class HostedJob;

// Where and as whom a worker joins; everything else at its default. Throws ConfigError when the
// process is of no job with parameter servers: says how to start one.
ps::WorkerOptions worker_options(const LaunchInfo& info);

// The job that this process is a worker of: its launcher's; or, where nothing launched it, one of
// its own, whose coordinator and only server run on threads of this process until the object goes.
class ServedJob {
 public:
  // Throws as launch_info() and worker_options() do: a rank of a job without servers is refused.
  ServedJob();
  ~ServedJob();  // after the worker
  ServedJob(const ServedJob&) = delete;
  ServedJob& operator=(const ServedJob&) = delete;

  const ps::WorkerOptions& worker() const { return worker_; }
  int num_workers() const { return num_workers_; }  // that the job began with

 private:
  std::unique_ptr<HostedJob> own_;
  ps::WorkerOptions worker_;
  int num_workers_ = 1;
};

}  // namespace trireme
