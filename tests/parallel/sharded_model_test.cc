// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_model.h"

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
  void set_state(std::span<const optim::OptimizerState>) override {}
  std::int64_t steps() const override { return steps_; }
  void set_steps(std::int64_t steps) override { steps_ = steps; }

 private:
  std::vector<at::Tensor> momenta_;
  std::int64_t steps_ = 0;
};

struct Trained {
  at::Tensor weights;  // on rank 0
  std::vector<double> norms;
};

struct Layout {
  int stage = 0;
  int ranks = 1;
  nn::Recompute recompute = nn::Recompute::kNone;
  std::int64_t micro_batches = kMicroBatches;
  int prefetch = 1;
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
                        .prefetch = layout.prefetch});
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

}  // namespace
}  // namespace trireme
