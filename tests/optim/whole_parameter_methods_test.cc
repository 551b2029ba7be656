// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// lamb, muon and adafactor against their papers' lines in f64, parameter by parameter.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "tests/optim/shard_run.h"
#include "tests/support/error_text.h"
#include "trireme/base/error.h"
#include "trireme/optim/orthogonalize.h"

namespace trireme {
namespace {

using optim::OptimizerConfig;
using optim::OptimizerParameter;
using testing::ShardRun;
using testing::ShardRunOptions;

// Of one parameter, in f64.
struct Reference {
  at::Tensor weight;
  std::map<std::string, at::Tensor> state;
  at::Tensor& at(const std::string& name, at::IntArrayRef shape) {
    return state.try_emplace(name, torch::zeros(shape, at::kDouble)).first->second;
  }
};

struct StepOf {
  const OptimizerParameter& parameter;
  Reference& own;
  at::Tensor gradient;  // scaled
  double learning_rate;
  int step;  // from 1
};

// The weights of the whole buffer after the steps of ShardRun, by the lines in `update`.
at::Tensor expected_weights(const ShardRunOptions& options,
                            const std::function<void(const StepOf&)>& update) {
  const optim::OptimizerSpace space = testing::odd_space();
  at::Tensor result = testing::odd_values(0);
  for (const OptimizerParameter& parameter : space.parameters) {
    const FlatEntry& entry = parameter.entry;
    const auto part = [&](const at::Tensor& whole) {
      return whole.narrow(0, entry.offset, entry.count).view(entry.shape);
    };
    Reference own{part(result).to(at::kDouble), {}};
    for (int step = 1; step <= options.steps; ++step) {
      const at::Tensor gradient =
          part(testing::odd_values(static_cast<std::uint64_t>(step))).to(at::kDouble) *
          options.gradient_scale;
      update({parameter, own, gradient, options.learning_rate / step, step});
    }
    part(result).copy_(own.weight);
  }
  return result;
}

at::Tensor length(const at::Tensor& x) { return x.square().sum().sqrt(); }

void adam_moments(const StepOf& s, double beta1, double beta2) {
  at::Tensor& first = s.own.at("first", s.gradient.sizes());
  at::Tensor& second = s.own.at("second", s.gradient.sizes());
  first = beta1 * first + (1 - beta1) * s.gradient;
  second = beta2 * second + (1 - beta2) * s.gradient.square();
}

at::Tensor adam_direction(const StepOf& s, double beta1, double beta2, double epsilon) {
  const at::Tensor first = s.own.state.at("first") / (1 - std::pow(beta1, s.step));
  const at::Tensor second = s.own.state.at("second") / (1 - std::pow(beta2, s.step));
  return first / (second.sqrt() + epsilon);
}

// You et al. 2020, algorithm 2.
TEST(Lamb, FollowsItsPaper) {
  const ShardRunOptions options{.ranks = 2, .steps = 4};
  const at::Tensor expected = expected_weights(options, [](const StepOf& s) {
    adam_moments(s, 0.9, 0.999);
    const double decay = s.parameter.decays ? 0.03 : 0.0;
    const at::Tensor r = adam_direction(s, 0.9, 0.999, 1e-6) + decay * s.own.weight;
    s.own.weight = s.own.weight - s.learning_rate * length(s.own.weight) / length(r) * r;
  });
  const ShardRun run({.name = "lamb", .weight_decay = 0.03}, options);
  // f32 roundings of values up to 5 and of norms.
  EXPECT_LT((run.weights - expected).abs().max().item<double>(), 1e-5);
}

TEST(Lamb, ParametersOfZerosStepByTheLearningRate) {
  optim::OptimizerSpace space;
  space.parameters = {{{"p", {5}, 0, 5}, false}};
  space.segments = {{0, kShardBlock}};
  const auto lamb = optim::make_optimizer({.name = "lamb"}, space);
  const at::Tensor weights = torch::zeros({kShardBlock});
  const at::Tensor gradients = torch::zeros({kShardBlock});
  gradients.narrow(0, 0, 5).fill_(2.0F);
  const optim::PieceUpdate piece{weights, gradients};
  lamb->step({.pieces = {&piece, 1}, .learning_rate = 0.25});
  EXPECT_NEAR(weights[4].item<float>(), -0.25F, 1e-6);
  EXPECT_EQ(weights[5].item<float>(), 0.0F);
}

// Jordan et al. 2024 with the step of Liu et al. 2025; embeddings and vectors by AdamW.
TEST(Muon, FollowsItsPaper) {
  const ShardRunOptions options{.ranks = 2, .steps = 3};
  const at::Tensor expected = expected_weights(options, [](const StepOf& s) {
    const double keep = s.parameter.decays ? 1 - s.learning_rate * 0.2 : 1.0;
    if (!s.parameter.hidden_matrix) {
      adam_moments(s, 0.9, 0.95);
      s.own.weight = keep * s.own.weight - s.learning_rate * adam_direction(s, 0.9, 0.95, 1e-8);
      return;
    }
    at::Tensor& momentum = s.own.at("momentum", s.gradient.sizes());
    momentum = 0.95 * momentum + s.gradient;
    at::Tensor x = s.gradient + 0.95 * momentum;
    x = x / (length(x) + 1e-7);
    for (int i = 0; i < 5; ++i) {
      const at::Tensor a = x.matmul(x.t());
      x = 3.4445 * x + (-4.7750 * a + 2.0315 * a.matmul(a)).matmul(x);
    }
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(x.size(0), x.size(1))));
    s.own.weight = keep * s.own.weight - s.learning_rate * size * x;
  });
  const ShardRun run({.name = "muon", .weight_decay = 0.2}, options);
  // The iteration multiplies small singular values, and their errors, by 3.44 five times.
  EXPECT_LT((run.weights - expected).abs().max().item<double>(), 2e-4);
}

