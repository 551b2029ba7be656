// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model that is moved to a device trains there as on the CPU: forward, backward, clipped step.
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <string>

#include "tests/support/devices.h"
#include "tests/support/flat_optimizer.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/operation.h"
#include "trireme/base/error.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using testing::formula_tokens;

class StepsOnDevice : public ::testing::TestWithParam<c10::Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, StepsOnDevice, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

struct Steps {
  std::vector<double> losses;
  at::Tensor first_gradients, weights;  // on the CPU
};

Steps run_steps(const std::string& family, at::ScalarType dtype, c10::Device device,
                nn::Recompute recompute = nn::Recompute::kNone) {
  nn::Transformer model(testing::small_model_config(family));
  nn::initialize(*model, 3);
  model->to(device);
  model->set_recompute(recompute);
  FlatParameters flat(*model, dtype);
  const at::Tensor weights = flat.data().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  testing::FlatOptimizer adamw({.stochastic_rounding = false}, flat.size(), {{0, flat.size() / 2}},
                               device);
  Steps result;
  for (std::int64_t step = 0; step < 5; ++step) {
    const auto tokens = [&](std::int64_t salt) {
      return formula_tokens(4, 11, 37, salt).to(device);
    };
    const at::Tensor loss = model->loss(tokens(0), tokens(1));
    flat.backward(loss);
    flat.check_views();
    result.losses.push_back(loss.item<double>());
    if (step == 0) result.first_gradients = flat.grad().to(at::kCPU, at::kFloat, false, true);
    const at::Tensor norm = optim::global_norm_on_device(flat.grad());
    adamw.step({.weights = weights,
                .gradients = flat.grad(),
                .learning_rate = 1e-2,
                .working_copy = dtype == at::kBFloat16 ? flat.data() : at::Tensor(),
                .clear_gradients = true,
                .gradient_factor = optim::clip_scale(norm, 1.0)});
    if (dtype == at::kFloat) flat.data().copy_(weights);
    EXPECT_EQ(flat.grad().abs().max().item<double>(), 0.0);
  }
  result.weights = weights.to(at::kCPU);
  return result;
}

TEST_P(StepsOnDevice, FollowTheCpu) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto& precision : {testing::kF32, testing::kBf16}) {
      SCOPED_TRACE(family + ", " + c10::toString(precision.dtype));
      const Steps expected = run_steps(family, precision.dtype, at::kCPU);
      const Steps actual = run_steps(family, precision.dtype, GetParam());
      EXPECT_LT(actual.losses.back(), actual.losses.front() - 0.05);
      // Both follow the exact gradient within the tolerance of one operation, some ten deep.
      const double tolerance = 10 * testing::tolerance_on(GetParam(), precision);
      testing::expect_close(actual.first_gradients, expected.first_gradients, tolerance,
                            "gradients");
      for (std::size_t i = 0; i < expected.losses.size(); ++i) {
        EXPECT_NEAR(actual.losses[i], expected.losses[i], tolerance * expected.losses[i]) << i;
      }
    }
  }
}

// Recomputation and a second run change no bit (attention's fused backward on a device may).
TEST_P(StepsOnDevice, RecomputationChangesNothing) {
  for (const std::string family : {"gpt2", "llama"}) {
    const Steps kept = run_steps(family, at::kFloat, GetParam());
    for (const auto recompute : {nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
      const Steps again = run_steps(family, at::kFloat, GetParam(), recompute);
      if (GetParam().is_cpu()) {
        EXPECT_TRUE(again.weights.equal(kept.weights)) << family;
      } else {
        testing::expect_close(again.first_gradients, kept.first_gradients, 1e-5, family);
      }
    }
  }
}

TEST_P(StepsOnDevice, DecodingWithACacheEqualsForward) {
  for (const std::string family : {"gpt2", "llama"}) {
    nn::Transformer model(testing::small_model_config(family));
    nn::initialize(*model, 3);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = formula_tokens(3, 11, 37);
    const at::Tensor expected = model->forward(tokens);
    model->to(GetParam());
    nn::KvCache cache;
    std::int64_t done = 0;
    for (const std::int64_t chunk : {4, 1, 3, 1, 1, 1}) {
      const at::Tensor logits = model->decode(tokens.narrow(1, done, chunk).to(GetParam()), cache);
      done += chunk;
      testing::expect_close(logits, expected.select(1, done - 1), 5e-5, family);
    }
  }
}

TEST(FlatParameters, WantsOneDevice) {
  torch::nn::Module module;
  module.register_parameter("here", torch::ones({3}));
  module.register_parameter("there", torch::ones({3}, at::TensorOptions().device(at::kMeta)));
  EXPECT_THROW(FlatParameters(module, at::kFloat), ShapeError);
}

}  // namespace
}  // namespace trireme
