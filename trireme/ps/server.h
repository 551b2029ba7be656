// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Server: holds ranges of a job's parameters and applies the update rule to them.
//
//   ps::Server server({.coordinator_address = "10.0.0.1", .coordinator_port = 4711,
//                      .secret = secret, .index = 0});
//   server.wait();   // until the workers have done their work
//
// What it holds, and which optimizer it runs, the job's workers say (job_layout.h). Each range is
// worked on by one thread at a time, many ranges at once. With backups each update is applied by
// two servers before anyone hears that it was.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "trireme/ps/messages.h"

namespace trireme::ps {

struct ServerOptions {
  std::string coordinator_address = "127.0.0.1";
  int coordinator_port = 0;
  std::string secret = {};  // the job's; may be empty only on loopback
  int index = 0;            // below the job's number of servers
  // Where workers and other servers reach this one. Empty: the address of this host that leads to
  // the coordinator.
  std::string address = {};
  int port = 0;     // 0: a free one
  int threads = 0;  // that apply updates; 0: one for each core of the process
  std::chrono::milliseconds join_timeout = std::chrono::minutes(5);
};

enum class ServerEnd {
  kFinished,  // the job is done
  kDropped,   // the coordinator took this server for gone: what it held is held by others now
};

// Any thread may call any function.
class Server {
 public:
  // Registers with the coordinator. Throws ConfigError and CommError as RpcClient and RpcServer do;
  // ConfigError where another server that lives has the index (says which); TimeoutError where one
  // that is silent has it for the whole join_timeout.
  explicit Server(const ServerOptions& options);
  ~Server();  // ends at once; what it held is gone
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const std::string& address() const;
  int port() const;
  // Blocks until the job is over for this server. Throws CommError: the coordinator is gone, the
  // job is lost (says which range), or this server cannot go on.
  ServerEnd wait();
  // The same until then, or until stop() was called from another thread or a signal handler's.
  void stop();
  ServerReport report() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::ps
