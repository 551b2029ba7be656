// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The driver's half of the double, and NVRTC's.

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/fake_device.h"

namespace fake {
namespace {

std::mutex mutex;
std::string misuses;  // guarded by mutex
thread_local std::vector<int> contexts;

constexpr int kInvalid = 1;
constexpr int kNotFound = 500;
constexpr int kNotReady = 600;

int contextual(const char* call) {
  return contexts.empty() ? misuse(std::string(call) + " without a context", 201) : 0;
}

}  // namespace

int misuse(const std::string& text, int result) {
  const std::lock_guard lock(mutex);
  misuses += text + "\n";
  return result;
}
int current_device() { return contexts.empty() ? -1 : contexts.back(); }

}  // namespace fake

using fake::host_of;
using fake::is_device;
using fake::misuse;

struct FakeEvent {
  std::shared_ptr<std::atomic<bool>> done = std::make_shared<std::atomic<bool>>(true);
};
struct FakeModule {
  std::string source;
};
struct FakeProgram {
  std::string source;
  bool compiled = false;
};

// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's.
extern "C" {

// All misuse so far, a line each; forgets it.
void trireme_fake_misuse(char* text, std::size_t size) {
  const std::lock_guard lock(fake::mutex);
  const std::size_t n = std::min(size - 1, fake::misuses.size());
  std::memcpy(text, fake::misuses.data(), n);
  text[n] = '\0';
  fake::misuses.clear();
}

int cuInit(unsigned flags) { return flags == 0 ? 0 : fake::kInvalid; }
int cuGetErrorName(int error, const char** name) {
  *name = error == 0 ? "CUDA_SUCCESS" : "CUDA_ERROR_OF_THE_DOUBLE";
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "an error of the double";
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = fake::kDevices;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < fake::kDevices ? 0 : 101;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : 0;
  return attribute == 75 || attribute == 76 ? 0 : fake::kInvalid;
}
int cuDeviceGetPCIBusId(char* id, int size, int device) {
  const std::string text = "0000:0" + std::to_string(device) + ":00.0";
  if (size <= static_cast<int>(text.size())) return fake::kInvalid;
  std::memcpy(id, text.c_str(), text.size() + 1);
  return 0;
}
int cuDevicePrimaryCtxRetain(std::uintptr_t* context, int device) {
  *context = static_cast<std::uintptr_t>(device) + 1;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxPushCurrent_v2(std::uintptr_t context) {
  if (context == 0) return misuse("a context of nothing", fake::kInvalid);
  fake::contexts.push_back(static_cast<int>(context) - 1);
  return 0;
}
int cuCtxPopCurrent_v2(std::uintptr_t* context) {
  if (fake::contexts.empty()) return misuse("a context too often popped", fake::kInvalid);
  *context = static_cast<std::uintptr_t>(fake::contexts.back()) + 1;
  fake::contexts.pop_back();
  return 0;
}

int cuStreamCreate(fake::Stream** stream, unsigned flags) {
  if (const int error = fake::contextual("cuStreamCreate")) return error;
  if (flags != 1) return misuse("a stream that waits for the default one", fake::kInvalid);
  *stream = new fake::Stream(fake::current_device());
  return 0;
}
int cuStreamDestroy_v2(fake::Stream* stream) {
  if (const int error = fake::contextual("cuStreamDestroy")) return error;
  delete stream;
  return 0;
}
int cuEventCreate(FakeEvent** event, unsigned flags) {
  if (const int error = fake::contextual("cuEventCreate")) return error;
  *event = new FakeEvent;
  return flags == 2 ? 0 : fake::kInvalid;
}
int cuEventRecord(FakeEvent* event, fake::Stream* stream) {
  if (const int error = fake::contextual("cuEventRecord")) return error;
  if (stream->device() != fake::current_device()) return misuse("an event elsewhere", 400);
  event->done = std::make_shared<std::atomic<bool>>(false);
  stream->put([done = event->done] { done->store(true); });
  return 0;
}
int cuEventQuery(FakeEvent* event) {
  if (const int error = fake::contextual("cuEventQuery")) return error;
  return event->done->load() ? 0 : fake::kNotReady;
}
int cuEventDestroy_v2(FakeEvent* event) {
  if (const int error = fake::contextual("cuEventDestroy")) return error;
  delete event;
  return 0;
}

int cuMemAlloc_v2(std::uint64_t* memory, std::size_t bytes) {
  if (const int error = fake::contextual("cuMemAlloc")) return error;
  if (bytes == 0) return misuse("cuMemAlloc of nothing", fake::kInvalid);
  *memory = reinterpret_cast<std::uintptr_t>(new std::byte[bytes]) + fake::kDeviceShift;
  return 0;
}
int cuMemFree_v2(std::uint64_t memory) {
  if (const int error = fake::contextual("cuMemFree")) return error;
  if (!is_device(memory)) return misuse("cuMemFree of host memory", fake::kInvalid);
  delete[] host_of(memory);
  return 0;
}
// From host memory the caller may go on with it at once, as with what is not pinned.
int cuMemcpyAsync(std::uint64_t to, std::uint64_t from, std::size_t bytes, fake::Stream* stream) {
  if (const int error = fake::contextual("cuMemcpyAsync")) return error;
  if (!is_device(to) && !is_device(from)) return misuse("a copy without a device", fake::kInvalid);
  if (bytes == 0) return misuse("a copy of nothing", fake::kInvalid);
  auto* target = is_device(to) ? host_of(to) : reinterpret_cast<std::byte*>(to);
  if (is_device(from)) {
    stream->put([=] { std::memcpy(target, host_of(from), bytes); });
  } else {
    const auto* source = reinterpret_cast<const std::byte*>(from);
    stream->put([target, kept = std::vector<std::byte>(source, source + bytes)] {
      std::memcpy(target, kept.data(), kept.size());
    });
  }
  return 0;
}

int cuModuleLoadData(FakeModule** module, const void* image) {
  if (const int error = fake::contextual("cuModuleLoadData")) return error;
  const auto* text = static_cast<const char*>(image);
  if (std::strncmp(text, "sm_90\n", 6) != 0) return misuse("code for another device", 209);
  *module = new FakeModule{text};
  return 0;
}
int cuModuleUnload(FakeModule* module) {
  delete module;
  return 0;
}
int cuModuleGetFunction(fake::Kernel* function, FakeModule* module, const char* name) {
  if (const int error = fake::contextual("cuModuleGetFunction")) return error;
  *function = module->source.empty() ? nullptr : fake::find_kernel(name);
  return *function != nullptr ? 0 : fake::kNotFound;
}
int cuLaunchKernel(fake::Kernel kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   fake::Stream* stream, void** arguments, void** extra) {
  if (const int error = fake::contextual("cuLaunchKernel")) return error;
  if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x == 0 || block_x > 1024 || block_y != 1 ||
      block_z != 1 || shared_bytes != 0 || extra != nullptr) {
    return misuse("a launch of another shape", fake::kInvalid);
  }
  const auto pointer = [&](int i) { return *static_cast<std::uint64_t*>(arguments[i]); };
  const std::uint64_t table = pointer(0);
  const std::uint64_t combines = pointer(1);
  const std::uint64_t out = pointer(4);
  const int num_inputs = *static_cast<int*>(arguments[2]);
  const int divisor = *static_cast<int*>(arguments[3]);
  const long long count = *static_cast<long long*>(arguments[5]);
  if (!is_device(table) || !is_device(combines) || !is_device(out) || num_inputs < 1) {
    return misuse("a kernel with arguments on the host", fake::kInvalid);
  }
  stream->put([=] {
    std::vector<const void*> inputs;
    for (int i = 0; i < num_inputs; ++i) {
      std::uint64_t input = 0;
      std::memcpy(&input, host_of(table) + sizeof(input) * static_cast<std::size_t>(i),
                  sizeof(input));
      if (!is_device(input)) return void(misuse("an input on the host", 0));
      inputs.push_back(host_of(input));
    }
    kernel({inputs.data(), reinterpret_cast<const unsigned char*>(host_of(combines)), num_inputs,
            divisor, host_of(out), count},
           grid_x, block_x);
  });
  return 0;
}

const char* nvrtcGetErrorString(int) { return "an error of the double"; }
int nvrtcVersion(int* major, int* minor) {
  *major = 12;
  *minor = 0;
  return 0;
}
int nvrtcCreateProgram(FakeProgram** program, const char* source, const char*, int num_headers,
                       const char* const*, const char* const*) {
  *program = new FakeProgram{source};
  return num_headers == 0 ? 0 : fake::kInvalid;
}
int nvrtcCompileProgram(FakeProgram* program, int num_options, const char* const* options) {
  std::string all;
  for (int i = 0; i < num_options; ++i) all += std::string(options[i]) + " ";
  for (const char* needed : {"--gpu-architecture=sm_90 ", "-fmad=false ", "-ftz=false "}) {
    if (all.find(needed) == std::string::npos) return misuse("compiled with " + all, 5);
  }
  program->compiled = true;
  return 0;
}
int nvrtcDestroyProgram(FakeProgram** program) {
  delete *program;
  *program = nullptr;
  return 0;
}
int nvrtcGetProgramLogSize(FakeProgram*, std::size_t* bytes) {
  *bytes = 1;
  return 0;
}
int nvrtcGetProgramLog(FakeProgram*, char* text) {
  *text = '\0';
  return 0;
}
int nvrtcGetCUBINSize(FakeProgram* program, std::size_t* bytes) {
  *bytes = program->source.size() + 7;
  return program->compiled ? 0 : fake::kInvalid;
}
int nvrtcGetCUBIN(FakeProgram* program, char* image) {
  const std::string text = "sm_90\n" + program->source;
  std::memcpy(image, text.c_str(), text.size() + 1);
  return 0;
}
}
// NOLINTEND(readability-identifier-naming)
