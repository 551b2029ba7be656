// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One setting for all thread pools of a process: LibTorch's, OpenMP's, OpenBLAS's and oneDNN's.
#pragma once

#include <string>

namespace trireme {

// Sets every pool to threads >= 1. Call once, before the first tensor operation.
void set_compute_threads(int threads);

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

// Facts on which the bits of a result depend: vector units that LibTorch and oneDNN use, threads,
// library versions. Goes into the rendezvous fingerprint and into checkpoints.
std::string numerics_fingerprint();

}  // namespace trireme
