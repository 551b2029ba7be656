// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nvrtc_api.h"

#include <vector>

#include "trireme/comm/nccl/shared_library.h"

namespace trireme {

NvrtcApi::NvrtcApi(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) {
    names = {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"};
  }
  const SharedLibrary library("NVRTC, CUDA's compiler at run time,", names);
  library.find("nvrtcGetErrorString", error_string);
  library.find("nvrtcVersion", version);
  library.find("nvrtcCreateProgram", create);
  library.find("nvrtcCompileProgram", compile);
  library.find("nvrtcDestroyProgram", destroy);
  library.find("nvrtcGetProgramLogSize", log_size);
  library.find("nvrtcGetProgramLog", log);
  library.find("nvrtcGetCUBINSize", cubin_size);
  library.find("nvrtcGetCUBIN", cubin);
}

}  // namespace trireme
