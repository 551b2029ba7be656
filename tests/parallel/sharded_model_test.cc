// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/optim/gradient_norm.h"

namespace trireme {
namespace {

using testing::formula_tokens;
using testing::run_threads;

constexpr std::int64_t kMicroBatches = 8;

// Gradient descent with momentum, whose state is this rank's alone.
class Momentum final : public optim::Optimizer {
 public:
  explicit Momentum(const ShardedModel& model) {
    for (const optim::PieceUpdate& piece : model.pieces()) {
      momenta_.push_back(torch::zeros_like(piece.weights));
    }
  }
  void step(const optim::OptimizerUpdate& update) override {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < update.pieces.size(); ++i) {
      const optim::PieceUpdate& piece = update.pieces[i];
      momenta_[i].mul_(0.9).add_(piece.gradients, update.gradient_scale);
      piece.weights.sub_(momenta_[i], update.learning_rate);
      if (update.clear_gradients) piece.gradients.zero_();
    }
    round(update.pieces);
    ++steps_;
  }
  void round(std::span<const optim::PieceUpdate> pieces) const override {
    for (const optim::PieceUpdate& piece : pieces) {
      if (piece.working_copy.defined()) piece.working_copy.copy_(piece.weights);
    }
  }
  std::vector<optim::OptimizerState> state() override { return {}; }
  std::int64_t steps() const override { return steps_; }
  void set_steps(std::int64_t steps) override { steps_ = steps; }

 private:
  std::vector<at::Tensor> momenta_;
  std::int64_t steps_ = 0;
};

struct Trained {
  at::Tensor weights;  // on rank 0
  std::vector<double> norms;
  std::int64_t between_replicas = 0;  // bytes
  std::int64_t elements = 0;
};

struct Layout {
  int stage = 0;
  int ranks = 1;
  nn::Recompute recompute = nn::Recompute::kNone;
  std::int64_t micro_batches = kMicroBatches;
  int prefetch = 1;
  int shard_ranks = 0;
};

Trained train(Group& group, const std::string& family, const Layout& layout, at::ScalarType dtype) {
  nn::Transformer model(testing::small_model_config(family));
  nn::initialize(*model, static_cast<std::uint64_t>(3 + group.rank()));  // rank 0's counts
  model->set_recompute(layout.recompute);
  ShardedModel sharded(*model, group,
                       {.stage = layout.stage,
                        .dtype = dtype,
                        .micro_batches = layout.micro_batches,
                        .bucket_bytes = std::int64_t{16} << 10,
                        .units = model->blocks(),
                        .prefetch = layout.prefetch,
                        .shard_ranks = layout.shard_ranks});
  model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
    return sharded.run(block, inputs, f);
  });
  Momentum optimizer(sharded);
  Trained result;
  for (std::int64_t step = 0; step < 4; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const std::int64_t salt = step * layout.micro_batches + m;
      sharded.backward(sharded.forward([&] {
        return model->loss(formula_tokens(2, 11, 37, salt), formula_tokens(2, 11, 37, salt + 1));
      }));
    }
    sharded.finish_gradients();
    result.norms.push_back(sharded.gradient_norm());
    sharded.step(optimizer, 0.1, 1.0 / static_cast<double>(layout.micro_batches));
  }
  result.weights = sharded.gather_weights();
  result.between_replicas = sharded.bytes_sent_between_replicas();
  result.elements = sharded.layout().size;
  return result;
}

TEST(ShardedModel, EveryStageTrainsTheSameModelOnAnyNumberOfRanks) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      Trained expected;
      run_threads(1, [&](Group& group) { expected = train(group, family, {}, dtype); });
      EXPECT_GT(expected.norms.back(), 0.0);
      for (const int stage : {0, 1, 2, 3}) {
        for (const int ranks : {1, 2, 4}) {
          run_threads(ranks, [&](Group& group) {
            const Trained result = train(group, family, {.stage = stage, .ranks = ranks}, dtype);
            const std::string what = family + " stage " + std::to_string(stage) + ", " +
                                     std::to_string(ranks) + " ranks, " + c10::toString(dtype);
            EXPECT_EQ(result.norms, expected.norms) << what;
            if (group.rank() == 0) {
              EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
            }
          });
        }
      }
    }
  }
}

struct Copies {
  int ranks;
  int shard_ranks;
  std::int64_t micro_batches;
};

// 24 micro-batches of 4 copies on 2 ranks are two rounds: 16, and 8.
const std::vector<Copies> kCopies = {{4, 2, 8}, {4, 1, 4}, {6, 2, 6}, {6, 2, 12}, {8, 2, 24}};

TEST(ShardedModel, CopiesInHostsTrainTheSameModelAsOneRank) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Copies& copies : kCopies) {
      Trained expected;
      run_threads(1, [&](Group& group) {
        expected = train(group, "gpt2", {.micro_batches = copies.micro_batches}, dtype);
      });
      for (const int stage : {1, 2, 3}) {
        run_threads(copies.ranks, [&](Group& group) {
          const Trained result = train(group, "gpt2",
                                       {.stage = stage,
                                        .micro_batches = copies.micro_batches,
                                        .shard_ranks = copies.shard_ranks},
                                       dtype);
          const std::string what =
              fmt::format("stage {}, {} ranks, {} to a copy, {} micro-batches, {}, rank {}", stage,
                          copies.ranks, copies.shard_ranks, copies.micro_batches,
                          c10::toString(dtype), group.rank());
          EXPECT_EQ(result.norms, expected.norms) << what;
          EXPECT_EQ(result.weights.defined(), group.rank() == 0) << what;
          if (group.rank() == 0) {
            EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
          }
        });
      }
    }
  }
}

}  // namespace
}  // namespace trireme
