// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Work on the process's one pool of threads (ops/threads.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace trireme::ops {

// While it lives, this thread's results below the least normal f32 are 0, and operands too (x86;
// elsewhere nothing happens). Gradients of confident predictions and moments of rare tokens get
// there, and each operation on such a number takes some hundred times as long.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_ = 0;
};

// While it lives, this thread runs its tasks by itself: for one that works beside the thread that
// computes, and whose tasks would get a second pool of threads.
class RunTasksAlone {
 public:
  RunTasksAlone();
  ~RunTasksAlone();
  RunTasksAlone(const RunTasksAlone&) = delete;
  RunTasksAlone& operator=(const RunTasksAlone&) = delete;

 private:
  int before_ = 1;
};

// Threads that run_tasks() uses: 1 inside a task.
int task_threads();

// Calls task(0) .. task(count - 1), each once, in any order and on any of the pool's threads;
// returns when all have. Denormals are flushed meanwhile. A task must not throw. Which thread runs
// which task must not show in the result: tasks are cut by the shapes, and each writes its own
// part.
void run_tasks(std::int64_t count, const std::function<void(std::int64_t)>& task);

// Ranges [begin, end) of [0, count), at most `grain` long, as tasks. For work that costs the same
// for each element.
void run_ranges(std::int64_t count, std::int64_t grain,
                const std::function<void(std::int64_t, std::int64_t)>& range);

// Scratch memory of the calling thread, 64-byte aligned, uninitialised; kept for the next call and
// grown as needed; workspace in the process's ledger (memory/memory_ledger.h). slot tells apart
// what is in use at the same time.
enum class Scratch { kLeft, kRight, kTiles, kOther, kCount };
void* thread_scratch(Scratch slot, std::size_t bytes);

}  // namespace trireme::ops
