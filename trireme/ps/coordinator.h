// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Coordinator: the process of a job that knows who lives. Servers and workers register with it and
// ask again and again whether there is a newer view (protocol/membership.h); who does not ask for
// the heartbeat time, or whose connection ends, is gone. A place is its process's until then: who
// comes for it meanwhile is refused. It moves no parameters, and holds none: a small process beside
// the launcher.
//
//   Coordinator coordinator({.port = 4711, .secret = secret, .servers = 2, .workers = 4});
//   coordinator.wait();   // until the workers have done their work; throws when the job is lost
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "trireme/ps/protocol/view.h"

namespace trireme::ps {

// Silence after which a process counts as gone. A process that ends is noticed at once, and a busy
// one asks on a thread of its own: only a stopped process or a cut link is silent.
constexpr std::chrono::milliseconds kHeartbeat = std::chrono::seconds(5);

struct CoordinatorOptions {
  std::string address = "127.0.0.1";  // listens there
  int port = 0;                       // 0: a free one
  int listen_fd = -1;                 // already bound and listening, in place of both; or -1
  std::string secret = {};            // the job's; may be empty only on loopback
  int servers = 1;                    // that the job begins with
  int workers = 1;
  std::chrono::milliseconds heartbeat = kHeartbeat;
  // When the last worker is gone without having done its work, another must have come after this.
  std::chrono::milliseconds return_timeout = std::chrono::minutes(1);
};

// Any thread may call any function.
class Coordinator {
 public:
  // Listens when it returns. Throws ConfigError as RpcServer does, or for numbers below 1.
  explicit Coordinator(const CoordinatorOptions& options);
  ~Coordinator();  // as close()
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  int port() const;
  // Blocks until all workers have left with their work done, and everybody had time to hear of it.
  // Throws CommError when the job is lost: says which range and why, or which workers are gone.
  void wait();
  // The same for at most the given time; false: the job goes on.
  bool wait_for(std::chrono::milliseconds time);
  // The newest; of term 0 before the job has begun.
  View view() const;
  // Ends all connections: servers and workers get a PeerLostError. Idempotent.
  void close();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::ps
