// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Steps of an optimizer over a buffer of a few parameters of odd sizes, on one rank or cut among
// several: threads that each update their pieces of the same memory.
//
//   const ShardRun run({.name = "lamb"}, {.ranks = 3, .steps = 4});
//   run.weights;  // of the whole buffer
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/operation.h"
#include "tests/support/ranks.h"
#include "trireme/optim/optimizer.h"

namespace trireme::testing {

// Seven parameters in three segments of 5, 1 and 7 blocks: matrices across blocks, tall and wide,
// one across two segments, a vector, one number, an embedding that is no hidden matrix.
inline optim::OptimizerSpace odd_space() {
  optim::OptimizerSpace space;
  std::int64_t at = 0;
  const auto add = [&](std::vector<std::int64_t> shape, bool decays, bool hidden) {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    const std::string name = "p" + std::to_string(space.parameters.size());
    space.parameters.push_back({{name, std::move(shape), at, count}, decays, hidden});
    at += (count + 63) / 64 * 64;
  };
  add({301, 13}, true, false);
  add({67, 131}, true, true);
  add({131}, false, false);
  add({97, 90}, true, true);  // [12992, 21722): over the edge at block 5
  add({1}, false, false);
  add({12, 1111}, true, true);
  add({17, 3}, true, true);
  space.segments = {{0, 5 * kShardBlock},
                    {5 * kShardBlock, 6 * kShardBlock},
                    {6 * kShardBlock, 13 * kShardBlock}};
  return space;
}

// Of the whole buffer: normal values in the parameters, zeros between them.
inline at::Tensor odd_values(std::uint64_t stream) {
  const optim::OptimizerSpace space = odd_space();
  const at::Tensor all = torch::zeros({space.segments.back().end});
  for (const optim::OptimizerParameter& p : space.parameters) {
    all.narrow(0, p.entry.offset, p.entry.count)
        .copy_(normal({p.entry.count}, stream * 100 + static_cast<std::uint64_t>(p.entry.offset)));
  }
  return all;
}

struct ShardRunOptions {
  int ranks = 0;  // 0: no group
  int steps = 3;
  int restart_after = 0;  // a new optimizer with the state of the first goes on; 0: none
  double learning_rate = 0.01;
  double gradient_scale = 0.37;
};

struct ShardRun {
  at::Tensor weights = odd_values(0);
  at::Tensor copy = torch::zeros_like(weights, at::kBFloat16);

  ShardRun(const optim::OptimizerConfig& config, const ShardRunOptions& options) {
    std::vector<at::Tensor> gradients;
    for (int step = 1; step <= options.steps; ++step) {
      gradients.push_back(odd_values(static_cast<std::uint64_t>(step)));
    }
    if (options.ranks == 0) {
      run(config, options, gradients, nullptr);
    } else {
      run_threads(options.ranks, [&](Group& group) { run(config, options, gradients, &group); });
    }
    for (const at::Tensor& each : gradients) EXPECT_EQ(each.abs().max().item<float>(), 0.0F);
  }

 private:
  void run(const optim::OptimizerConfig& config, const ShardRunOptions& options,
           const std::vector<at::Tensor>& gradients, Group* group) const {
    optim::OptimizerSpace space = odd_space();
    space.group = group;
    const std::vector<ShardPiece> places =
        group == nullptr ? shard_pieces(space.segments, 0, 1)
                         : shard_pieces(space.segments, group->rank(), group->size());
    std::unique_ptr<optim::Optimizer> optimizer = optim::make_optimizer(config, space);
    for (int step = 0; step < options.steps; ++step) {
      std::vector<optim::PieceUpdate> pieces;
      for (const ShardPiece& place : places) {
        const auto part = [&](const at::Tensor& whole) {
          return whole.narrow(0, place.begin, place.count());
        };
        pieces.push_back(
            {part(weights), part(gradients[static_cast<std::size_t>(step)]), part(copy)});
      }
      optimizer->step({.pieces = pieces,
                       .learning_rate = options.learning_rate / (1 + step),
                       .gradient_scale = options.gradient_scale,
                       .clear_gradients = true});
      if (step + 1 == options.restart_after) optimizer = restarted(*optimizer, config, space);
    }
  }

  // Of copies, as a checkpoint has them.
  static std::unique_ptr<optim::Optimizer> restarted(optim::Optimizer& before,
                                                     const optim::OptimizerConfig& config,
                                                     const optim::OptimizerSpace& space) {
    std::unique_ptr<optim::Optimizer> after = optim::make_optimizer(config, space);
    const std::vector<optim::OptimizerState> from = before.state(), to = after->state();
    EXPECT_EQ(from.size(), to.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      EXPECT_EQ(from[i].name, to[i].name);
      EXPECT_EQ(from[i].parameters, to[i].parameters);
      EXPECT_EQ(from[i].values.scalar_type(), at::kFloat);
      to[i].values.copy_(from[i].values);
    }
    after->set_state(to);
    after->set_steps(before.steps());
    return after;
  }
};

}  // namespace trireme::testing