// Three matrices of experts in one parameter, or in three side by side: the same bits.
TEST(Muon, AStackIsEachOfItsMatrices) {
  const std::int64_t count = 24 * 40;
  const auto train = [&](bool stacked) {
    optim::OptimizerSpace space;
    if (stacked) {
      space.parameters = {{{"experts", {3, 24, 40}, 0, 3 * count}, true, true, true}};
    } else {
      for (std::int64_t e = 0; e < 3; ++e) {
        space.parameters.push_back(
            {{"expert" + std::to_string(e), {24, 40}, e * count, count}, true, true});
      }
    }
    space.segments = {{0, kShardBlock}};
    const auto muon = optim::make_optimizer({.name = "muon", .weight_decay = 0.1}, space);
    const at::Tensor weights = testing::normal({kShardBlock}, 3).to(at::kFloat);
    weights.narrow(0, 3 * count, kShardBlock - 3 * count).zero_();
    for (std::uint64_t step = 0; step < 3; ++step) {
      const at::Tensor gradients = testing::normal({kShardBlock}, 4 + step).to(at::kFloat);
      const optim::PieceUpdate piece{weights, gradients};
      muon->step({.pieces = {&piece, 1}, .learning_rate = 0.1});
    }
    return weights;
  };
  EXPECT_TRUE(train(true).equal(train(false)));
}

TEST(Orthogonalize, SingularValuesAreAboutOne) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{37, 91}, {91, 37}}) {
    const at::Tensor g = testing::normal({rows, columns}, 5).to(at::kFloat);
    const at::Tensor x = g.clone();
    optim::detail::orthogonalize(rows, columns, x.data_ptr<float>());
    const at::Tensor gram = rows < columns ? x.matmul(x.t()) : x.t().matmul(x);
    const at::Tensor squares = std::get<0>(torch::linalg_eigh(gram));
    EXPECT_GT(squares.min().item<double>(), 0.4);
    EXPECT_LT(squares.max().item<double>(), 1.6);
    // The same directions: with U S V^T, the trace of (U V^T)^T U S V^T is the sum of S.
    const double along = (x * g).sum().item<double>();
    EXPECT_GT(along, 0.7 * std::get<1>(torch::svd(g)).sum().item<double>());
  }
  at::Tensor zeros = torch::zeros({3, 5});
  optim::detail::orthogonalize(3, 5, zeros.data_ptr<float>());
  EXPECT_EQ(zeros.abs().max().item<float>(), 0.0F);
}

// Shazeer and Stern 2018, algorithms 4 and 5, without relative steps.
TEST(Adafactor, FollowsItsPaper) {
  for (const double momentum : {0.0, 0.9}) {
    const ShardRunOptions options{.ranks = 3, .steps = 4};
    const at::Tensor expected = expected_weights(options, [&](const StepOf& s) {
      const double beta = 1 - std::pow(s.step, -0.8);
      const at::Tensor square = s.gradient.square() + 1e-30;
      at::Tensor update;
      if (s.gradient.dim() == 2) {
        at::Tensor& rows = s.own.at("rows", {s.gradient.size(0), 1});
        at::Tensor& columns = s.own.at("columns", {1, s.gradient.size(1)});
        rows = beta * rows + (1 - beta) * square.mean(1, true);
        columns = beta * columns + (1 - beta) * square.mean(0, true);
        update = s.gradient / (rows * columns / rows.mean()).sqrt();
      } else {
        at::Tensor& second = s.own.at("second", s.gradient.sizes());
        second = beta * second + (1 - beta) * square;
        update = s.gradient / second.sqrt();
      }
      update = update / update.square().mean().sqrt().clamp_min(1.0);
      at::Tensor& mean = s.own.at("mean", s.gradient.sizes());
      mean = momentum * mean + (1 - momentum) * update;
      const double decay = s.parameter.decays ? 0.1 : 0.0;
      s.own.weight = (1 - s.learning_rate * decay) * s.own.weight - s.learning_rate * mean;
    });
    const ShardRun run({.name = "adafactor", .momentum = momentum, .weight_decay = 0.1}, options);
    EXPECT_LT((run.weights - expected).abs().max().item<double>(), 1e-5) << momentum;
  }
}

// What it is for: of a matrix the means of rows and columns, and no more.
TEST(Adafactor, KeepsRowsAndColumnsOfMatrices) {
  const auto adafactor = optim::make_optimizer({.name = "adafactor"}, testing::odd_space());
  std::int64_t elements = 0;
  for (const optim::OptimizerState& part : adafactor->state()) elements += part.values.numel();
  EXPECT_EQ(elements, (301 + 13) + (67 + 131) + (97 + 90) + (12 + 1111) + (17 + 3) + 131 + 1);
}

TEST(WholeParameterMethods, OtherDevicesAreRefused) {
  for (const char* name : {"lamb", "muon", "adafactor"}) {
    optim::OptimizerSpace space = testing::odd_space();
    space.device = at::kMeta;
    EXPECT_THROW(optim::make_optimizer({.name = name}, space), ShapeError) << name;
  }
}

}  // namespace
}  // namespace trireme
