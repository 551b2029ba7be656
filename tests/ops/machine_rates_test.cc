// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/machine_rates.h"

#include <gtest/gtest.h>

#include "trireme/base/error.h"
#include "trireme/ops/threads.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;

// No processor that runs this is slower than 1e8 or faster than 1e15 of either unit.
constexpr double kSlowest = 1e8, kFastest = 1e15;

TEST(MachineRates, MeasuresMatrixProducts) {
  const double f32 = measure_gemm_flops_per_s(at::kFloat, milliseconds(40));
  EXPECT_GT(f32, kSlowest);
  EXPECT_LT(f32, kFastest);
  if (vector_units().starts_with("AVX512")) {
    EXPECT_GT(measure_gemm_flops_per_s(at::kBFloat16, milliseconds(40)), kSlowest);
  }
  EXPECT_THROW(measure_gemm_flops_per_s(at::kLong, milliseconds(40)), ShapeError);
}

TEST(MachineRates, MeasuresMemory) {
  const double rate = measure_memory_bytes_per_s(milliseconds(40));
  EXPECT_GT(rate, kSlowest);
  EXPECT_LT(rate, kFastest);
}

}  // namespace
}  // namespace trireme
