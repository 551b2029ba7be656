// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/rmsprop.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/trained_models.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::dataset;
using testing::expect_same;
using testing::formula;
using ::testing::HasSubstr;
using testing::kBatch;
using testing::kFeatures;
using testing::kSamples;
using testing::make_net;
using testing::quiet;
using testing::run_threads;
using testing::samples;
using testing::train;
using testing::Trained;
using torch::nn::Linear;
using torch::nn::Sequential;

// f64: batches are summed by micro-batches here and at once there.
constexpr double kTolerance = 1e-12;

// Rank 0's net counts.
Trained train_net(Strategy& strategy, const OptimizerRecipe& optimizer) {
  return train(strategy, make_net(strategy.rank()), optimizer, {.loss = BinaryCrossEntropy()});
}

TEST(Model, TrainsTheSameOnOneTwoAndFourWorkers) {
  Trained expected;
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    expected = train_net(strategy, Adam({.learning_rate = 0.05}));
  });
  EXPECT_LT(expected.history.epochs.back().at("loss"), expected.history.epochs[0].at("loss"));
  for (const int ranks : {2, 4}) {
    run_threads(ranks, [&](Group& group) {
      MirroredStrategy strategy(group, {});
      expect_same(train_net(strategy, Adam({.learning_rate = 0.05})), expected,
                  fmt::format("rank {} of {}", group.rank(), ranks));
    });
  }
}

TEST(Model, OddNumbersOfWorkersAgreeWithOneThatHasTheirMicroBatches) {
  Trained expected;
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {.micro_batches = 6});
    expected = train_net(strategy, Sgd({.learning_rate = 0.5, .momentum = 0.9}));
  });
  run_threads(3, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    expect_same(train_net(strategy, Sgd({.learning_rate = 0.5, .momentum = 0.9})), expected, "3");
  });
}

TEST(Model, CompiledAgainItGoesOnFromItsWeights) {
  const auto twice = [](Strategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(strategy.rank()));
    model.compile(Sgd({.learning_rate = 0.5}), BinaryCrossEntropy());
    model.fit(dataset(kSamples, 1), quiet(2));
    const Logs before = model.evaluate(dataset(kSamples, 1), 7);
    model.compile(AdamW({.learning_rate = 0.05}), BinaryCrossEntropy());
    EXPECT_TRUE(model.evaluate(dataset(kSamples, 1), 7) == before);
    model.fit(dataset(kSamples, 1), quiet(2));
    return model.predict(samples(kSamples, 2).inputs, 7);
  };
  at::Tensor expected;
  run_threads(1, [&](Group& group) {
    ShardedStrategy strategy(group, {.stage = 0});
    expected = twice(strategy);
  });
  for (const int stage : {0, 1, 2, 3}) {
    run_threads(2, [&](Group& group) {
      ShardedStrategy strategy(group, {.stage = stage});
      EXPECT_TRUE(twice(strategy).equal(expected)) << "stage " << stage;
    });
  }
}

// Without a word about micro-batches.
TEST(Model, ThreeWorkersShareInEachStage) {
  Trained expected;
  run_threads(1, [&](Group& group) {
    ShardedStrategy strategy(group, {.stage = 0, .micro_batches = 3});
    expected = train_net(strategy, AdamW({.learning_rate = 0.05}));
  });
  for (const int stage : {2, 3}) {
    run_threads(3, [&](Group& group) {
      ShardedStrategy strategy(group, {.stage = stage});
      expect_same(train_net(strategy, AdamW({.learning_rate = 0.05})), expected,
                  fmt::format("stage {}, rank {}", stage, group.rank()));
    });
  }
}

TEST(Model, ShardedTrainsTheSameInEachStage) {
  Trained expected;
  run_threads(1, [&](Group& group) {
    ShardedStrategy strategy(group, {.stage = 0});
    expected = train_net(strategy, AdamW({.learning_rate = 0.05, .weight_decay = 0.1}));
  });
  for (const int ranks : {2, 4}) {
    for (const int stage : {1, 2, 3}) {
      run_threads(ranks, [&](Group& group) {
        ShardedStrategy strategy(group, {.stage = stage});
        expect_same(train_net(strategy, AdamW({.learning_rate = 0.05, .weight_decay = 0.1})),
                    expected, fmt::format("stage {}, rank {} of {}", stage, group.rank(), ranks));
      });
    }
  }
  // Another optimizer's code, the same formula: what f32 rounds away in 18 steps.
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const Trained mirrored =
        train_net(strategy, AdamW({.learning_rate = 0.05, .weight_decay = 0.1}));
    EXPECT_TRUE(mirrored.predictions.allclose(expected.predictions, 1e-4, 1e-5));
  });
}

