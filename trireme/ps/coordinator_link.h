// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CoordinatorLink: a server's or a worker's line to the coordinator: it registers, asks for views
// on a thread of its own, and tells what it hears.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/ps/messages.h"

namespace trireme::ps {

struct CoordinatorLinkOptions {
  std::string address = {};
  int port = 0;
  std::string secret = {};
  Registration registration;
  std::string name = {};  // "server 1", for messages
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(60);
};

// The place was another process's, which may have been gone, for the whole connect_timeout.
class PlaceTakenError : public TimeoutError {
 public:
  using TimeoutError::TimeoutError;
};

// Why there will be no more views.
enum class LinkEnd {
  kFinished,  // the job is done
  kDropped,   // the coordinator takes this process for gone
  kLost,      // the coordinator is gone
  kFailed,    // the job is lost, and the text says why
};

// Any thread may call any function.
class CoordinatorLink {
 public:
  // Both run on the link's thread and may take a while: the heartbeat does not wait for on_view,
  // which gets the newest view there is when it returns. on_end is the last call.
  using OnView = std::function<void(const Announcement&)>;
  using OnEnd = std::function<void(LinkEnd, const std::string& why)>;

  // Registers. Blocks; where the place is another process's, until that is known to be gone. Throws
  // as RpcClient does; ConfigError when the coordinator refuses, as it does while another process
  // that lives has the place; PlaceTakenError.
  explicit CoordinatorLink(const CoordinatorLinkOptions& options);
  ~CoordinatorLink();  // as close()
  CoordinatorLink(const CoordinatorLink&) = delete;
  CoordinatorLink& operator=(const CoordinatorLink&) = delete;

  // Begins to ask for views. Once.
  void start(OnView on_view, OnEnd on_end);

  std::int64_t id() const { return registered_.id; }
  // The job had begun when this process registered.
  bool begun() const { return registered_.begun; }
  // A worker's declaration; returns the job's layout. Blocks. Throws ConfigError, PeerLostError.
  std::string declare(const std::string& layout);
  // What the view waits for at a range has come (Membership::ready). Does not block: the
  // coordinator hears of it at once, unless the link ends.
  void report_ready(Term term, std::uint32_t range);
  // The coordinator cannot have taken this process for gone yet. A process that was stopped asks
  // this before it acts on what it had been sent.
  bool lease_holds() const;
  // This process has done its work: not gone, but away. Blocks, for a second at most.
  void leave();
  void close();

 private:
  RpcReply register_at(const CoordinatorLinkOptions& options);
  void watch();
  void end(LinkEnd end, const std::string& why);

  const std::chrono::milliseconds connect_timeout_;
  RpcClient client_;
  Registered registered_;
  OnView on_view_;
  OnEnd on_end_;
  std::atomic<std::int64_t> lease_until_us_{0};
  std::atomic<bool> closing_{false};
  std::thread thread_;
};

}  // namespace trireme::ps
