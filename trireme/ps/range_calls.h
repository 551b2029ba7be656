// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RangeCalls: a worker's requests to ranges, each sent to whoever is the range's primary until it
// is answered. What is answered kRetry, or not at all, is sent again in the next view. Pushes to
// one range go one after the other.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/ps/buffer_pool.h"
#include "trireme/ps/messages.h"
#include "trireme/ps/peer_clients.h"

namespace trireme::ps {

using Timestamp = std::int64_t;

struct RangeCall {
  Method method = Method::kPull;
  RangeRequest header;  // term is filled when it is sent
  std::span<const std::byte> payload;
  std::span<std::byte> reply_space;
  int priority = 0;
  BufferPool::Buffer memory;  // of payload or reply_space, where they are the call's own
  // The answer was kDone or kSummed; on a thread of the connection's. May be null.
  std::function<void(const RangeReply&, std::size_t payload_bytes)> done;
  // Set where payload and reply_space are memory of which the server uses parts in place: makes it
  // another call of the same effect, for a server that does not share the memory.
  std::function<void(RangeCall&)> pack;
  // Two phases: the push before this commit or push, to be sent again where its sum was lost.
  std::shared_ptr<RangeCall> push;
};

// Any thread may call any function.
class RangeCalls {
 public:
  RangeCalls(PeerClients& peers, std::chrono::milliseconds timeout);
  ~RangeCalls();

  void enter_view(const View& view);
  // Everything under way, and everything that is sent later, ends with this error.
  void fail(std::exception_ptr error);
  // Blocks until there is a view, with this worker in it: the coordinator may still give one of
  // before a worker came. kNobody: any. Throws TimeoutError, or what fail() was given.
  View wait_for_view(const Deadline& deadline, WorkerId member = kNobody);
  // Blocks until one worker at most is in the view. Throws the same.
  void wait_for_others_to_leave(const Deadline& deadline);

  // A timestamp for calls that are sent together, of which there are so many.
  Timestamp begin(std::size_t calls);
  // Throws what fail() was given.
  void send(Timestamp timestamp, std::shared_ptr<RangeCall> call);
  void wait(Timestamp timestamp);
  void wait_all();
  void close();

 private:
  struct Sent {
    std::shared_ptr<RangeCall> call;
    Timestamp timestamp = 0;
    Deadline deadline;
    bool push_again = false;  // the push before it is sent first
    bool repeated = false;    // its answer is known, and no one waits for it
    // When to try again, and in which term at least.
    Deadline::Clock::time_point not_before;
    Term term = 0;
  };
  using SentPtr = std::shared_ptr<Sent>;
  struct Progress {
    std::size_t left = 0;
    std::exception_ptr error;
  };

  static bool in_order(const RangeCall& call);
  void try_now(const SentPtr& sent, bool may_connect);
  void answered(const SentPtr& sent, const RpcReply& reply);
  void again(const SentPtr& sent, std::chrono::milliseconds pause, Term term);
  void finish(const SentPtr& sent, std::exception_ptr error);
  void give_up(const SentPtr& sent);
  void remember_sum(const SentPtr& sent, Term term);
  std::vector<SentPtr> lost_sums();
  void send_again();

  PeerClients& peers_;
  const std::chrono::milliseconds timeout_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // for who waits: a timestamp is done, the view, the failure
  std::condition_variable work_;     // for the thread: there is something to send again
  // Guarded by mutex_.
  View view_;
  std::exception_ptr failure_;
  std::map<Timestamp, Progress> progress_;  // not done, or with an error
  Timestamp next_ = 1;
  std::map<std::uint32_t, std::deque<SentPtr>> in_order_;  // by range; the first is under way
  // Two phases, by range: pushes that are summed and not applied, and the term of their sum. With
  // each new view the sum is lost, and another worker may wait for it where its own push was lost.
  struct Summed {
    std::shared_ptr<RangeCall> push;
    Term term = 0;
  };
  std::map<std::uint32_t, Summed> summed_;
  std::vector<SentPtr> waiting_;  // to be sent again
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace trireme::ps
