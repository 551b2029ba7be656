// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The error of a launch that CUDA refuses, out of the way of the device compiler.
#pragma once

namespace trireme::ops::cuda::detail {

// Throws Error. kernel: its name; reason: CUDA's text.
[[noreturn]] void throw_launch_error(const char* kernel, const char* reason);

}  // namespace trireme::ops::cuda::detail
