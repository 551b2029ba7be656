// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What replicas compute. With codecs: replica_codec_test.cc; what they refuse and live beside:
// replica_use_test.cc; how they end when something fails: replica_failure_test.cc; when buckets
// leave: gradient_reducer_test.cc.

#include "trireme/parallel/data/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using testing::Chain;
using testing::chain_loss;
using testing::failure_of;
using testing::formula_samples;
using testing::formula_tokens;
using testing::gradients_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::relative_difference;
using testing::run_threads;
using testing::same_bits;
using testing::values_of;

constexpr std::int64_t kMicroBatches = 8;
// Several buckets of the small models: 4096 elements of f32.
constexpr std::int64_t kBucketBytes = std::int64_t{16} << 10;
constexpr std::int64_t kRows = 3;  // of a micro-batch
// f64, sums in another order.
constexpr double kTolerance = 1e-12;

at::Tensor loss_of(nn::Transformer& model, std::int64_t micro_batch) {
  return model->loss(formula_tokens(2, 11, 37, micro_batch),
                     formula_tokens(2, 11, 37, micro_batch + 1));
}

// Weights after five steps of plain gradient descent on eight micro-batches each.
at::Tensor train(Group& group, const std::string& family, const ReplicaOptions& options) {
  nn::Transformer model(testing::small_model_config(family));
  nn::initialize(*model, static_cast<std::uint64_t>(3 + group.rank()));  // rank 0's counts
  Replica replica(*model, group, options);
  EXPECT_GT(replica.num_buckets(), 2U);
  for (std::int64_t step = 0; step < 5; ++step) {
    for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad().zero_();
    for (const std::int64_t m : replica.micro_batches()) {
      replica.backward(loss_of(model, step * kMicroBatches + m));
    }
    replica.finish_gradients();
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) parameter.sub_(parameter.grad(), 0.1);
  }
  return replica.flat().data().clone();
}

TEST(Replica, TrainsTheSameModelOnAnyNumberOfRanks) {
  for (const std::string family : {"gpt2", "llama"}) {
    const ReplicaOptions options{.micro_batches = kMicroBatches, .bucket_bytes = kBucketBytes};
    at::Tensor expected;
    run_threads(1, [&](Group& group) { expected = train(group, family, options); });
    EXPECT_GT(expected.abs().sum().item<double>(), 0.0);
    for (const int ranks : {2, 4}) {
      run_threads(ranks, [&](Group& group) {
        EXPECT_TRUE(train(group, family, options).equal(expected))
            << family << ", rank " << group.rank() << " of " << ranks;
      });
    }
  }
}

// Any optimizer of LibTorch.
using MakeOptimizer =
    std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<at::Tensor>)>;

std::unique_ptr<torch::optim::Optimizer> make_sgd(std::vector<at::Tensor> parameters) {
  return std::make_unique<torch::optim::SGD>(
      std::move(parameters), torch::optim::SGDOptions(0.3).momentum(0.9).weight_decay(0.01));
}
std::unique_ptr<torch::optim::Optimizer> make_adam(std::vector<at::Tensor> parameters) {
  return std::make_unique<torch::optim::Adam>(std::move(parameters),
                                              torch::optim::AdamOptions(0.01));
}

// The weights of a chain after a few steps as the header's example has them.
std::vector<at::Tensor> train_chain(Group& group, at::ScalarType dtype,
                                    const MakeOptimizer& make_optimizer,
                                    const ReplicaOptions& options) {
  Chain chain(3, dtype, group.rank());  // rank 0's counts
  Replica replica = replicate(chain, group, options);
  const auto optimizer = make_optimizer(chain.parameters());
  const auto of_step = static_cast<std::int64_t>(replica.micro_batches().size()) * group.size();
  for (std::int64_t step = 0; step < 4; ++step) {
    optimizer->zero_grad();
    for (const std::int64_t m : replica.micro_batches()) {
      replica.backward(chain_loss(chain, step, of_step, m));
    }
    replica.finish_gradients();
    optimizer->step();
  }
  return values_of(chain);
}

