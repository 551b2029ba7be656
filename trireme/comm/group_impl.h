// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A group's order of operations. A blocking collective runs on the thread that made it, unless
// collectives were started before it and are not done: then it waits its turn behind them. Started
// collectives run one after the other on the group's own thread, which exists from the first of
// them on. Messages are numbered by pair and tag when they are called and then each run by
// themselves: the blocking ones on the caller's thread, started ones on a thread of the pool.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "trireme/comm/carriers.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/group.h"
#include "trireme/comm/self_mailbox.h"
#include "trireme/comm/task_pool.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Shared by a Work and the group that runs it.
struct Work::State {
  std::atomic<bool> done = false;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::optional<Failure> failure;  // guarded by mutex

  void finish(std::optional<Failure> outcome);
};

class GroupImpl {
 public:
  GroupImpl(GroupScope scope, std::chrono::milliseconds timeout);
  // Without close(): abandons what is pending.
  ~GroupImpl();

  const GroupScope& scope() const { return scope_; }
  // Of buffers on the host.
  const Engine& engine() const { return carriers_.host_engine(); }
  const Carriers& carriers() const { return carriers_; }
  std::chrono::milliseconds timeout() const { return timeout_; }
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }

  void run(Collective collective);
  Work start(Collective collective);
  // One collective on several buffers of one dtype, in place; make describes it for one buffer.
  using InPlace = std::function<Collective(const Buffer&)>;
  void run_coalesced(std::span<const Buffer> buffers, const InPlace& make);
  Work start_coalesced(std::span<const Buffer> buffers, const InPlace& make);

  void send(const ConstBuffer& data, int to, int tag);
  Work start_send(const ConstBuffer& data, int to, int tag);
  void receive(const Buffer& data, int from, int tag);
  Work start_receive(const Buffer& data, int from, int tag);
  void exchange(const ConstBuffer& out, int to, const Buffer& in, int from, int tag);

  // Every rank's value, by rank, through the control plane. topic is new within the group.
  std::vector<int> tell_all(const std::string& topic, int value);
  std::unique_ptr<GroupImpl> split(const std::string& name, const std::vector<int>& ranks);
  std::unique_ptr<GroupImpl> duplicate(const std::string& purpose);
  void abandon(const std::string& reason);
  void close();

 private:
  struct Task {
    Collective collective;
    std::vector<Buffer> coalesced;  // what collective.output is packed from and unpacked to
    std::chrono::milliseconds timeout;
    std::shared_ptr<Work::State> state;
  };
  enum class Direction : std::uint8_t { kSend, kReceive };

  void prepare(Collective& collective);
  void check_open() const;
  Task coalesced_task(std::span<const Buffer> buffers, const InPlace& make);
  void run_task(Task task);
  Work start_task(Task task);
  void execute(const Task& task);
  // Runs the operation; whatever ends it ends the world. what names it, for errors of other kinds
  // than CommError.
  void guard(const std::function<void()>& operation, const std::function<std::string()>& what);
  void fail_world(const Failure& failure);
  std::shared_ptr<Work::State> enqueue(Task task);
  void work_off();
  void wait_until_idle();
  void stop_worker();
  void leave_world();

  MessageKey next_message(Direction direction, int peer, int tag);
  Work start_message(std::function<void()> message, const OperationName& name);
  void run_message(const std::function<void()>& message, const OperationName& name);
  std::function<void()> send_of(const ConstBuffer& data, const MessageKey& key);
  std::function<void()> receive_of(const Buffer& data, const MessageKey& key);

  // Constant after construction.
  const GroupScope scope_;

  Carriers carriers_;  // run() by whoever runs a collective

  // Used by the caller's thread only.
  std::chrono::milliseconds timeout_;
  std::uint64_t sequence_ = 0;
  std::map<std::tuple<Direction, int, int>, std::uint64_t> messages_;  // by peer and tag
  std::set<std::string> split_names_;
  bool closed_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Task> tasks_;
  bool working_ = false;
  bool stopping_ = false;

  SelfMailbox self_;
  std::thread worker_;   // from the first start() on
  TaskPool messengers_;  // last: its tasks use all of the above
};

}  // namespace trireme
