// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A client's connection: the calls under way, and the thread that reads the replies, watches the
// deadlines and runs what the callers want done.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/rpc/arena_regions.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/event_set.h"
#include "trireme/comm/rpc/greeting.h"
#include "trireme/comm/rpc/inbox.h"
#include "trireme/comm/rpc/outbox.h"

namespace trireme::detail {

// Functions are as RpcClient's.
class ClientConnection : private FrameSink {
 public:
  explicit ClientConnection(const RpcClientOptions& options);
  ~ClientConnection() override;
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  void call(RpcCall call, RpcClient::Done done);
  bool connected() const { return !ended_.load(); }
  bool shares_memory() const { return shares_memory_; }
  void close();

 private:
  using TimePoint = Deadline::Clock::time_point;

  struct Pending {
    std::uint32_t method = 0;
    std::span<std::byte> reply_space;
    RpcPlace room;
    std::chrono::milliseconds timeout{0};
    TimePoint deadline;
    Outbox::Ticket ticket;
    RpcClient::Done done;
  };
  using Calls = std::unordered_map<std::uint64_t, Pending>;

  ClientConnection(const RpcClientOptions& options, Greeted greeted);

  // The thread.
  void run();
  bool serve();
  std::chrono::milliseconds time_to_wait();
  void expire_calls();
  void end_calls(const std::string& why);
  std::byte* place_for(const RpcHead& head) override;
  void deliver(const RpcHead& head, std::string header) override;
  void take_reply(const RpcHead& head, std::string header);
  static void finish(const Pending& call, RpcReply reply);

  RpcHead head_of(const RpcCall& call) const;
  // mutex_ held.
  void tell_of(const RpcPlace& place);
  Pending remove(Calls::iterator call);

  std::exception_ptr lost(std::uint32_t method, const std::string& why) const;
  std::exception_ptr late(const Pending& call) const;

  // Constant after construction.
  const std::string name_;
  const std::string server_;
  const std::shared_ptr<ArenaRegions> arena_;  // null for none
  const bool shares_memory_;
  const FileDescriptor fd_;
  EventSet events_;
  Outbox outbox_;

  std::atomic<bool> closing_ = false;
  std::atomic<bool> ended_ = false;  // changes with mutex_ held

  // Of the thread.
  Inbox inbox_;
  std::uint64_t arriving_ = 0;  // the call whose payload is being received
  std::string refusal_;         // the server's reason for the end

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::uint64_t next_call_ = 1;
  Calls calls_;
  std::set<std::pair<TimePoint, std::uint64_t>> deadlines_;
  TimePoint wakes_at_;               // the thread looks at the deadlines then, or before
  std::set<std::uint64_t> told_of_;  // memories that the server knows
  std::string why_ended_;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace trireme::detail