// LibTorch alone, on the union of all micro-batches.
std::vector<at::Tensor> train_chain_alone(std::int64_t micro_batches,
                                          const MakeOptimizer& make_optimizer) {
  Chain chain(3);
  const auto optimizer = make_optimizer(chain.parameters());
  for (std::int64_t step = 0; step < 4; ++step) {
    optimizer->zero_grad();
    chain.loss(step * micro_batches * kRows, micro_batches * kRows).backward();
    optimizer->step();
  }
  return values_of(chain);
}

TEST(Replica, PlainOptimizersGiveWhatOneProcessGivesOnTheUnionOfBatches) {
  for (const MakeOptimizer& make_optimizer : {MakeOptimizer(make_sgd), MakeOptimizer(make_adam)}) {
    for (const auto& [ranks, micro_batches] :
         {std::pair{1, 1}, std::pair{2, 0}, std::pair{3, 0}, std::pair{2, 6}, std::pair{3, 12}}) {
      for (const std::string engine : {"shm", "gloo"}) {
        const auto expected =
            train_chain_alone(micro_batches == 0 ? ranks : micro_batches, make_optimizer);
        const ReplicaOptions options{.micro_batches = micro_batches, .bucket_bytes = kBucketBytes};
        run_threads(
            ranks,
            [&](Group& group) {
              EXPECT_LE(relative_difference(
                            train_chain(group, at::kDouble, make_optimizer, options), expected),
                        kTolerance)
                  << engine << ", rank " << group.rank() << " of " << ranks << ", " << micro_batches
                  << " micro-batches";
            },
            engine);
      }
    }
  }
}

// Rank counts and micro-batches that are no powers of two.
TEST(Replica, BitsDependOnTheMicroBatchesAlone) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    for (const std::int64_t micro_batches : {6, 12}) {
      const ReplicaOptions options{.micro_batches = micro_batches, .bucket_bytes = kBucketBytes};
      std::vector<at::Tensor> expected;
      run_threads(1,
                  [&](Group& group) { expected = train_chain(group, dtype, make_adam, options); });
      for (const int ranks : {2, 3, 4}) {
        if (micro_batches % ranks != 0) continue;
        run_threads(ranks, [&](Group& group) {
          EXPECT_TRUE(same_bits(train_chain(group, dtype, make_adam, options), expected))
              << micro_batches << " micro-batches, rank " << group.rank() << " of " << ranks;
        });
      }
    }
  }
}

TEST(Replica, LossBackwardAloneDoesTheSame) {
  run_threads(3, [](Group& group) {
    Chain ours(3), plain(3);
    Replica replica(ours, group, {.bucket_bytes = kBucketBytes});
    for (std::int64_t step = 0; step < 3; ++step) {
      ours.zero_grad();
      plain.zero_grad();
      chain_loss(ours, step, 3, group.rank()).backward();
      replica.finish_gradients();
      for (std::int64_t m = 0; m < 3; ++m) (chain_loss(plain, step, 3, m) / 3).backward();
      EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
    }
  });
}

TEST(Replica, GradientsMayBeSetToNone) {
  for (const std::int64_t micro_batches : {2, 4}) {
    run_threads(2, [&](Group& group) {
      Chain ours(2), plain(2);
      Replica replica(ours, group, {.micro_batches = micro_batches, .bucket_bytes = kBucketBytes});
      for (std::int64_t step = 0; step < 3; ++step) {
        ours.zero_grad(/*set_to_none=*/true);
        plain.zero_grad(/*set_to_none=*/true);
        for (const std::int64_t m : replica.micro_batches()) {
          const at::Tensor loss = chain_loss(ours, step, micro_batches, m);
          micro_batches == 2 && step == 1 ? loss.backward() : replica.backward(loss);
        }
        replica.finish_gradients();
        replica.flat().check_views();
        for (std::int64_t m = 0; m < micro_batches; ++m) {
          (chain_loss(plain, step, micro_batches, m) / micro_batches).backward();
        }
        EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
      }
    });
  }
}