// Another child's matrix, transposed.
struct Tied : torch::nn::Module {
  explicit Tied(const Linear& other) : weight(register_parameter("weight", other->weight)) {}
  at::Tensor forward(const at::Tensor& x) { return x.matmul(weight); }
  at::Tensor weight;
};

// LibTorch's own way to put one Sequential into another.
struct Block : torch::nn::SequentialImpl {
  using SequentialImpl::SequentialImpl;
  at::Tensor forward(const at::Tensor& x) { return SequentialImpl::forward(x); }
};

// Children that are written in place, that stand in two places, that share a parameter, that have
// none or several layers.
Sequential make_odd_net() {
  const Linear twice(5, 5), shared(5, 5);
  Sequential net(
      Linear(kFeatures, 5), torch::nn::ReLU(torch::nn::ReLUOptions().inplace(true)), twice,
      torch::nn::Tanh(), twice, shared, torch::nn::Tanh(), std::make_shared<Tied>(shared),
      std::make_shared<Block>(Linear(5, 3), torch::nn::Tanh(), Linear(3, 1)), torch::nn::Sigmoid());
  const at::NoGradGuard no_grad;
  double phase = 0;
  for (at::Tensor& parameter : net->parameters()) {
    parameter.copy_(formula(parameter.sizes(), phase += 1));
  }
  return net;
}

TEST(Model, ShardedGoesThroughASequentialChildByChild) {
  const auto train_odd = [](Group& group, const ShardedOptions& options) {
    ShardedStrategy strategy(group, options);
    return train(strategy, make_odd_net(), Adam({.learning_rate = 0.05}),
                 {.fit = quiet(3), .loss = BinaryCrossEntropy()});
  };
  Trained expected;
  run_threads(1, [&](Group& group) { expected = train_odd(group, {.stage = 0}); });
  for (const int stage : {1, 2, 3}) {
    for (const int shard_ranks : {0, 2}) {
      run_threads(4, [&](Group& group) {
        const Trained found = train_odd(group, {.stage = stage, .shard_ranks = shard_ranks});
        expect_same(
            found, expected,
            fmt::format("stage {}, {} to a copy, rank {}", stage, shard_ranks, group.rank()));
      });
    }
  }
}

struct TwoTensors : torch::nn::Module {
  TwoTensors() { weight = register_parameter("weight", torch::ones({kFeatures})); }
  std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x) { return {x * weight, x}; }
  at::Tensor weight;
};

TEST(Model, ShardedRefusesAChildThatMakesNoTensor) {
  run_threads(1, [](Group& group) {
    ShardedStrategy strategy(group, {.stage = 3});
    const auto scope = strategy.scope();
    Model model(scope, Sequential(std::make_shared<TwoTensors>()));
    model.compile(Adam(), MeanSquaredError());
    EXPECT_THAT(testing::failure_of([&] { model.predict(samples(kSamples, 2).inputs, 7); }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("TwoTensors in a Sequential"),
                      HasSubstr("use stage 2")));
  });
}

// What a step and an evaluation gather of twelve layers of 9 blocks and one of 1.
TEST(Model, ShardedNeverHasTheWholeModel) {
  install_caching_allocator();
  run_threads(1, [](Group& group) {
    constexpr std::int64_t kLayers = 12, kWidth = 191;
    Sequential net;
    for (int i = 0; i < kLayers; ++i) net->push_back(Linear(kWidth, kWidth));
    net->push_back(Linear(kWidth, 1));
    ShardedStrategy strategy(group, {.stage = 3, .micro_batches = 1});
    const auto scope = strategy.scope();
    Model model(scope, net);
    model.compile(Adam(), MeanSquaredError());
    const Dataset data{formula({4, kWidth}, 1), formula({4, 1}, 2)};
    constexpr std::int64_t kLayerBytes = 9 * 4096 * 4;
    const auto peak_of = [](const std::function<void()>& action) {
      const std::int64_t before = process_memory().report().current[MemoryCategory::kWorkspace];
      process_memory().reset_peak();
      action();
      return process_memory().report().peaks[MemoryCategory::kWorkspace] - before;
    };
    EXPECT_LE(peak_of([&] { model.evaluate(data, 4); }), 2 * kLayerBytes + 4096 * 4)
        << "of the layer that computes, and of the next";
    EXPECT_LE(peak_of([&] { model.fit(data, quiet(2)); }), 6 * kLayerBytes)
        << "and four of gradients";
  });
}

