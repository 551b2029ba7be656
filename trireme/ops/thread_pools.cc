// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/thread_pools.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <link.h>

#include <string_view>

namespace trireme {
namespace {

int note_runtime(dl_phdr_info* info, std::size_t /*size*/, void* context) {
  const std::string path = info->dlpi_name;
  if (is_openmp_runtime(path)) static_cast<ThreadPools*>(context)->openmp_runtimes.push_back(path);
  return 0;  // go on
}

}  // namespace

// libgomp.so.1, libomp.so.5, libiomp5.so, and with a wheel's hash: libgomp-24e2ab19.so.1; but not
// libompi or libompitrace, which are OpenMPI's.
bool is_openmp_runtime(const std::string& path) {
  const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
  for (const std::string_view runtime : {"libgomp", "libomp", "libiomp5"}) {
    if (!name.starts_with(runtime)) continue;
    const std::string_view rest = name.substr(runtime.size());
    if (rest.starts_with('.') || rest.starts_with('-')) return true;
  }
  return false;
}

ThreadPools loaded_thread_pools() {
  constexpr int kPthreadBuild = 1;  // what openblas_get_parallel() returns, says its cblas.h
  ThreadPools pools;
  dl_iterate_phdr(note_runtime, &pools);
  auto* parallel = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_parallel"));
  pools.openblas_has_its_own = parallel != nullptr && parallel() == kPthreadBuild;
  return pools;
}

std::vector<std::string> thread_pool_advice(const ThreadPools& pools) {
  std::vector<std::string> advice;
  if (pools.openmp_runtimes.size() > 1) {
    advice.push_back(
        fmt::format("{} OpenMP runtimes are loaded, whose threads compete for the same cores ({}): "
                    "build trireme with the compiler and libraries that LibTorch was built with",
                    pools.openmp_runtimes.size(), fmt::join(pools.openmp_runtimes, ", ")));
  }
  if (pools.openblas_has_its_own) {
    advice.push_back(
        "OpenBLAS has threads of its own, which compete with OpenMP's for the same cores: install "
        "libopenblas0-openmp");
  }
  return advice;
}

}  // namespace trireme