// Exact in every dtype: gradients are small integers, their mean a half.
TEST(Replica, ModulesOfEveryDtypeKeepItAndAddInAWiderOne) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    run_threads(2, [&](Group& group) {
      torch::nn::Module module;
      const at::Tensor w = module.register_parameter("w", torch::full({5, 1000}, 2.0, dtype));
      Replica replica(module, group);
      torch::optim::SGD optimizer(module.parameters(), torch::optim::SGDOptions(0.25));
      for (int step = 0; step < 3; ++step) {
        optimizer.zero_grad();
        const at::Tensor x = torch::arange(5000.0).remainder(7).add(group.rank() + step);
        const at::Tensor loss = (w * x.view({5, 1000}).to(dtype)).sum();
        step == 1 ? loss.backward() : replica.backward(loss);
        replica.finish_gradients();
        EXPECT_EQ(w.scalar_type(), dtype);
        EXPECT_EQ(w.grad().scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
        const at::Tensor expected =
            (torch::arange(5000.0).remainder(7) + 0.5 + step).view({5, 1000});
        EXPECT_TRUE(w.grad().eq(expected).all().item<bool>()) << dtype << ", step " << step;
        optimizer.step();
      }
      const at::Tensor moved = 2.0 - 0.25 * (3 * torch::arange(5000.0).remainder(7) + 4.5);
      // Weights of 8 bits are rounded by 2^-9 at each of three updates.
      EXPECT_LE((w.to(at::kFloat) - moved.view({5, 1000})).abs().max().item<double>(),
                dtype == at::kBFloat16 ? 3 * 0x1p-9 * 8 : 3 * 0x1p-11 * 8);
    });
  }
}

// A model of a tied weight, a frozen one of another dtype, and one that not all use.
struct Mixed : torch::nn::Module {
  Mixed() {
    shared = register_parameter("shared", formula_samples(0, 5, 5));
    again = register_parameter("again", shared);
    frozen = register_parameter("frozen", formula_samples(10, 5, 5).to(at::kFloat), false);
    sometimes = register_parameter("sometimes", formula_samples(20, 5, 5));
    last = register_parameter("last", formula_samples(30, 5, 5));
  }
  at::Tensor loss(std::int64_t first, bool use) {
    at::Tensor x = formula_samples(first, kRows, 5).matmul(shared).tanh();
    x = x.matmul(frozen.to(at::kDouble));
    if (use) x = x + x.matmul(sometimes).tanh();
    return (x.matmul(last).tanh().matmul(again.t()) - 1).square().mean();
  }
  at::Tensor shared, again, frozen, sometimes, last;
};

TEST(Replica, TiedParametersAreOneAndFrozenOnesAreLeftAlone) {
  std::atomic<std::int64_t> sent = 0;
  run_threads(3, [&](Group& group) {
    Mixed ours, plain;
    const at::Tensor frozen_before = ours.frozen.clone();
    Replica replica(ours, group);
    torch::optim::SGD optimizer(ours.parameters(),
                                torch::optim::SGDOptions(0.5).momentum(0.5).weight_decay(0.1));
    torch::optim::SGD plain_optimizer(
        plain.parameters(), torch::optim::SGDOptions(0.5).momentum(0.5).weight_decay(0.1));
    EXPECT_EQ(replica.flat().entries().size(), 3U);
    for (std::int64_t step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      plain_optimizer.zero_grad();
      if (step == 2) sent -= replica.bytes_sent();
      replica.backward(ours.loss(100 * step + group.rank() * kRows, true));
      replica.finish_gradients();
      if (step == 2) sent += replica.bytes_sent();
      for (int rank = 0; rank < 3; ++rank) {
        (plain.loss(100 * step + rank * kRows, true) / 3).backward();
      }
      EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
      EXPECT_FALSE(ours.frozen.grad().defined());
      EXPECT_TRUE(ours.shared.is_same(ours.again));
      optimizer.step();
      plain_optimizer.step();
    }
    EXPECT_LE(relative_difference(values_of(ours), values_of(plain)), kTolerance);
    EXPECT_EQ(ours.frozen.scalar_type(), at::kFloat);
    EXPECT_TRUE(ours.frozen.equal(frozen_before));
    EXPECT_THAT(replica.report().unused, IsEmpty());
  });
  // One block of gradients; a weight, three parameters, three ranks.
  EXPECT_EQ(sent.load(), 2 * (3 - 1) * 8 * kShardBlock + 3 * (3 - 1) * 8 * (1 + 3 + 3));
}

