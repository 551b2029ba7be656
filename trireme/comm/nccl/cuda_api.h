// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The functions of the CUDA driver that Trireme calls, in our own words: NVIDIA's headers are not
// needed to build. Values are those of the driver's stable ABI; names as there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace trireme {

using CuResult = int;
using CuDevice = int;
using CuPointer = std::uint64_t;
using CuContext = struct CuContextOpaque*;
using CuStream = struct CuStreamOpaque*;
using CuEvent = struct CuEventOpaque*;
using CuModule = struct CuModuleOpaque*;
using CuFunction = struct CuFunctionOpaque*;

constexpr CuResult kCuSuccess = 0;
constexpr CuResult kCuNotReady = 600;
constexpr unsigned kCuStreamNonBlocking = 1;
constexpr unsigned kCuEventDisableTiming = 2;
constexpr int kCuComputeCapabilityMajor = 75;
constexpr int kCuComputeCapabilityMinor = 76;

// Constant after construction. Any thread.
struct CudaApi {
  // Throws ConfigError when the library, libcuda.so.1 when path is empty, cannot be had.
  explicit CudaApi(const std::string& path);

  CuResult (*init)(unsigned flags);
  CuResult (*get_error_name)(CuResult error, const char** name);
  CuResult (*get_error_string)(CuResult error, const char** text);
  CuResult (*device_count)(int* count);
  CuResult (*device_get)(CuDevice* device, int ordinal);
  CuResult (*device_attribute)(int* value, int attribute, CuDevice device);
  CuResult (*device_bus_id)(char* id, int size, CuDevice device);
  CuResult (*context_retain)(CuContext* context, CuDevice device);
  CuResult (*context_release)(CuDevice device);
  CuResult (*context_push)(CuContext context);
  CuResult (*context_pop)(CuContext* context);
  CuResult (*stream_create)(CuStream* stream, unsigned flags);
  CuResult (*stream_destroy)(CuStream stream);
  CuResult (*event_create)(CuEvent* event, unsigned flags);
  CuResult (*event_record)(CuEvent event, CuStream stream);
  CuResult (*event_query)(CuEvent event);
  CuResult (*event_destroy)(CuEvent event);
  CuResult (*memory_allocate)(CuPointer* memory, std::size_t bytes);
  CuResult (*memory_free)(CuPointer memory);
  CuResult (*copy)(CuPointer to, CuPointer from, std::size_t bytes, CuStream stream);
  CuResult (*module_load)(CuModule* module, const void* image);
  CuResult (*module_unload)(CuModule module);
  CuResult (*module_function)(CuFunction* function, CuModule module, const char* name);
  CuResult (*launch)(CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                     unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                     CuStream stream, void** arguments, void** extra);
};

}  // namespace trireme
