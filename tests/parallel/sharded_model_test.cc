// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/placements.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/base/error.h"
#include "trireme/optim/gradient_norm.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::formula_tokens;
using ::testing::HasSubstr;
using testing::run_threads;

constexpr std::int64_t kMicroBatches = 8;
constexpr std::int64_t kSteps = 4;

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
  std::int64_t elements = 0;
  // Bytes of all steps of all ranks: between copies of the model, and inside of them.
  std::int64_t across = 0;
  std::int64_t inside = 0;
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
  const std::int64_t sent_before = sharded.bytes_sent();
  for (std::int64_t step = 0; step < kSteps; ++step) {
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
  std::int64_t across = sharded.bytes_sent_between_replicas();
  std::int64_t inside = sharded.bytes_sent() - sent_before - across;
  for (std::int64_t* bytes : {&across, &inside}) group.all_reduce(buffer_of(std::span(bytes, 1)));
  result.across = across;
  result.inside = inside;
  result.elements = sharded.layout().size;
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

struct Copies {
  int ranks;
  int shard_ranks;
  std::int64_t micro_batches;
  std::int64_t rounds;  // in which gradients go from copy to copy
  int copies() const { return ranks / shard_ranks; }
};

// Of 28 micro-batches a copy has 14, which are 8, 4 and 2.
const std::vector<Copies> kCopies = {{4, 2, 8, 1},  {4, 1, 4, 1},  {6, 2, 6, 1},
                                     {6, 2, 12, 1}, {4, 2, 28, 3}, {8, 4, 16, 1}};

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
          EXPECT_EQ(result.across, kSteps * copies.rounds * 2 * (copies.copies() - 1) *
                                       result.elements * std::int64_t{sizeof(float)})
              << "each rank 2 (R - 1) / R of its pieces: " << what;
          EXPECT_EQ(result.weights.defined(), group.rank() == 0) << what;
          if (group.rank() == 0) {
            EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
          }
        });
      }
    }
  }
}

// Shared memory inside a copy, a socket between them.
TEST(ShardedModel, CopiesOnTwoHostsTrainTheSameModelAsOneRank) {
  Trained expected;
  run_threads(1, [&](Group& group) { expected = train(group, "llama", {}, at::kFloat); });
  for (const int stage : {1, 2, 3}) {
    testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
      const Trained result = train(group, "llama", {.stage = stage, .shard_ranks = 2}, at::kFloat);
      EXPECT_EQ(result.norms, expected.norms) << "stage " << stage;
      if (group.rank() == 0) {
        EXPECT_TRUE(result.weights.equal(expected.weights)) << "stage " << stage;
      }
    });
  }
}

TEST(ShardedModel, KeepsACopyInEachHostWhereItIsTold) {
  Trained expected;
  testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
    const Trained result = train(group, "gpt2", {.stage = 2, .shard_ranks = 2}, at::kFloat);
    if (group.rank() == 0) expected = result;
  });
  EXPECT_GT(expected.across, 0);
  testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
    const Trained result =
        train(group, "gpt2", {.stage = 2, .shard_ranks = kHostRanks}, at::kFloat);
    EXPECT_EQ(result.across, expected.across);
    EXPECT_EQ(result.inside, expected.inside);
    EXPECT_EQ(result.norms, expected.norms);
  });
  run_threads(3, [&](Group& group) {
    const Trained result = train(
        group, "gpt2", {.stage = 2, .micro_batches = 3, .shard_ranks = kHostRanks}, at::kFloat);
    EXPECT_EQ(result.across, 0) << "one host, one copy";
  });
  testing::run_placed({"shm+gloo", {0, 0, 0, 1, 1}}, [](Group& group) {
    testing::Chain chain(2, at::kFloat);
    const auto refusal = [&](int stage) {
      return testing::failure_of([&] {
        const ShardedModel model(chain, group, {.stage = stage, .shard_ranks = kHostRanks});
      });
    };
    EXPECT_THAT(refusal(1), AllOf(HasSubstr("ConfigError"), HasSubstr("1 with 3, 1 with 2")));
    EXPECT_THAT(refusal(0), AllOf(HasSubstr("shard_ranks is auto"), HasSubstr("stage 0")));
  });
}

// Of 4 ranks in stage 1: inside go 2 (S - 1) / S of the model, and for the norm, the micro-batches'
// weights and the like next to nothing.
TEST(ShardedModel, WeightsStayInsideACopy) {
  run_threads(4, [](Group& group) {
    const Trained result = train(group, "llama", {.stage = 1, .shard_ranks = 2}, at::kFloat);
    const std::int64_t of_model = kSteps * 4 * result.elements * std::int64_t{sizeof(float)};
    EXPECT_GE(result.inside, of_model);
    EXPECT_LE(result.inside, of_model * 11 / 10) << "all_gather over all ranks is 5/4";
  });
}

TEST(ShardedModel, RefusesCopiesThatCannotBe) {
  run_threads(6, [](Group& group) {
    testing::Chain chain(2, at::kFloat);
    const auto refusal = [&](const ShardOptions& options) {
      return testing::failure_of([&] { const ShardedModel model(chain, group, options); });
    };
    EXPECT_THAT(refusal({.stage = 2, .shard_ranks = 4}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("6 ranks"), HasSubstr("4 ranks each")));
    EXPECT_THAT(refusal({.stage = 0, .shard_ranks = 2}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("stage 0"), HasSubstr("shard_ranks")));
    EXPECT_THAT(refusal({.stage = 3, .micro_batches = 18, .shard_ranks = 2}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("18 micro-batches")));
  });
}

// Rank 3's copy and rank 1's hold the same pieces, and rank 0 has nothing to do with rank 3.
TEST(ShardedModel, AFailureEndsAllCopiesByName) {
  for (const int stage : {1, 2, 3}) {
    run_threads(4, [&](Group& group) {
      testing::Chain chain(3, at::kFloat);
      ShardedModel sharded(chain, group, {.stage = stage, .micro_batches = 8, .shard_ranks = 2});
      Momentum optimizer(sharded);
      const auto run_step = [&](bool fails) {
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
        sharded.step(optimizer, 0.1);
      };
      run_step(false);
      group.barrier();
      const std::string error = testing::failure_of([&] {
        run_step(group.rank() == 3);
        run_step(false);
      });
      EXPECT_THAT(error, HasSubstr("out of luck")) << "stage " << stage;
      if (group.rank() != 3) {
        EXPECT_THAT(error, AllOf(HasSubstr("CommError"), HasSubstr("rank 3 left")));
      }
    });
  }
}

}  // namespace
}  // namespace trireme
