// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/tasks.h"

#include <omp.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>

#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::ops {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// In the process's ledger for as long as it lives.
class ScratchMemory {
 public:
  ScratchMemory() = default;
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  ~ScratchMemory() { release(); }

  void* at_least(std::size_t bytes) {
    if (bytes_ < bytes) grow((bytes + kAlignment - 1) / kAlignment * kAlignment);
    return memory_.get();
  }

 private:
  static constexpr std::size_t kAlignment = 64;

  void grow(std::size_t bytes) {
    release();
    memory_.reset(std::aligned_alloc(kAlignment, bytes));
    if (!memory_) throw std::bad_alloc();
    bytes_ = bytes;
    process_memory().add(MemoryCategory::kWorkspace, static_cast<std::int64_t>(bytes_));
  }
  void release() {
    memory_.reset();
    process_memory().remove(MemoryCategory::kWorkspace, static_cast<std::int64_t>(bytes_));
    bytes_ = 0;
  }

  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace

#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : before_(_mm_getcsr()) {
  constexpr unsigned kFlushResults = 0x8000, kFlushOperands = 0x0040;
  _mm_setcsr(before_ | kFlushResults | kFlushOperands);
}
FlushDenormals::~FlushDenormals() { _mm_setcsr(before_); }
#else
FlushDenormals::FlushDenormals() = default;
FlushDenormals::~FlushDenormals() = default;
#endif

// What OpenMP is told holds for the calling thread alone.
RunTasksAlone::RunTasksAlone() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
RunTasksAlone::~RunTasksAlone() { omp_set_num_threads(before_); }

int task_threads() { return omp_in_parallel() != 0 ? 1 : omp_get_max_threads(); }

void run_tasks(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (count <= 1 || task_threads() == 1) {
    const FlushDenormals flush;
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  // In turn, so that a thread that was held up takes fewer.
#pragma omp parallel
  {
    const FlushDenormals flush;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) task(i);
  }
}

void run_ranges(std::int64_t count, std::int64_t grain,
                const std::function<void(std::int64_t, std::int64_t)>& range) {
  run_tasks((count + grain - 1) / grain,
            [&](std::int64_t i) { range(i * grain, std::min(count, (i + 1) * grain)); });
}

void* thread_scratch(Scratch slot, std::size_t bytes) {
  thread_local std::array<ScratchMemory, static_cast<std::size_t>(Scratch::kCount)> memories;
  return memories[static_cast<std::size_t>(slot)].at_least(bytes);
}

}  // namespace trireme::ops
