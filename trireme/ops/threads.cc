// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/threads.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <malloc.h>
#include <omp.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/base/log.h"
#include "trireme/ops/core_pinning.h"
#include "trireme/ops/kernels/matrix_product.h"

namespace trireme {
namespace {

// Function of a library that may or may not be loaded; null when it is not.
template <class Function>
Function* find_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

// The vector units of LibTorch's own kernels: ATEN_CPU_CAPABILITY, else its choice for the
// processor (1.13 stops at AVX2). Told only in a line of its description, worded alike in all
// versions.
std::string torch_vector_units() {
  const std::string config = at::show_config();
  const std::string label = "CPU capability usage: ";
  const auto begin = config.find(label);
  if (begin == std::string::npos) {
    return "vector units unknown";
  }
  const auto value = begin + label.size();
  return config.substr(value, config.find('\n', value) - value);
}

std::string openblas_name(const char* config) {
  const std::string text(config);  // "OpenBLAS 0.3.21 DYNAMIC_ARCH ... SkylakeX MAX_THREADS=64"
  const auto name_end = text.find(' ', text.find(' ') + 1);
  auto* parallel = find_function<int()>("openblas_get_parallel");
  const char* const kinds[] = {"serial", "pthread", "openmp"};
  const int kind = parallel == nullptr ? 0 : std::clamp(parallel(), 0, 2);
  return fmt::format("{} ({})", text.substr(0, name_end), kinds[kind]);
}

// Says at most once why threads are not pinned.
void place_team(const ComputeThreads& options) {
  static bool pinned = false;
  static bool told = false;
  if (!options.pin) {
    if (pinned) unpin_team(options.threads);
    pinned = false;
    return;
  }
  const std::string reason = pin_team({options.threads, options.local_rank, options.local_size});
  pinned = reason.empty();
  if (pinned || told || options.local_rank != 0) return;
  told = true;
  log_info("compute threads are not pinned to cores: {}", reason);
}

}  // namespace

void set_compute_threads(const ComputeThreads& options) {
  const int threads = options.threads;
  TRIREME_CHECK_LE(1, threads, "compute threads");
  TRIREME_CHECK_LT(options.local_rank, options.local_size, "a rank of the host");
  at::set_num_threads(threads);
  try {
    at::set_num_interop_threads(1);
  } catch (const c10::Error&) {
    // Its pool exists already; nothing of ours runs there.
  }
  omp_set_num_threads(threads);  // oneDNN's pool, and OpenBLAS's in its OpenMP build
  if (auto* set_openblas = find_function<void(int)>("openblas_set_num_threads")) {
    set_openblas(threads);  // the pthread build has a pool of its own
  }
  place_team(options);
}

std::string blas_in_use() {
  if (at::hasMKL()) {
    return "MKL";
  }
  if (auto* config = find_function<char*()>("openblas_get_config")) {
    return openblas_name(config());
  }
  if (auto* version = find_function<const char*()>("bli_info_get_version_str")) {
    return fmt::format("BLIS {}", version());
  }
  return "reference BLAS (slow)";
}

std::string vector_units() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bf16")) {
    return "AVX512_BF16";
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return "AVX512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return "AVX2";
  }
#elif defined(__aarch64__)
  return "NEON";
#endif
  return "baseline";
}

// Large blocks come from the heap instead of their own mappings, the heap is never trimmed, and it
// grows in large steps.
void keep_memory_pages() {
  constexpr int kGrowthBytes = 64 << 20;
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  mallopt(M_TOP_PAD, kGrowthBytes);
}

std::string numerics_fingerprint() {
  const dnnl_version_t* dnnl = dnnl_version();
  return fmt::format("torch {} {}; oneDNN {}.{}.{} isa {:#x}; {}; bf16 {}", TORCH_VERSION,
                     torch_vector_units(), dnnl->major, dnnl->minor, dnnl->patch,
                     static_cast<unsigned>(dnnl::get_effective_cpu_isa()), blas_in_use(),
                     ops::bf16_dot_in_use() ? "dot product" : "widened");
}

}  // namespace trireme
