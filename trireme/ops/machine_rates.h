// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What this machine can do at best, measured now: the limits that every speed of Trireme is
// reported against.
#pragma once

#include <c10/core/ScalarType.h>

#include <chrono>

namespace trireme {

// Rate of the better of oneDNN's matrix product and ours in dtype (f32 or bf16), the best of
// repeated runs over shapes of a transformer layer, on the threads that this process has set (see
// ops/threads.h). Unit: floating-point operations per second. Takes budget, or as long as one shape
// needs, a fifth of a second on a slow core; small budgets leave shapes out. All local ranks should
// call it together, so that each sees its share of the machine.
double measure_gemm_flops_per_s(at::ScalarType dtype, std::chrono::milliseconds budget);

// Streaming rate of memory: bytes read and written per second by a[i] += b[i] over arrays far
// larger than the caches, on this process's threads. In place, so that every byte that moves is
// counted: a line of a third array would be read before it is overwritten.
double measure_memory_bytes_per_s(std::chrono::milliseconds budget);

}  // namespace trireme
