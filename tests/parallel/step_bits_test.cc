// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A whole training step gives the same bits on any number of threads.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>

#include "tests/support/compute_threads.h"
#include "tests/support/flat_optimizer.h"
#include "tests/support/model_fixtures.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

// Rows and tokens across a block of each kernel.
nn::ModelConfig two_block_config(const std::string& family) {
  nn::ModelConfig config;
  config.family = family;
  config.layers = 2;
  config.width = 48;
  config.heads = 6;
  config.kv_heads = family == "llama" ? 2 : 0;
  config.mlp_width = 130;
  config.context = 205;
  config.vocab_size = 331;
  config.resolve(0);
  return config;
}

struct StepResult {
  at::Tensor loss, gradients, weights, working_copy;
  double norm = 0;
};

// Two steps: the second starts from weights that the first has changed.
StepResult run_steps(const std::string& family, at::ScalarType dtype, int threads) {
  const testing::ComputeThreads compute_threads(threads);
  nn::Transformer model(two_block_config(family));
  nn::initialize(*model, 5);
  FlatParameters flat(*model, dtype);
  StepResult result;
  result.weights = flat.data().to(at::kFloat);
  testing::FlatOptimizer adamw({.stochastic_rounding = true}, flat.size(), {{0, flat.size() / 2}});
  for (const std::int64_t salt : {0, 1}) {
    flat.zero_grad();
    const at::Tensor loss = model->loss(testing::formula_tokens(2, 205, 331, salt),
                                        testing::formula_tokens(2, 205, 331, salt + 1));
    flat.backward(loss);
    result.loss = loss.detach();
    result.gradients = flat.grad().clone();
    result.norm = optim::global_norm(flat.grad());
    adamw.step({.weights = result.weights,
                .gradients = flat.grad(),
                .learning_rate = 1e-2,
                .gradient_scale = optim::clip_scale(result.norm, 1.0),
                .working_copy = dtype == at::kBFloat16 ? flat.data() : at::Tensor(),
                .clear_gradients = true});
    if (dtype == at::kFloat) flat.data().copy_(result.weights);
  }
  result.working_copy = flat.data();
  return result;
}

TEST(StepBits, DoNotDependOnThreads) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const StepResult expected = run_steps(family, dtype, 1);
      EXPECT_GT(expected.norm, 0.0);
      for (const int threads : {2, 3}) {
        SCOPED_TRACE(family + ", " + c10::toString(dtype) + " on " + std::to_string(threads));
        const StepResult result = run_steps(family, dtype, threads);
        EXPECT_TRUE(result.loss.equal(expected.loss));
        EXPECT_TRUE(result.gradients.equal(expected.gradients));
        EXPECT_EQ(result.norm, expected.norm);
        EXPECT_TRUE(result.weights.equal(expected.weights));
        EXPECT_TRUE(result.working_copy.equal(expected.working_copy));
      }
    }
  }
}

}  // namespace
}  // namespace trireme
