// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/working_copy.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <array>
#include <string>

#include "trireme/base/error.h"
#include "trireme/optim/optimizer.h"

namespace trireme::optim {
namespace {

constexpr std::int64_t kRows = 3;
constexpr std::int64_t kColumns = 3000;
constexpr std::int64_t kSize = 3 * kShardBlock;

// Of each method, whose own copies are the ones to be found; for a part that begins anywhere, too.
TEST(RoundWeights, GivesTheCopiesThatAStepHasWritten) {
  for (const std::string name : {"sgd", "adamw", "lion", "lamb", "adafactor", "muon"}) {
    for (const bool stochastic : {true, false}) {
      const OptimizerConfig config{.name = name, .stochastic_rounding = stochastic};
      OptimizerSpace space;
      space.parameters = {{.entry = {"matrix", {kRows, kColumns}, 0, kRows * kColumns},
                           .decays = true,
                           .hidden_matrix = true}};
      space.segments = {{0, kSize}};
      const auto optimizer = make_optimizer(config, space);
      const at::Tensor weights = torch::zeros({kSize});
      weights.narrow(0, 0, kRows * kColumns).copy_(torch::sin(torch::arange(kRows * kColumns)));
      const at::Tensor copy = torch::zeros({kSize}, torch::kBFloat16);
      for (int step = 0; step < 3; ++step) {
        const at::Tensor gradients = torch::zeros({kSize});
        gradients.narrow(0, 0, kRows * kColumns)
            .copy_(torch::cos(torch::arange(kRows * kColumns) * (step + 0.3)));
        const std::array pieces = {PieceUpdate{weights, gradients, copy}};
        optimizer->step({.pieces = pieces, .learning_rate = 0.01});
      }
      const at::Tensor found = torch::ones({kSize}, torch::kBFloat16);
      round_weights(config, 3, 0, weights.narrow(0, 0, 77), found.narrow(0, 0, 77));
      round_weights(config, 3, 77, weights.narrow(0, 77, kSize - 77),
                    found.narrow(0, 77, kSize - 77));
      EXPECT_TRUE(found.equal(copy)) << name << " " << stochastic;
      round_weights(config, 2, 0, weights, found);
      EXPECT_EQ(found.equal(copy), !stochastic) << name << ": another step's";
    }
  }
}

TEST(RoundWeights, RefusesOtherTensors) {
  const at::Tensor weights = torch::zeros({8});
  const at::Tensor copy = torch::zeros({8}, torch::kBFloat16);
  EXPECT_THROW(round_weights({}, 1, 0, weights, weights), ShapeError);
  EXPECT_THROW(round_weights({}, 1, 0, weights.narrow(0, 0, 7), copy), ShapeError);
  EXPECT_THROW(round_weights({}, 1, 0, weights.to(torch::kDouble), copy), ShapeError);
}

}  // namespace
}  // namespace trireme::optim
