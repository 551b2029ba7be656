// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Time per part of a step: which operations it goes to, and how many floating-point operations of
// matrix products they did.
//
//   at::Tensor linear(...) {
//     const TimedPart part("linear forward", 2.0 * rows * in * out);
//     ...
//   }
//   StepParts parts;
//   parts.start();  step();  for (const PartTotal& total : parts.stop()) { ... }
//
// A part that runs inside another one counts for itself alone (exclusive time), and what runs
// inside none is the part kRestOfStep: the parts' seconds add up to the time from start() to
// stop(). A recorder sees the thread that called start(); LibTorch's backward runs there too on the
// CPU. Threads that help in a part are inside its time. On a device, where work is queued, the
// times are those of queueing it, and LibTorch runs the backward pass on a thread of the device's:
// its parts are not seen, its time is that of the part that waits for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace trireme {

class StepParts;

namespace detail {
// The recorder that this thread started; null: nothing is recorded.
extern constinit thread_local StepParts* recording;
}  // namespace detail

inline constexpr char kRestOfStep[] = "rest";

struct PartTotal {
  std::string_view name;
  std::int64_t calls = 0;
  double seconds = 0;  // without the parts inside it
  double flops = 0;
};

// Not thread-safe. One recorder of a thread records at a time.
class StepParts {
 public:
  using Clock = std::function<double()>;  // seconds since any moment, never running backwards

  StepParts();
  explicit StepParts(Clock clock);  // for tests
  ~StepParts();
  StepParts(const StepParts&) = delete;
  StepParts& operator=(const StepParts&) = delete;

  // From here on this thread's parts are recorded.
  void start();
  // Ends what start() began, on the same thread, with no part open. The rest first, then the parts
  // in the order in which they first ran.
  std::vector<PartTotal> stop();

 private:
  friend class TimedPart;
  void enter(std::string_view name, double flops);
  void leave();
  void count_until_now();

  const Clock clock_;  // constant after construction
  std::vector<PartTotal> totals_;
  std::vector<std::size_t> open_;  // indices into totals_, the innermost last
  double since_ = 0;               // up to here all time is counted
};

// A part, from construction to destruction. Costs one load while nothing is recorded.
class TimedPart {
 public:
  // name: a literal, "<operation> forward" or "<operation> backward"; calls of the same name are
  // added up. flops: floating-point operations of the matrix products that run in this part and in
  // none inside it, as the result needs them: 2 M K N for [M, K] by [K, N], and of causal
  // attention the half that is not masked. 0: none run in it.
  explicit TimedPart(const char* name, double flops = 0) : recorder_(detail::recording) {
    if (recorder_ != nullptr) recorder_->enter(name, flops);
  }
  ~TimedPart() {
    if (recorder_ != nullptr) recorder_->leave();
  }
  TimedPart(const TimedPart&) = delete;
  TimedPart& operator=(const TimedPart&) = delete;

 private:
  StepParts* recorder_;
};

}  // namespace trireme
