// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Whose threads compute in this process. There should be one pool: LibTorch's, oneDNN's and
// OpenBLAS's loops on the threads of one OpenMP runtime. A second pool has as many threads again on
// the same cores, and each waits for the other's.
//
//   for (const std::string& advice : thread_pool_advice(loaded_thread_pools())) log_warn("{}",
//   advice);
#pragma once

#include <string>
#include <vector>

namespace trireme {

struct ThreadPools {
  std::vector<std::string> openmp_runtimes;  // files of GNU's, LLVM's and Intel's that are loaded
  bool openblas_has_its_own = false;         // its pthread build
};

// What is loaded now; a library that is loaded later may change it.
ThreadPools loaded_thread_pools();

// One sentence for each pool too many: what is there, what it costs, how to mend it.
std::vector<std::string> thread_pool_advice(const ThreadPools& pools);

// Whether a library of this path is an OpenMP runtime, by its name.
bool is_openmp_runtime(const std::string& path);

}  // namespace trireme
