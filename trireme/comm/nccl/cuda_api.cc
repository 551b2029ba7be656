// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/cuda_api.h"

#include "trireme/comm/nccl/shared_library.h"

namespace trireme {

CudaApi::CudaApi(const std::string& path) {
  const std::string names[] = {path.empty() ? "libcuda.so.1" : path};
  const SharedLibrary library("the CUDA driver", names);
  library.find("cuInit", init);
  library.find("cuGetErrorName", get_error_name);
  library.find("cuGetErrorString", get_error_string);
  library.find("cuDeviceGetCount", device_count);
  library.find("cuDeviceGet", device_get);
  library.find("cuDeviceGetAttribute", device_attribute);
  library.find("cuDeviceGetPCIBusId", device_bus_id);
  library.find("cuDevicePrimaryCtxRetain", context_retain);
  library.find("cuDevicePrimaryCtxRelease_v2", context_release);
  library.find("cuCtxPushCurrent_v2", context_push);
  library.find("cuCtxPopCurrent_v2", context_pop);
  library.find("cuStreamCreate", stream_create);
  library.find("cuStreamDestroy_v2", stream_destroy);
  library.find("cuEventCreate", event_create);
  library.find("cuEventRecord", event_record);
  library.find("cuEventQuery", event_query);
  library.find("cuEventDestroy_v2", event_destroy);
  library.find("cuMemAlloc_v2", memory_allocate);
  library.find("cuMemFree_v2", memory_free);
  library.find("cuMemcpyAsync", copy);
  library.find("cuModuleLoadData", module_load);
  library.find("cuModuleUnload", module_unload);
  library.find("cuModuleGetFunction", module_function);
  library.find("cuLaunchKernel", launch);
}

}  // namespace trireme
