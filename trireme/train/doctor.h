// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Is this machine set up for fast training? What is here, what it measured, and what to mend.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "trireme/ops/thread_pools.h"

namespace trireme {

struct DoctorReport {
  // Name and finding, in reading order.
  std::vector<std::pair<std::string, std::string>> findings;
  // One sentence each: what is slow or missing, and how to mend it. Empty: nothing found.
  std::vector<std::string> advice;
};

// What the advice is drawn from; separate from the measuring so that the rules can be tested.
struct MachineFacts {
  int cores = 1;             // usable: affinity and CPU quota
  int cores_of_machine = 1;  // online
  std::string vector_units;
  std::string blas;
  ThreadPools thread_pools;
  double blas_f32_flops_per_s = 0;  // LibTorch's own f32 matrix product
  double f32_flops_per_s = 0;       // the better of oneDNN's and ours
  double bf16_flops_per_s = 0;
  double memory_bytes_per_s = 0;
  std::string transparent_huge_pages;  // "always", "madvise", "never", "" unknown
};
std::vector<std::string> machine_advice(const MachineFacts& facts);

// Measures for about two seconds on all usable cores. Sets this process's compute threads.
DoctorReport examine_machine();

}  // namespace trireme
