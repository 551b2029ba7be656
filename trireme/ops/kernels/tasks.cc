// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/tasks.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>

namespace trireme::ops {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct ScratchMemory {
  std::unique_ptr<void, Free> memory;
  std::size_t bytes = 0;
};

}  // namespace

int task_threads() { return omp_in_parallel() != 0 ? 1 : omp_get_max_threads(); }

void run_tasks(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (count <= 1 || task_threads() == 1) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  // In turn, so that a thread that was held up takes fewer.
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t i = 0; i < count; ++i) task(i);
}

void run_ranges(std::int64_t count, std::int64_t grain,
                const std::function<void(std::int64_t, std::int64_t)>& range) {
  run_tasks((count + grain - 1) / grain,
            [&](std::int64_t i) { range(i * grain, std::min(count, (i + 1) * grain)); });
}

void* thread_scratch(Scratch slot, std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  thread_local std::array<ScratchMemory, static_cast<std::size_t>(Scratch::kCount)> memories;
  ScratchMemory& scratch = memories[static_cast<std::size_t>(slot)];
  if (scratch.bytes < bytes) {
    scratch.memory.reset();
    scratch.bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    scratch.memory.reset(std::aligned_alloc(kAlignment, scratch.bytes));
    if (!scratch.memory) {
      scratch.bytes = 0;
      throw std::bad_alloc();
    }
  }
  return scratch.memory.get();
}

}  // namespace trireme::ops
