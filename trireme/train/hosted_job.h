// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// HostedJob: the coordinator and the servers of a job with parameter servers on threads of this
// process, for programs that nothing launched.
//
//   HostedJob job({.servers = 2, .workers = 3});
//   ps::Worker worker({.coordinator_port = job.port()}, layout);   // rank 0; others elsewhere
//   ...
//   worker.wait_for_others_to_leave();
//   worker.leave();
//   job.close();
#pragma once

#include <memory>
#include <string>

namespace trireme {

struct HostedJobOptions {
  int servers = 1;
  int workers = 1;
  // Where the coordinator listens: a socket that listens already, closed in any case; -1: a free
  // port of loopback.
  int listen_fd = -1;
  std::string secret = {};  // may be empty only on loopback
};

class HostedJob {
 public:
  // Throws as ps::Coordinator and ps::Server do.
  explicit HostedJob(const HostedJobOptions& options);
  ~HostedJob();  // as close()
  HostedJob(const HostedJob&) = delete;
  HostedJob& operator=(const HostedJob&) = delete;

  int port() const;
  // Ends servers and coordinator: workers that are still there get an error. Idempotent.
  void close();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