TEST(Replica, AParameterThatSomeRanksUseGetsTheMeanOverAll) {
  run_threads(3, [](Group& group) {
    Mixed ours, plain;
    Replica replica(ours, group);
    replica.backward(ours.loss(group.rank() * kRows, group.rank() == 1));
    replica.finish_gradients();
    for (int rank = 0; rank < 3; ++rank) (plain.loss(rank * kRows, rank == 1) / 3).backward();
    EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
    EXPECT_THAT(replica.report().unused, IsEmpty());
  });
}

TEST(Replica, AParameterThatNoRankUsesHasNoGradientIsNamedAndComesBack) {
  for (const std::int64_t micro_batches : {3, 6}) {
    run_threads(3, [&](Group& group) {
      Mixed ours, plain;
      Replica replica(ours, group, {.micro_batches = micro_batches});
      const auto optimizer = make_adam(ours.parameters());
      const auto plain_optimizer = make_adam(plain.parameters());
      for (const bool use : {true, false, false, true, false}) {
        optimizer->zero_grad();
        plain.zero_grad(/*set_to_none=*/true);
        const at::Tensor before = ours.sometimes.detach().clone();
        for (const std::int64_t m : replica.micro_batches()) {
          replica.backward(ours.loss(m * kRows, use));
        }
        replica.finish_gradients();
        for (std::int64_t m = 0; m < micro_batches; ++m) {
          (plain.loss(m * kRows, use) / micro_batches).backward();
        }
        EXPECT_EQ(ours.sometimes.grad().defined(), use);
        EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
        EXPECT_EQ(replica.report().unused,
                  use ? std::vector<std::string>{} : std::vector<std::string>{"sometimes"});
        optimizer->step();
        plain_optimizer->step();
        EXPECT_EQ(ours.sometimes.equal(before), !use) << "an optimizer leaves it alone";
      }
      EXPECT_LE(relative_difference(values_of(ours), values_of(plain)), kTolerance);
    });
  }
}

// Ranks have 7, 4 and 0 samples in steps of their own; weights make it the mean over all samples.
TEST(Replica, UnevenBatchesJoinAsOneMean) {
  const std::vector<std::vector<std::int64_t>> samples{{7, 4, 0}, {1, 0, 5}, {0, 0, 2}, {3, 3, 3}};
  run_threads(3, [&](Group& group) {
    Chain ours(2, at::kDouble, group.rank()), plain(2);
    Replica replica(ours, group, {.bucket_bytes = kBucketBytes});
    const auto optimizer = make_sgd(ours.parameters());
    const auto plain_optimizer = make_sgd(plain.parameters());
    const auto rank = static_cast<std::size_t>(group.rank());
    std::size_t step = 0;
    // Ranks stop being given batches after their last non-empty one.
    const auto left = [&](std::size_t of) {
      std::size_t last = 0;
      for (std::size_t i = 0; i < samples.size(); ++i) last = samples[i][of] > 0 ? i + 1 : last;
      return step < last;
    };
    for (; replica.any_has_data(left(rank)); ++step) {
      ASSERT_LT(step, samples.size());
      const std::vector<std::int64_t>& rows = samples[step];
      const auto total = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
      const auto first = [&](std::size_t r) {
        return static_cast<std::int64_t>(step) * 100 +
               std::accumulate(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(r),
                               std::int64_t{0});
      };
      optimizer->zero_grad();
      plain_optimizer->zero_grad();
      if (rows[rank] > 0) {
        replica.backward(ours.loss(first(rank), rows[rank]), static_cast<double>(rows[rank]));
      }
      replica.finish_gradients();
      plain.loss(first(0), total).backward();
      EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance)
          << "step " << step;
      EXPECT_EQ(replica.report().weight, static_cast<double>(total));
      EXPECT_THAT(replica.report().unused, IsEmpty());
      optimizer->step();
      plain_optimizer->step();
    }
    EXPECT_EQ(step, samples.size());
    EXPECT_LE(relative_difference(values_of(ours), values_of(plain)), kTolerance);
  });
}

