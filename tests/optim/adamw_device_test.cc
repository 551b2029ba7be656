// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The optimizer gives the same bits on every device.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/devices.h"
#include "tests/support/flat_optimizer.h"
#include "tests/support/operation.h"
#include "trireme/base/error.h"
#include "trireme/optim/gradient_norm.h"

namespace trireme {
namespace {

using testing::FlatOptimizer;
using testing::normal;

class OptimizerOnDevice : public ::testing::TestWithParam<c10::Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OptimizerOnDevice, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

struct Result {
  at::Tensor weights, first, second, copy, again;

  testing::Tensors all() const {
    testing::Tensors all;
    for (const at::Tensor& each : {weights, first, second, copy, again}) {
      all.push_back(each.to(at::kCPU));
    }
    return all;
  }
};

Result run(c10::Device device, bool stochastic) {
  constexpr std::int64_t kSize = 100'003;
  const auto there = [&](std::uint64_t stream) {
    return normal({kSize}, stream).to(device, at::kFloat);
  };
  FlatOptimizer adamw({.stochastic_rounding = stochastic}, kSize,
                      {{3, 1000}, {1000, 1001}, {5000, 90'000}}, device);
  const auto bf16 = at::TensorOptions().dtype(at::kBFloat16).device(device);
  Result result{there(0), adamw.moment(0), adamw.moment(1), torch::empty({kSize}, bf16),
                torch::empty({kSize}, bf16)};
  const at::Tensor factor =
      torch::full({}, 0.7, at::TensorOptions().dtype(at::kFloat).device(device));
  for (std::uint64_t step = 1; step <= 3; ++step) {
    const at::Tensor gradients = there(step);
    adamw.step({.weights = result.weights,
                .gradients = gradients,
                .learning_rate = 0.01,
                .gradient_scale = 0.37,
                .working_copy = result.copy,
                .clear_gradients = true,
                .gradient_factor = factor});
    EXPECT_EQ(gradients.abs().max().item<float>(), 0.0F);
  }
  adamw.round(result.weights, result.again);
  return result;
}

TEST_P(OptimizerOnDevice, HasTheBitsOfTheCpu) {
  for (const bool stochastic : {false, true}) {
    const Result result = run(GetParam(), stochastic);
    EXPECT_TRUE(testing::same_bits(result.all(), run(at::kCPU, stochastic).all())) << stochastic;
    EXPECT_TRUE(result.again.equal(result.copy)) << stochastic;
  }
}

TEST_P(OptimizerOnDevice, NormsHaveTheBitsOfTheCpu) {
  for (const std::int64_t size : {0, 1, 17, 4096, 4097, 12'289, 300'007}) {
    const at::Tensor values = normal({size}, 3).to(at::kFloat), there = values.to(GetParam());
    const double norm = optim::global_norm(values);
    EXPECT_EQ(optim::global_norm(there), norm) << size;
    const at::Tensor kept = optim::global_norm_on_device(there);
    EXPECT_EQ(kept.device(), there.device());
    EXPECT_EQ(kept.item<double>(), norm) << size;
    for (const double most : {0.0, 0.5, 1e9}) {
      EXPECT_EQ(optim::clip_scale(kept, most).item<float>(),
                static_cast<float>(optim::clip_scale(norm, most)))
          << size << " to " << most;
    }
  }
}

TEST_P(OptimizerOnDevice, RefusesBuffersElsewhere) {
  FlatOptimizer adamw({}, 8, {}, GetParam());
  const auto elsewhere = torch::zeros({8}, at::TensorOptions().device(at::kMeta)),
             here = torch::zeros({8}, at::TensorOptions().device(GetParam()));
  EXPECT_THROW(adamw.step({.weights = elsewhere, .gradients = here}), ShapeError);
  EXPECT_THROW(adamw.step({.weights = here, .gradients = elsewhere}), ShapeError);
  EXPECT_THROW(adamw.step({.weights = here, .gradients = here, .gradient_factor = here}),
               ShapeError);
  EXPECT_EQ(adamw.get().steps(), 0);
  EXPECT_THROW(FlatOptimizer({}, 8, {}, at::kMeta), ShapeError);
  EXPECT_THROW(optim::global_norm(elsewhere), ShapeError);
}

}  // namespace
}  // namespace trireme
