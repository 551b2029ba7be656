// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What ranks tell one another beside the data: small values by key, who failed, who left. A star
// over the connections of the rendezvous with rank 0 in its middle, served by one thread per rank.
//
// A connection that ends without a goodbye means that its rank is lost. Rank 0 announces it to
// everybody; the loss of rank 0 itself is seen by everybody. Either way the latch falls at once.
// Ranks of one host also see one another's processes end (peer_process.h), whatever rank 0 does.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/peer_process.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/wait_board.h"

namespace trireme {

// Any thread may call any public function.
class ControlPlane {
 public:
  // latch and waits must outlive it.
  ControlPlane(int rank, Meeting meeting, FailureLatch& latch, const WaitBoard& waits);
  // Ends the connections, without a goodbye unless say_goodbye() was called.
  ~ControlPlane();

  // Shares a value with all ranks. A key is written once.
  void put(const std::string& key, std::string value);
  // Blocks until some rank has put the key. Throws TimeoutError (what says what was waited for), or
  // the latched failure.
  std::string get(const std::string& key, const Deadline& deadline, const std::string& what);
  // The same for who has more to look at meanwhile: look is called now and then, on this thread,
  // and when the deadline has passed; then it must throw.
  std::string get(const std::string& key, const Deadline& deadline,
                  const std::function<void()>& look);

  // Latches the failure here and on every other rank.
  void announce(const Failure& failure);
  // From now on the first failure is logged as soon as it is known, on this object's own thread:
  // for processes that may not live to throw it.
  void log_failures() { logs_failures_.store(true); }

  // Asks all ranks what they wait for now. They answer without help of their threads. Returns the
  // name of the question.
  std::string ask();
  // Blocks until the rank has answered. Throws TimeoutError, or the latched failure.
  std::string answer(const std::string& question, int rank, const Deadline& deadline);

  // True once the rank has said goodbye.
  bool has_left(int rank) const { return left_[static_cast<std::size_t>(rank)].load(); }
  // Tells the others that this rank ends on purpose.
  void say_goodbye();
  // Blocks until all others have left, the latch falls, or the deadline passes. True in the first
  // case.
  bool wait_for_others_to_leave(const Deadline& deadline);

 private:
  struct Waiter {
    int rank;
    std::string key;
  };

  void watch_processes();
  void serve();
  void wait_for_events(std::unique_lock<std::mutex>& lock);
  // Called by the thread, mutex_ held.
  bool serve_connection(int peer, Connection& connection);
  void handle(int from, const Frame& frame);
  void handle_end(int from);
  void handle_end_of(const PeerProcess& process);
  // mutex_ held. Latches it here and keeps it as last words; false when it is not the first.
  bool latch(const Failure& failure);
  void send(int to, FrameType type, std::string_view payload);
  void send_to_all_but(int rank, FrameType type, std::string_view payload);
  // Tells what this rank waits for.
  void answer_to(const std::string& question);
  void keep_value(const std::string& key, std::string value);
  void mark_left(int rank);
  void wake_thread();
  Failure lost(int rank) const;

  // Constant after construction.
  const int rank_;
  const std::vector<Member> members_;
  FailureLatch& latch_;
  const WaitBoard& waits_;
  FileDescriptor wakeup_;
  std::vector<std::atomic<bool>> left_;  // by rank
  std::atomic<bool> logs_failures_ = false;
  const std::unique_ptr<LastWords> last_words_;

  // Used by the thread only: processes of this host that had not ended when it looked last.
  std::vector<std::unique_ptr<PeerProcess>> processes_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::map<int, Connection> connections_;
  std::map<std::string, std::string> values_;
  std::vector<Waiter> waiters_;  // rank 0 only
  int next_question_ = 0;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace trireme
