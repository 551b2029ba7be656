// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The devices that operations are tested on: the CPU, and the first CUDA device where there is one
// and this build has kernels for it.
//
//   class OnDevice : public ::testing::TestWithParam<c10::Device> {};
//   INSTANTIATE_TEST_SUITE_P(Devices, OnDevice, ::testing::ValuesIn(testing::devices()),
//                            testing::device_name);
#pragma once

#include <ATen/Context.h>
#include <c10/core/Device.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "trireme/ops/tensor_view.h"

namespace trireme::testing {

inline bool tests_cuda() { return ops::kHasCudaKernels && at::hasCUDA(); }

inline std::vector<c10::Device> devices() {
  std::vector<c10::Device> all{at::kCPU};
  if (tests_cuda()) all.emplace_back(at::kCUDA, c10::DeviceIndex{0});
  return all;
}

inline std::string device_name(const ::testing::TestParamInfo<c10::Device>& test) {
  return test.param.is_cpu() ? "cpu" : "cuda";
}

}  // namespace trireme::testing
