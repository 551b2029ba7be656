// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A group's order of operations. A blocking call runs on the thread that made it, unless operations
// were started before it and are not done: then it waits its turn behind them. Started operations
// run one after the other on the group's own thread, which exists from the first of them on.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "trireme/comm/engine.h"
#include "trireme/comm/group.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Shared by a Work and the group that runs it.
struct Work::State {
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex.
  bool done = false;
  std::optional<Failure> failure;

  void finish(std::optional<Failure> outcome);
};

class GroupImpl {
 public:
  GroupImpl(GroupScope scope, std::chrono::milliseconds timeout);
  // Without close(): abandons what is pending.
  ~GroupImpl();

  const GroupScope& scope() const { return scope_; }
  const Engine& engine() const { return *engine_; }
  std::chrono::milliseconds timeout() const { return timeout_; }
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  void run(Collective collective);
  Work start(Collective collective);
  std::unique_ptr<GroupImpl> split(const std::string& name, const std::vector<int>& ranks);
  void close();

 private:
  struct Task {
    Collective collective;
    std::chrono::milliseconds timeout;
    std::shared_ptr<Work::State> state;
  };

  void number(Collective& collective);
  void check_open() const;
  void execute(const Collective& collective, std::chrono::milliseconds timeout);
  std::shared_ptr<Work::State> enqueue(Collective collective);
  void work_off();
  void wait_until_idle();
  void stop_worker();
  void leave_world();

  // Constant after construction.
  const GroupScope scope_;
  const std::unique_ptr<Engine> engine_;

  // Used by the caller's thread only.
  std::chrono::milliseconds timeout_;
  std::uint64_t sequence_ = 0;
  std::set<std::string> split_names_;
  bool closed_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Task> tasks_;
  bool working_ = false;
  bool stopping_ = false;

  std::thread worker_;  // from the first start() on
};

}  // namespace trireme
