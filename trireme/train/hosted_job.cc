// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/hosted_job.h"

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/server.h"

namespace trireme {

class HostedJob::Impl {
 public:
  explicit Impl(const HostedJobOptions& options)
      : coordinator_({.listen_fd = options.listen_fd,
                      .secret = options.secret,
                      .servers = options.servers,
                      .workers = options.workers}),
        running_(options.servers) {
    for (int index = 0; index < options.servers; ++index) {
      servers_.push_back(std::make_unique<ps::Server>(ps::ServerOptions{
          .coordinator_port = coordinator_.port(), .secret = options.secret, .index = index}));
    }
    for (int index = 0; index < options.servers; ++index) {
      threads_.emplace_back([this, index] { watch(index); });
    }
  }
  ~Impl() { close(); }

  int port() const { return coordinator_.port(); }
  void close() {
    closing_ = true;
    coordinator_.close();  // first: it would tell of servers that go
    for (const auto& server : servers_) server->stop();
    for (std::thread& thread : std::exchange(threads_, {})) thread.join();
  }

 private:
  // Workers hear of a server's end by its silence, and of the last one's by the coordinator's.
  void watch(int index) {
    std::unique_ptr<ps::Server>& server = servers_[static_cast<std::size_t>(index)];
    try {
      if (server->wait() == ps::ServerEnd::kDropped) {
        log_error("server {} was taken for gone: what it held is held by others now", index);
      }
    } catch (const CommError& error) {
      if (!closing_) log_error("{}", error.what());
    }
    if (--running_ == 0 && !closing_) coordinator_.close();
  }

  ps::Coordinator coordinator_;
  std::vector<std::unique_ptr<ps::Server>> servers_;
  std::atomic<int> running_;
  std::atomic<bool> closing_ = false;
  std::vector<std::thread> threads_;
};

HostedJob::HostedJob(const HostedJobOptions& options) : impl_(std::make_unique<Impl>(options)) {}
HostedJob::~HostedJob() = default;

int HostedJob::port() const { return impl_->port(); }
void HostedJob::close() { impl_->close(); }

}  // namespace trireme
