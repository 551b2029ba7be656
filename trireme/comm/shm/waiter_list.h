// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Threads of one rank that wait for what one word in shared memory tells. The first of them
// watches that word; each other one sleeps on a word of its own until it is notified or the watch
// comes to it. Were all of them to sleep on the shared word, each record would wake all, and a
// hundred messages under way would cost a hundred times as much each.
#pragma once

#include <chrono>
#include <list>

#include "trireme/comm/shm/shared_word.h"

namespace trireme {

// Guarded by a mutex of its owner, all of it but what Waiter says.
class WaiterList {
 public:
  class Waiter {
   public:
    // Where to sleep.
    SharedWord& word(SharedWord& shared) { return watches_ ? shared : own_; }
    bool watches() const { return watches_; }
    // How long to sleep there at a time; no wake of an own word is lost.
    std::chrono::milliseconds slice() const {
      return watches_ ? kSleepSlice : std::chrono::milliseconds::max();
    }
    // Ends the sleep of one that does not watch, now or the next.
    void notify() { own_.raise_to(own_.value() + 1); }

   private:
    friend class WaiterList;
    SharedWord own_{};
    bool watches_ = false;
    bool listed_ = false;
    std::list<Waiter*>::iterator place_;
  };

  // Idempotent, as leave() is.
  void join(Waiter& waiter) {
    if (waiter.listed_) return;
    waiter.place_ = waiters_.insert(waiters_.end(), &waiter);
    waiter.listed_ = true;
    waiter.watches_ = waiters_.size() == 1;
  }
  // Hands the watch on.
  void leave(Waiter& waiter) {
    if (!waiter.listed_) return;
    waiters_.erase(waiter.place_);
    waiter.listed_ = false;
    if (!waiter.watches_ || waiters_.empty()) return;
    waiters_.front()->watches_ = true;
    waiters_.front()->notify();
  }
  void notify_all() {
    for (Waiter* waiter : waiters_) waiter->notify();
  }

 private:
  std::list<Waiter*> waiters_;
};

}  // namespace trireme
