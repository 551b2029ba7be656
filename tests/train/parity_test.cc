// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Twenty AdamW steps against PyTorch's figures (tests/golden/parity_*.json, made by
// tools/make_parity_golden.py). With TRIREME_PARITY_OUT set to a folder, each test writes its
// figures there as parity_<family>.json.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/flat_optimizer.h"
#include "trireme/nn/transformer.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/schedule.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using nlohmann::json;

// Relative. Other vector units and other BLAS kernels move the figures by up to 1e-6; the smallest
// mistake tried, GELU by erf instead of tanh, moves them by 1.1e-4.
constexpr double kTolerance = 2e-5;

struct Figures {
  std::vector<double> losses, gradient_norms;
};

nn::ModelConfig model_config(const json& model) {
  nn::ModelConfig config;
  config.family = model.at("family");
  config.layers = model.at("layers");
  config.width = model.at("width");
  config.heads = model.at("heads");
  config.kv_heads = model.at("kv_heads");
  config.mlp_width = model.at("mlp_width");
  config.context = model.at("context");
  config.vocab_size = model.at("vocab_size");
  config.norm_epsilon = model.at("norm_epsilon");
  config.rope_theta = model.at("rope_theta");
  config.tie_head = model.at("tie_head");
  config.resolve(0);
  return config;
}

// Inputs and targets; the formula is shared with the script.
std::pair<at::Tensor, at::Tensor> parity_batch(const nn::ModelConfig& config, const json& training,
                                               std::int64_t step, std::int64_t micro_batch) {
  const std::int64_t sequences = training.at("sequences");
  const std::int64_t micro_batches = training.at("micro_batches");
  at::Tensor tokens = torch::empty({sequences, config.context + 1}, at::kLong);
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int64_t number = (step * micro_batches + micro_batch) * sequences + s;
    for (std::int64_t i = 0; i <= config.context; ++i) {
      tokens[s][i] = (number * 37 + (number % 3 * 4 + 1) * i) % config.vocab_size;
    }
  }
  return {tokens.narrow(1, 0, config.context), tokens.narrow(1, 1, config.context)};
}

testing::Ranges decay_ranges(const nn::Transformer& model, const FlatParameters& flat) {
  const auto parameters = nn::parameters_with_roles(*model);
  testing::Ranges ranges;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const FlatEntry& entry = flat.entries().at(i);
    if (nn::decays(parameters[i].role)) {
      ranges.push_back({entry.offset, entry.offset + entry.count});
    }
  }
  return ranges;
}

Figures train(const nn::ModelConfig& config, const json& training) {
  nn::Transformer model(config);
  nn::initialize(*model, training.at("seed").get<std::uint64_t>());
  FlatParameters flat(*model, at::kFloat);
  testing::FlatOptimizer adamw({.beta1 = training.at("beta1").get<double>(),
                                .beta2 = training.at("beta2").get<double>(),
                                .epsilon = training.at("epsilon").get<double>(),
                                .weight_decay = training.at("weight_decay").get<double>()},
                               flat.size(), decay_ranges(model, flat));
  const optim::ScheduleConfig schedule{.learning_rate = training.at("learning_rate"),
                                       .decay = "cosine",
                                       .warmup_steps = training.at("warmup_steps"),
                                       .final_fraction = training.at("final_fraction")};
  const std::int64_t steps = training.at("steps");
  const std::int64_t micro_batches = training.at("micro_batches");
  const double average = 1.0 / static_cast<double>(micro_batches);
  Figures figures;
  for (std::int64_t step = 0; step < steps; ++step) {
    flat.zero_grad();
    double loss = 0.0;
    for (std::int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      const auto [inputs, targets] = parity_batch(config, training, step, micro_batch);
      const at::Tensor part = model->loss(inputs, targets);
      part.backward();
      loss += part.item<double>() * average;
    }
    const double norm = optim::global_norm(flat.grad()) * average;
    const double scale = average * optim::clip_scale(norm, training.at("max_norm"));
    adamw.step({.weights = flat.data(),
                .gradients = flat.grad(),
                .learning_rate = optim::learning_rate_at(schedule, step, steps),
                .gradient_scale = scale});
    figures.losses.push_back(loss);
    figures.gradient_norms.push_back(norm);
  }
  flat.check_views();
  return figures;
}

class Parity : public ::testing::TestWithParam<std::string> {};

TEST_P(Parity, WithPyTorch) {
  const std::string file = "parity_" + GetParam() + ".json";
  const json golden = json::parse(std::ifstream(TRIREME_SOURCE_DIR "/tests/golden/" + file));
  const Figures figures = train(model_config(golden.at("model")), golden.at("training"));
  if (const char* folder = std::getenv("TRIREME_PARITY_OUT")) {
    std::ofstream(std::filesystem::path(folder) / file)
        << json{{"losses", figures.losses}, {"gradient_norms", figures.gradient_norms}};
  }
  const std::vector<double> losses = golden.at("losses"), norms = golden.at("gradient_norms");
  ASSERT_EQ(losses.size(), 20U);
  ASSERT_EQ(figures.losses.size(), losses.size());
  ASSERT_EQ(norms.size(), losses.size());
  for (std::size_t step = 0; step < losses.size(); ++step) {
    EXPECT_NEAR(figures.losses[step] / losses[step], 1.0, kTolerance) << "loss, step " << step;
    EXPECT_NEAR(figures.gradient_norms[step] / norms[step], 1.0, kTolerance)
        << "gradient norm, step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Parity, ::testing::Values("gpt2", "llama"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace trireme
