// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One setting for all thread pools of a process: LibTorch's, OpenMP's, OpenBLAS's and oneDNN's.
//
//   set_compute_threads({.threads = 4, .local_rank = 1, .local_size = 2, .pin = true});
#pragma once

#include <string>

namespace trireme {

struct ComputeThreads {
  int threads = 1;
  // This rank among those of its host, which share the cores.
  int local_rank = 0;
  int local_size = 1;
  bool pin = false;  // each thread to cores of its own (core_pinning.h)
};

// Sets every pool to threads >= 1, and this thread to be the one that computes. Call it from
// main(), before the first tensor operation. Where it cannot pin, the host's first rank logs why,
// once, and all work on unpinned.
void set_compute_threads(const ComputeThreads& options);

// "OpenBLAS 0.3.21 (openmp)", "reference BLAS (slow)", "MKL": what LibTorch's f32 matrix products
// run on, found by looking at the loaded libraries.
std::string blas_in_use();

// "AVX512_BF16", "AVX512", "AVX2", "baseline": the widest vector units of this processor that
// matter to us.
std::string vector_units();

// Keeps what malloc() gave inside the process instead of returning it page by page: libraries'
// scratch space, oneDNN's above all. Tensors have an allocator of their own
// (memory/caching_allocator.h). Call at start.
void keep_memory_pages();

// Facts on which the bits of a result depend: vector units that LibTorch, oneDNN and ops' kernels
// use, library versions; not the threads. Goes into the rendezvous fingerprint and into
// checkpoints.
std::string numerics_fingerprint();

}  // namespace trireme