// The loop that a LibTorch program has, on whole batches.
TEST(Model, DoesWhatTheLoopWouldDo) {
  const auto [x, y] = samples(kSamples, 1, at::kDouble);
  Sequential net = make_net(0, at::kDouble);
  torch::optim::Adam optimizer(net->parameters(), torch::optim::AdamOptions(0.05));
  std::vector<double> losses;
  for (int epoch = 0; epoch < 3; ++epoch) {
    double sum = 0;
    for (std::int64_t begin = 0; begin < kSamples; begin += kBatch) {
      const std::int64_t count = std::min(kBatch, kSamples - begin);
      optimizer.zero_grad();
      const at::Tensor loss = torch::binary_cross_entropy(net->forward(x.narrow(0, begin, count)),
                                                          y.narrow(0, begin, count));
      loss.backward();
      optimizer.step();
      sum += loss.item<double>() * static_cast<double>(count);
    }
    losses.push_back(sum / kSamples);
  }
  run_threads(2, [&, x = x, y = y](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, make_net(group.rank(), at::kDouble));
    model.compile(Adam({.learning_rate = 0.05}), BinaryCrossEntropy());
    FitOptions options = quiet(3);
    options.shuffle = false;
    const History history = model.fit({x, y}, options);
    EXPECT_THAT(history.values("loss"),
                ::testing::Pointwise(::testing::DoubleNear(kTolerance), losses));
    EXPECT_TRUE(model.predict(x).allclose(net->forward(x), 0, kTolerance));
    const double loss = torch::binary_cross_entropy(net->forward(x), y).item<double>();
    EXPECT_NEAR(model.evaluate({x, y}).at("loss"), loss, kTolerance);
  });
}

TEST(Model, ReadsEachSampleOnceAnEpochInAnotherOrder) {
  const auto [x, y] = samples(kSamples, 1);
  std::mutex mutex;
  std::vector<std::int64_t> seen;  // of two ranks
  std::vector<std::int64_t> of_rank_0;
  run_threads(2, [&, x = x, y = y](Group& group) {
    const Dataset data(kSamples, [&](std::span<const std::int64_t> numbers) {
      const std::lock_guard lock(mutex);
      seen.insert(seen.end(), numbers.begin(), numbers.end());
      if (group.rank() == 0) of_rank_0.insert(of_rank_0.end(), numbers.begin(), numbers.end());
      const at::Tensor index =
          torch::tensor(std::vector<std::int64_t>(numbers.begin(), numbers.end()));
      return Samples{x.index_select(0, index), y.index_select(0, index)};
    });
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, make_net(0));
    model.compile(Sgd(), BinaryCrossEntropy());
    FitOptions options = quiet(2);
    options.batch_size = 8;  // 53 = 6 x 8 + 5: no micro-batch is empty
    model.fit(data, options);
  });
  ASSERT_EQ(seen.size(), 2 * kSamples);
  for (std::int64_t i = 0; i < kSamples; ++i) EXPECT_EQ(std::ranges::count(seen, i), 2) << i;
  const auto half = of_rank_0.size() / 2;
  const std::vector<std::int64_t> first(of_rank_0.begin(),
                                        of_rank_0.begin() + static_cast<std::ptrdiff_t>(half));
  const std::vector<std::int64_t> second(of_rank_0.begin() + static_cast<std::ptrdiff_t>(half),
                                         of_rank_0.end());
  EXPECT_NE(first, second);
  EXPECT_FALSE(std::ranges::is_sorted(first));
}

TEST(Model, PredictsInOrderOfAnyDtypeAndFewerSamplesThanRanks) {
  run_threads(3, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Sequential net = make_net(0);
    Model model(scope, net.ptr(), [net](const at::Tensor& x) mutable {
      return net->forward(x).gt(0.5).expand({-1, 3});
    });
    model.compile(Sgd(), BinaryCrossEntropy());
    for (const std::int64_t count : {1, 2, 23}) {
      const at::Tensor x = formula({count, kFeatures}, 3);
      const at::Tensor expected = net->forward(x).gt(0.5).expand({-1, 3});
      EXPECT_TRUE(model.predict(x, 5).equal(expected)) << count;
    }
  });
}

