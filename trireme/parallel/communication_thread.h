// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CommunicationThread: does what communicates, in order, while the caller computes.
//
//   CommunicationThread thread(group->duplicate("gradients"));
//   const auto ticket = thread.post([=](Group& group) { group.all_reduce(bucket); });
//   ...                    // compute; leave bucket alone
//   thread.wait(ticket);   // the sum is there, or this throws what ended it
//
// A task may be several operations and what lies between them (an encoding, a sum over another
// group): that is what Group's own start_*() does not offer.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace trireme {

class Group;

// post() and wait() by one thread.
class CommunicationThread {
 public:
  using Task = std::function<void(Group&)>;
  using Ticket = std::uint64_t;

  explicit CommunicationThread(std::unique_ptr<Group> group);
  // Tasks that are not done are abandoned, which ends the world: others wait in them.
  ~CommunicationThread();
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;

  // Runs the task after all earlier ones. All ranks post the same operations in the same order.
  // After a task has failed the later ones are not run.
  Ticket post(Task task);
  // Blocks until the task and all before it are done. Throws what ended the first that failed. The
  // deadlines are those of the group's operations.
  void wait(Ticket ticket);
  void wait_for_all() { wait(posted_); }
  // Throws what wait() would of what has failed so far. Never blocks.
  void check() const;

  // Time spent in tasks, so far; exact after wait_for_all().
  std::chrono::nanoseconds busy() const;
  // The group that tasks get: only for what may be called on any thread, or while nothing is
  // posted.
  Group& group() { return *group_; }

 private:
  void work_off();

  const std::unique_ptr<Group> group_;
  Ticket posted_ = 0;  // the caller's
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Task> tasks_;
  Ticket done_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::chrono::nanoseconds busy_{0};

  std::thread thread_;  // from the first post() on
};

}  // namespace trireme
