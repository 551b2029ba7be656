// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/reduction_kernels.h"

#include <iterator>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr char kSource[] =
#include "trireme/comm/nccl/reduction_kernel_text.h"
    ;

constexpr std::pair<DType, DType> kDTypes[] = {
    {DType::kF32, DType::kF32},  {DType::kF64, DType::kF64},  {DType::kBF16, DType::kBF16},
    {DType::kBF16, DType::kF32}, {DType::kF32, DType::kBF16}, {DType::kF16, DType::kF16},
    {DType::kF16, DType::kF32},  {DType::kF32, DType::kF16},  {DType::kI8, DType::kI8},
    {DType::kU8, DType::kU8},    {DType::kI32, DType::kI32},  {DType::kI64, DType::kI64}};
// A mean is a sum with a divisor.
constexpr std::pair<ReduceOp, std::string_view> kOps[] = {{ReduceOp::kSum, "sum"},
                                                          {ReduceOp::kMin, "min"},
                                                          {ReduceOp::kMax, "max"},
                                                          {ReduceOp::kProduct, "product"}};

struct Program {
  explicit Program(const NvrtcApi& api) : nvrtc(api) {}
  ~Program() {
    if (program != nullptr) nvrtc.destroy(&program);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  std::string log() const {
    std::size_t bytes = 0;
    nvrtc.log_size(program, &bytes);
    std::string text(bytes, '\0');
    nvrtc.log(program, text.data());
    return text.substr(0, text.find('\0'));
  }
  void check(NvrtcResult result, std::string_view call, const std::string& architecture) const {
    if (result == kNvrtcSuccess) return;
    int major = 0;
    int minor = 0;
    nvrtc.version(&major, &minor);
    throw_error<ConfigError>(
        "NVRTC {}.{} cannot compile the reduction for {}: {} says {} {}; a device that is newer "
        "than the compiler wants a newer one, see WorldOptions::cuda",
        major, minor, architecture, call, nvrtc.error_string(result), log());
  }

  const NvrtcApi& nvrtc;
  NvrtcProgram program = nullptr;
};

}  // namespace

std::string_view reduction_source() { return kSource; }

std::string compile_reduction(const NvrtcApi& nvrtc, const std::string& architecture) {
  Program source(nvrtc);
  const NvrtcResult made =
      nvrtc.create(&source.program, kSource, "reduction_kernel.cu", 0, nullptr, nullptr);
  source.check(made, "nvrtcCreateProgram", architecture);
  const std::string target = "--gpu-architecture=" + architecture;
  const char* options[] = {target.c_str(), "-fmad=false", "-ftz=false", "-prec-div=true",
                           "--std=c++17"};
  source.check(nvrtc.compile(source.program, static_cast<int>(std::size(options)), options),
               "nvrtcCompileProgram", architecture);
  std::size_t bytes = 0;
  source.check(nvrtc.cubin_size(source.program, &bytes), "nvrtcGetCUBINSize", architecture);
  std::string image(bytes, '\0');
  source.check(nvrtc.cubin(source.program, image.data()), "nvrtcGetCUBIN", architecture);
  return image;
}

ReductionKernels::ReductionKernels(const CudaDevice& device, const NvrtcApi& nvrtc)
    : device_(device) {
  const CudaDevice::Current current(device);
  const std::string image = compile_reduction(nvrtc, device.architecture());
  device.check(device.api().module_load(&module_, image.data()), "cuModuleLoadData");
  for (const auto& [in, out] : kDTypes) {
    for (const auto& [op, name] : kOps) {
      Entry entry{in, out, op, nullptr};
      const std::string kernel =
          fmt::format("trireme_reduce_{}_{}_{}", dtype_name(in), dtype_name(out), name);
      device.check(device.api().module_function(&entry.function, module_, kernel.c_str()),
                   "cuModuleGetFunction");
      entries_.push_back(entry);
    }
  }
}

ReductionKernels::~ReductionKernels() {
  const CudaDevice::Current current(device_);
  device_.api().module_unload(module_);
}

CuFunction ReductionKernels::find(DType in, DType out, ReduceOp op) const {
  if (op == ReduceOp::kMean) op = ReduceOp::kSum;
  for (const Entry& entry : entries_) {
    if (entry.in == in && entry.out == out && entry.op == op) return entry.function;
  }
  TRIREME_ASSERT(false, "{} cannot become {}", dtype_name(in), dtype_name(out));
  return nullptr;
}

}  // namespace trireme