// The weight that counts is the one that the loss's dtype holds: 257 is 256 in bf16.
TEST(Replica, WeightsOfNarrowLossesAreNotAppliedTwice) {
  run_threads(2, [](Group& group) {
    torch::nn::Module module;
    const at::Tensor w = module.register_parameter("w", torch::ones({3}, at::kBFloat16));
    Replica replica(module, group);
    replica.backward((w * 3).sum(), 257);
    replica.finish_gradients();
    EXPECT_TRUE(w.grad().equal(torch::full({3}, 3.0))) << w.grad();
  });
}

TEST(Replica, AStepWithoutDataIsAnErrorOnAllRanksAndTheNextOneIsFine) {
  run_threads(2, [](Group& group) {
    Chain ours(2), plain(2);
    Replica replica(ours, group);
    EXPECT_FALSE(replica.any_has_data(false));
    EXPECT_TRUE(replica.any_has_data(group.rank() == 1));
    EXPECT_THAT(failure_of([&] { replica.finish_gradients(); }),
                HasSubstr("no rank had data in this step"));
    ours.zero_grad();
    replica.backward(chain_loss(ours, 0, 2, group.rank()));
    replica.finish_gradients();
    for (std::int64_t m = 0; m < 2; ++m) (chain_loss(plain, 0, 2, m) / 2).backward();
    EXPECT_LE(relative_difference(gradients_of(ours), gradients_of(plain)), kTolerance);
  });
}

// Running means as a batch norm has them.
struct Normed : torch::nn::Module {
  Normed() {
    w = register_parameter("w", torch::ones({5}));
    mean = register_buffer("mean", torch::zeros({5}));
    batches = register_buffer("batches", torch::zeros({}, at::kLong));
  }
  at::Tensor loss(double x) {
    const at::NoGradGuard no_grad;
    mean.mul_(0.5).add_(x);
    batches.add_(1 + static_cast<std::int64_t>(x));
    const at::AutoGradMode grad(true);
    return (w * x).sum();
  }
  at::Tensor w, mean, batches;
};

TEST(Replica, BuffersBecomeThoseOfRankZero) {
  for (const bool broadcast : {true, false}) {
    run_threads(3, [&](Group& group) {
      Normed model;
      model.mean.fill_(1 + group.rank());
      Replica replica(model, group, {.broadcast_buffers = broadcast});
      EXPECT_TRUE(model.mean.equal(torch::ones({5}))) << "the same start in any case";
      for (int step = 0; step < 2; ++step) {
        const double own = 10.0 * group.rank() + step;
        const double before = model.mean[0].item<double>();
        replica.backward(model.loss(own));
        replica.finish_gradients();
        const double expected = broadcast ? 0.5 * before + step : 0.5 * before + own;
        EXPECT_TRUE(model.mean.equal(torch::full({5}, expected))) << "rank " << group.rank();
      }
      EXPECT_EQ(model.batches.item<std::int64_t>(), broadcast ? 3 : 3 + 20 * group.rank());
    });
  }
}

}  // namespace
}  // namespace trireme