TEST(Model, DropoutDependsOnTheSeedAndLeavesTheGeneratorAlone) {
  run_threads(1, [&](Group& group) {
    const auto losses = [&](std::uint64_t seed) {
      MirroredStrategy strategy(group, {});
      const auto scope = strategy.scope();
      Sequential net = make_net(0);
      Model model(scope, net.ptr(), [net](const at::Tensor& x) mutable {
        return net->forward(torch::dropout(x, 0.5, net->is_training()));
      });
      model.compile(Sgd(), BinaryCrossEntropy());
      FitOptions options = quiet(2);
      options.seed = seed;
      options.shuffle = false;
      return model.fit(dataset(kSamples, 1), options).values("loss");
    };
    torch::manual_seed(1);
    const at::Tensor next = torch::rand({4});
    torch::manual_seed(1);
    const std::vector<double> first = losses(3);
    EXPECT_TRUE(torch::rand({4}).equal(next));
    EXPECT_EQ(losses(3), first);
    EXPECT_NE(losses(4), first);
  });
}

TEST(Model, ScopeMakesTheSameModelInEveryRun) {
  run_threads(1, [&](Group& group) {
    const auto weight = [&](std::uint64_t seed) {
      MirroredStrategy strategy(group, {.seed = seed});
      const auto scope = strategy.scope();
      return Linear(3, 2)->weight.detach().clone();
    };
    const at::Tensor first = weight(5);
    EXPECT_TRUE(weight(5).equal(first));
    EXPECT_FALSE(weight(6).equal(first));
  });
}

TEST(Model, TakesAnyOptimizerOfLibTorch) {
  run_threads(2, [&](Group& group) {
    const TorchOptimizer rmsprop([](std::vector<at::Tensor> parameters) {
      return std::make_unique<torch::optim::RMSprop>(std::move(parameters),
                                                     torch::optim::RMSpropOptions(0.01));
    });
    MirroredStrategy strategy(group, {});
    const Trained trained = train_net(strategy, rmsprop);
    EXPECT_LT(trained.history.epochs.back().at("loss"), trained.history.epochs[0].at("loss"));
    ShardedStrategy sharded(group, {});
    EXPECT_THROW(train_net(sharded, rmsprop), ConfigError);
  });
}

TEST(Model, SavedWeightsComeBack) {
  for (const bool sharded : {false, true}) {
    const testing::TemporaryFolder folder;
    const std::string path = folder.path().string();
    run_threads(2, [&](Group& group) {
      std::unique_ptr<Strategy> strategy;
      if (sharded) {
        strategy = std::make_unique<ShardedStrategy>(group, ShardedOptions{.stage = 3});
      } else {
        strategy = std::make_unique<MirroredStrategy>(group, MirroredOptions{});
      }
      const auto scope = strategy->scope();
      const at::Tensor x = samples(kSamples, 2).inputs;
      Model model(scope, make_net(0));
      model.compile(Adam({.learning_rate = 0.05}), BinaryCrossEntropy());
      FitOptions options = quiet(4);
      options.callbacks = {ModelCheckpoint({.folder = path, .keep = 2})};
      model.fit(dataset(kSamples, 1), options);
      const at::Tensor expected = model.predict(x);
      Model other(scope, make_net(7));
      other.compile(Adam(), BinaryCrossEntropy());
      EXPECT_FALSE(other.predict(x).equal(expected));
      other.load_weights(path);
      EXPECT_TRUE(other.predict(x).equal(expected));
      other.load_weights(path + "/step-00000003");
      EXPECT_FALSE(other.predict(x).equal(expected));
    });
  }
}

TEST(Model, RefusesWhatCannotBe) {
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, make_net(0));
    EXPECT_THROW(model.fit(dataset(5, 1), quiet(1)), ConfigError);
    model.compile(Sgd(), BinaryCrossEntropy());
    EXPECT_THROW(model.evaluate(dataset(0, 1)), ConfigError);
    EXPECT_THROW(model.evaluate(dataset(5, 1), 0), ConfigError);
    EXPECT_THROW(model.fit(dataset(5, 1), quiet(-1)), ConfigError);
    const at::Tensor x = formula({5, kFeatures}, 1);
    EXPECT_THROW(model.evaluate({x, torch::zeros({5})}), ShapeError);
    EXPECT_THROW(Dataset(x, torch::zeros({4, 1})), ShapeError);
    model.compile(Sgd(), BinaryCrossEntropy(),
                  {{"rows", [](const at::Tensor& p, const at::Tensor&) { return p; }}});
    EXPECT_THROW(model.evaluate(dataset(5, 1)), ShapeError);
  });
}

}  // namespace
}  // namespace trireme
