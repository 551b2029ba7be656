// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The functions of NVRTC, CUDA's compiler at run time, that Trireme calls, in our own words.
#pragma once

#include <cstddef>
#include <string>

namespace trireme {

using NvrtcResult = int;
using NvrtcProgram = struct NvrtcProgramOpaque*;

constexpr NvrtcResult kNvrtcSuccess = 0;

// Constant after construction. Any thread.
struct NvrtcApi {
  // Throws ConfigError when the library cannot be had. An empty path stands for libnvrtc.so and the
  // names that the releases of CUDA 11 to 13 give it.
  explicit NvrtcApi(const std::string& path);

  const char* (*error_string)(NvrtcResult error);
  NvrtcResult (*version)(int* major, int* minor);
  NvrtcResult (*create)(NvrtcProgram* program, const char* source, const char* name,
                        int num_headers, const char* const* headers,
                        const char* const* include_names);
  NvrtcResult (*compile)(NvrtcProgram program, int num_options, const char* const* options);
  NvrtcResult (*destroy)(NvrtcProgram* program);
  NvrtcResult (*log_size)(NvrtcProgram program, std::size_t* bytes);
  NvrtcResult (*log)(NvrtcProgram program, char* text);
  NvrtcResult (*cubin_size)(NvrtcProgram program, std::size_t* bytes);
  NvrtcResult (*cubin)(NvrtcProgram program, char* image);
};

}  // namespace trireme
