// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A whole job in this process: a coordinator, servers, and a thread for each worker.
//
//   Job job({.servers = 2, .workers = 3});
//   job.run(layout, [](ps::Worker& worker) { ... });
#pragma once

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/server.h"
#include "trireme/ps/worker.h"

namespace trireme::ps {

struct JobOptions {
  int servers = 1;
  int workers = 1;
  int threads = 1;  // of each server
  std::string codec = {};
  std::chrono::milliseconds heartbeat = kHeartbeat;
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

class Job {
 public:
  explicit Job(const JobOptions& options)
      : options_(options),
        coordinator_({.servers = options.servers,
                      .workers = options.workers,
                      .heartbeat = options.heartbeat}) {
    for (int i = 0; i < options.servers; ++i) start_server(i);
  }

  Coordinator& coordinator() { return coordinator_; }
  Server& server(int index) { return *servers_.at(static_cast<std::size_t>(index)); }
  void start_server(int index) {
    servers_.resize(std::max(servers_.size(), static_cast<std::size_t>(index) + 1));
    servers_[static_cast<std::size_t>(index)] =
        std::make_unique<Server>(ServerOptions{.coordinator_port = coordinator_.port(),
                                               .index = index,
                                               .threads = options_.threads,
                                               .join_timeout = options_.timeout});
  }
  // Its connections break, as those of a process that is killed.
  void end_server(int index) { servers_.at(static_cast<std::size_t>(index)).reset(); }

  // Looks at the newest view until it is as wanted. False: it is not within the job's timeout.
  bool await(const std::function<bool(const View&)>& wanted) {
    const Deadline deadline = Deadline::after(options_.timeout);
    while (!deadline.expired()) {
      if (wanted(coordinator_.view())) return true;
      coordinator_.wait_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  // Each range is on two servers, and either may be lost.
  bool await_backups() {
    return await([](const View& view) {
      return std::all_of(view.ranges.begin(), view.ranges.end(),
                         [](const RangeView& range) { return range.backup_ready; });
    });
  }
  // The same, with so many servers: one that has just begun may not be in the view yet.
  bool await_backups(std::size_t servers) {
    return await([servers](const View& view) { return view.servers.size() == servers; }) &&
           await_backups();
  }
  bool await_workers(std::size_t count) {
    return await([count](const View& view) { return view.workers.size() == count; });
  }

  WorkerOptions worker_options(int rank) const {
    return {.coordinator_port = coordinator_.port(),
            .rank = rank,
            .codec = options_.codec,
            .join_timeout = options_.timeout,
            .timeout = options_.timeout};
  }

  // All workers, for one thread to drive in turns.
  std::vector<std::unique_ptr<Worker>> join(const JobLayout& layout) {
    std::vector<std::unique_ptr<Worker>> workers(static_cast<std::size_t>(options_.workers));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < options_.workers; ++rank) {
      threads.emplace_back([&, rank] {
        workers[static_cast<std::size_t>(rank)] =
            std::make_unique<Worker>(worker_options(rank), layout);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return workers;
  }

  // Each worker on a thread of its own, which then leaves. Throws what the first of them threw.
  void run(const JobLayout& layout, const std::function<void(Worker&)>& body) {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::exception_ptr error;
    for (int rank = 0; rank < options_.workers; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          Worker worker(worker_options(rank), layout);
          body(worker);
          worker.leave();
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (error == nullptr) error = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (error != nullptr) std::rethrow_exception(error);
  }

 private:
  const JobOptions options_;
  Coordinator coordinator_;
  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace trireme::ps
