// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A counter in shared memory that one rank raises and others wait for, without burning a core that
// another rank needs: a short spin where every rank has a core, then a futex.
//
//   while (!there(word.value())) {                      // the reader
//     SharedWord::Sleeper sleeper(word);
//     if (!there(sleeper.seen())) sleeper.sleep(time);  // again, now that we are counted
//   }
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

#include "trireme/base/deadline.h"
#include "trireme/comm/shm/futex.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// A sleeper looks at least this often whether the world still stands. Waking it is the rule, this
// the net below.
constexpr std::chrono::milliseconds kSleepSlice{100};
// Before sleeping, where every rank has a core of its own: about what going to sleep and being
// woken costs. Two ranks, 64 MiB all_reduce, busy machine: 28 ms with 2 us, 18 ms with 20 us, 16 ms
// with 60 us; but 60 us made 4 to 1024 KiB slower in one run of two.
constexpr std::chrono::microseconds kSpinTime{20};

// After so long the core is offered to others between looks: the rank that is waited for may have
// been put on the same one, where it stays for seconds, since each wakes the other there.
constexpr std::chrono::microseconds kPoliteSpinTime{2};

// Whether a rank may spin: ranks of this host, also those of other groups, have a core each.
bool every_rank_has_a_core(const GroupScope& scope);

// Stands in memory of zeros as it is.
class SharedWord {
 public:
  std::uint32_t value() const { return value_.load(std::memory_order_acquire); }
  // One writer at a time.
  void raise_to(std::uint32_t value) {
    // Sequentially consistent, as is the sleepers' counting: either we see the sleeper, or it sees
    // the value.
    value_.store(value, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(value_);
  }
  void wake_all() { futex_wake_all(value_); }

  // One that is killed while it sleeps stays counted, which only costs needless wakes.
  class Sleeper {
   public:
    explicit Sleeper(SharedWord& word) : word_(word) {
      word_.sleepers_.fetch_add(1, std::memory_order_seq_cst);
      seen_ = word_.value_.load(std::memory_order_seq_cst);
    }
    ~Sleeper() { word_.sleepers_.fetch_sub(1, std::memory_order_seq_cst); }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;

    std::uint32_t seen() const { return seen_; }
    // Until the value is another than seen(), or for no reason. Where every wake raises the word,
    // none can be lost, and the slice may be as long as the deadline.
    void sleep(const Deadline& deadline, std::chrono::milliseconds slice = kSleepSlice) {
      futex_wait(word_.value_, seen_, std::min(slice, deadline.remaining()));
    }
    static void sleep_either(const Sleeper& one, const Sleeper& two, const Deadline& deadline) {
      futex_wait_either(one.word_.value_, one.seen_, two.word_.value_, two.seen_,
                        std::min(kSleepSlice, deadline.remaining()));
    }

   private:
    SharedWord& word_;
    std::uint32_t seen_;
  };

 private:
  std::atomic<std::uint32_t> value_;
  std::atomic<std::uint32_t> sleepers_;
};

// True as soon as there() is, false after kSpinTime.
template <class Condition>
bool spin_for(const Condition& there) {
  const auto begin = Deadline::Clock::now();
  auto now = begin;
  do {
    if (now - begin >= kPoliteSpinTime) sched_yield();
    for (int i = 0; i < 16; ++i) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      if (there()) return true;
    }
    now = Deadline::Clock::now();
  } while (now - begin < kSpinTime);
  return false;
}

}  // namespace trireme
