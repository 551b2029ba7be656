// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Some steps of a small transformer as a ShardedModel, in any layout, and what came of them.
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/replica_models.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme::testing {

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

struct ShardedRun {
  int stage = 0;
  nn::Recompute recompute = nn::Recompute::kNone;
  std::int64_t micro_batches = 8;
  int prefetch = 1;
  int shard_ranks = 0;
  bool offload = false;
  c10::Device device = at::kCPU;
  std::int64_t steps = 4;
};

struct ShardedResult {
  at::Tensor weights;  // on rank 0
  std::vector<double> norms;
  std::map<std::pair<std::int64_t, std::int64_t>, double> losses;  // by step and own micro-batch
  std::int64_t elements = 0;
  // Bytes of all steps of all ranks: between copies of the model, and inside of them.
  std::int64_t across = 0;
  std::int64_t inside = 0;
};

inline ShardedResult run_sharded(Group& group, const std::string& family, const ShardedRun& run,
                                 at::ScalarType dtype) {
  nn::Transformer model(small_model_config(family));
  nn::initialize(*model, static_cast<std::uint64_t>(3 + group.rank()));  // rank 0's counts
  model->to(run.device);
  model->set_recompute(run.recompute);
  ShardedModel sharded(*model, group,
                       {.stage = run.stage,
                        .dtype = dtype,
                        .micro_batches = run.micro_batches,
                        .bucket_bytes = std::int64_t{16} << 10,
                        .units = model->blocks(),
                        .prefetch = run.prefetch,
                        .shard_ranks = run.shard_ranks,
                        .offload = run.offload});
  model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
    return sharded.run(block, inputs, f);
  });
  Momentum optimizer(sharded);
  const auto tokens = [&](std::int64_t salt) {
    return formula_tokens(2, 11, 37, salt).to(run.device);
  };
  ShardedResult result;
  const std::int64_t sent_before = sharded.bytes_sent();
  for (std::int64_t step = 0; step < run.steps; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const std::int64_t salt = step * run.micro_batches + m;
      const at::Tensor loss =
          sharded.forward([&] { return model->loss(tokens(salt), tokens(salt + 1)); });
      sharded.backward(loss);
      result.losses[{step, m}] = loss.item<double>();
    }
    sharded.finish_gradients();
    result.norms.push_back(sharded.gradient_norm());
    sharded.step(optimizer, 0.1, 1.0 / static_cast<double>(run.micro_batches));
  }
  std::int64_t across = sharded.bytes_sent_between_replicas();
  std::int64_t inside = sharded.bytes_sent() - sent_before - across;
  for (std::int64_t* bytes : {&across, &inside}) group.all_reduce(buffer_of(std::span(bytes, 1)));
  result.across = across;
  result.inside = inside;
  result.elements = sharded.layout().size;
  result.weights = sharded.gather_weights();
  return result;
}

// The gradients of a step of a Chain; where it fails, each backward pass of this rank throws "out
// of luck".
inline void run_gradients(ShardedModel& sharded, Chain& chain, bool fails) {
  for (const std::int64_t m : sharded.micro_batches()) {
    sharded.backward(sharded.forward([&] {
      const at::Tensor loss = chain.loss(3 * m, 3);
      if (fails) {
        loss.register_hook(
            [](const at::Tensor&) -> at::Tensor { throw std::runtime_error("out of luck"); });
      }
      return loss;
    }));
  }
  sharded.finish_gradients();
}

// Bit for bit, those losses that this rank has computed.
inline void expect_same_training(const ShardedResult& result, const ShardedResult& expected,
                                 int rank, const std::string& what) {
  EXPECT_EQ(result.norms, expected.norms) << what;
  for (const auto& [when, loss] : result.losses) {
    EXPECT_EQ(loss, expected.losses.at(when))
        << what << ", step " << when.first << ", micro-batch " << when.second;
  }
  if (rank == 0) {
    EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
  }
}

}  // namespace trireme::testing
