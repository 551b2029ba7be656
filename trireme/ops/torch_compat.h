// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The one header that knows LibTorch's versions (1.13 to 2.14). Everything else is written once.
#pragma once

#include <torch/version.h>

#include <string>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/Version.h>
#else
#include <ATen/native/DispatchStub.h>
#endif

namespace trireme::compat {

// The vector units that LibTorch's own kernels use: "DEFAULT", "AVX2", "AVX512", ... Set by
// ATEN_CPU_CAPABILITY, else chosen for the processor (1.13 stops at AVX2).
inline std::string torch_vector_units() {
#if TORCH_VERSION_MAJOR >= 2
  return at::get_cpu_capability();
#else
  switch (static_cast<int>(at::native::get_cpu_capability())) {
    case 0:
      return "DEFAULT";
#if defined(__x86_64__)
    case 1:
      return "AVX2";
    case 2:
      return "AVX512";
#endif
    default:
      return "vector";
  }
#endif
}

}  // namespace trireme::compat
