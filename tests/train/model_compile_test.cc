// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CompileOptions: steps that the guard passes over, and the average of the weights, under each
// strategy.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/trained_models.h"
#include "trireme/base/error.h"
#include "trireme/train/model.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::expect_same;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::kBatch;
using testing::kSamples;
using testing::make_net;
using testing::quiet;
using testing::run_threads;
using testing::samples;
using testing::train;
using testing::Trained;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr int kMirrored = -1;  // else a stage of ZeRO
std::unique_ptr<Strategy> make_strategy(Group& group, int kind, int shard_ranks = 0) {
  if (kind == kMirrored) return std::make_unique<MirroredStrategy>(group, MirroredOptions{});
  return std::make_unique<ShardedStrategy>(
      group, ShardedOptions{.stage = kind, .shard_ranks = shard_ranks});
}

std::string place(Strategy& strategy, int kind) {
  return fmt::format("{}, rank {} of {}",
                     kind == kMirrored ? "mirrored" : fmt::format("stage {}", kind),
                     strategy.rank(), strategy.size());
}

// Calls f(strategy, where) on the ranks of worlds of one, two and four, under all strategies.
// The world of one comes first.
void for_all_strategies(const std::function<void(Strategy&, const std::string& where)>& f) {
  for (const int kind : {kMirrored, 0, 1, 2, 3}) {
    for (const int ranks : {1, 2, 4}) {
      run_threads(ranks, [&](Group& group) {
        const auto strategy = make_strategy(group, kind, ranks == 4 && kind > 0 ? 2 : 0);
        f(*strategy, place(*strategy, kind));
      });
    }
  }
}

Samples rows(const Samples& all, std::int64_t begin, std::int64_t end) {
  return {all.inputs.narrow(0, begin, end - begin), all.targets.narrow(0, begin, end - begin)};
}

// All but the third and the fourth batch: what passing over them leaves.
Dataset without_bad_batches(std::int64_t count = kSamples) {
  const Samples all = samples(count, 1);
  const Samples before = rows(all, 0, 2 * kBatch);
  const Samples after = rows(all, 4 * kBatch, count);
  return {torch::cat({before.inputs, after.inputs}), torch::cat({before.targets, after.targets})};
}

// A NaN in the third batch: in its last sample, which the last rank has, or its first. A target far
// off in the fourth.
Dataset with_bad_batches(std::int64_t count = kSamples, std::int64_t bad_sample = 3 * kBatch - 1) {
  Samples all = samples(count, 1);
  all.inputs[bad_sample][2] = kNaN;
  if (count > 3 * kBatch) all.targets[3 * kBatch + 4] = 1e4;
  return {all.inputs, all.targets};
}

FitOptions in_order(std::int64_t epochs) {
  FitOptions options = quiet(epochs);
  options.shuffle = false;
  return options;
}

Trained fit(Strategy& strategy, const Dataset& data, const CompileOptions& options,
            const torch::nn::Sequential& net) {
  return train(strategy, net, Adam({.learning_rate = 0.05}),
               {.compile = options, .data = data, .fit = in_order(3)});
}

const CompileOptions kGuarded{
    .average_decay = 0.6,
    .guard = GuardOptions{.max_consecutive = 2, .spike_factor = 50, .spike_window = 2}};

TEST(ModelCompile, BadStepsOfOneRankArePassedOverByAll) {
  Trained expected;
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    if (strategy.size() == 1) {
      expected =
          fit(strategy, without_bad_batches(), {.average_decay = 0.6}, make_net(strategy.rank()));
      EXPECT_EQ(expected.history.non_finite + expected.history.spikes, 0) << where;
    }
    const Trained found = fit(strategy, with_bad_batches(), kGuarded, make_net(strategy.rank()));
    expect_same(found, expected, where);
    EXPECT_EQ(found.history.non_finite, 3) << where;
    EXPECT_EQ(found.history.spikes, 3) << where;
  });
}

TEST(ModelCompile, AMultiWorkerModelPassesOverBadStepsToo) {
  MultiWorkerMirroredStrategy strategy;
  const Trained expected =
      fit(strategy, without_bad_batches(), {.average_decay = 0.6}, make_net(0));
  const Trained found = fit(strategy, with_bad_batches(), kGuarded, make_net(0));
  expect_same(found, expected, "a world of one");
  EXPECT_EQ(found.history.non_finite, 3);
  strategy.close();
}

// Steps of one batch each: in the second one rank's gradients are not finite, in the third its
// loss.
TEST(ModelCompile, EitherTheLossOrTheGradientOfOneRankIsABadStepOfAll) {
  const auto run = [](Strategy& strategy, bool poison, const CompileOptions& options) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(strategy.rank()));
    int step = 0;
    const bool here = strategy.rank() == strategy.size() - 1;
    const Loss loss{[&](const at::Tensor& predictions, const at::Tensor& targets) {
      if (step == 1 && here && predictions.requires_grad()) {
        predictions.register_hook([](const at::Tensor& gradient) { return gradient * kNaN; });
      }
      const at::Tensor value = torch::mse_loss(predictions, targets);
      return step == 2 && here ? value + std::numeric_limits<float>::infinity() : value;
    }};
    model.compile(Sgd({.learning_rate = 0.3, .momentum = 0.9}), loss, {}, options);
    for (; step < 4; ++step) {
      const bool bad = step == 1 || step == 2;
      if (bad && !poison) continue;
      const History history = model.fit(testing::dataset(kBatch, 1), in_order(1));
      EXPECT_EQ(history.non_finite, bad ? 1 : 0);
    }
    return model.predict(samples(kSamples, 3).inputs, 7);
  };
  at::Tensor expected;
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    if (strategy.size() == 1) expected = run(strategy, false, {.guard = GuardOptions{}});
    EXPECT_TRUE(run(strategy, true, {.guard = GuardOptions{}}).equal(expected)) << where;
  });
}

// The first sample is rank 0's, whose running means are the model's. Whole batches: a mean needs
// two samples.
TEST(ModelCompile, RunningMeansKnowNothingOfStepsThatArePassedOver) {
  const auto net = [] {
    torch::nn::Sequential result = make_net(0);
    result->push_back(torch::nn::BatchNorm1d(1));
    return result;
  };
  for (const int kind : {kMirrored, 2}) {
    run_threads(2, [&](Group& group) {
      const auto strategy = make_strategy(group, kind);
      const CompileOptions options{.guard = kGuarded.guard};
      const Trained expected = fit(*strategy, without_bad_batches(5 * kBatch), {}, net());
      const Trained found =
          fit(*strategy, with_bad_batches(5 * kBatch, 2 * kBatch), options, net());
      expect_same(found, expected, place(*strategy, kind));
      EXPECT_EQ(found.history.non_finite, 3);
    });
  }
}

TEST(ModelCompile, TooManyBadStepsEndAllRanksAlikeAndLeaveTheModelAsItWas) {
  at::Tensor expected;
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    const auto run = [&](bool bad) {
      const auto scope = strategy.scope();
      Model model(scope, make_net(strategy.rank()));
      model.compile(Adam({.learning_rate = 0.05}), MeanSquaredError(), {},
                    {.average_decay = 0.6, .guard = GuardOptions{.max_consecutive = 1}});
      if (bad) {
        Samples all = samples(kSamples, 1);
        all.inputs.narrow(0, 1, kSamples - 1).fill_(kNaN);
        EXPECT_THAT(failure_of([&] {
                      model.fit({all.inputs, all.targets}, in_order(3));
                    }),
                    AllOf(HasSubstr("step 2: the loss is nan"), HasSubstr("2 bad steps in a row"),
                          HasSubstr("guard.max_consecutive is 1")))
            << where;
      }
      model.fit(testing::dataset(kSamples, 1), in_order(2));
      return model.predict(samples(kSamples, 3).inputs, 7);
    };
    if (strategy.size() == 1) expected = run(false);
    EXPECT_TRUE(run(true).equal(expected)) << where;
  });
}

TEST(ModelCompile, AFitThatFailedLeavesTheAverage) {
  for (const int kind : {kMirrored, 0, 2, 3}) {
    run_threads(2, [&](Group& group) {
      const auto strategy = make_strategy(group, kind);
      const auto scope = strategy->scope();
      const std::string where = place(*strategy, kind);
      const at::Tensor x = samples(kSamples, 3).inputs;
      Model model(scope, make_net(0));
      const auto compile = [&] {
        model.compile(Adam({.learning_rate = 0.05}), MeanSquaredError(), {},
                      {.average_decay = 0.6, .guard = GuardOptions{.max_consecutive = 0}});
      };
      compile();
      model.fit(testing::dataset(kSamples, 1), in_order(2));
      const at::Tensor expected = model.predict(x, 7);
      for (const bool evaluated : {true, false}) {
        EXPECT_THAT(failure_of([&] { model.fit(with_bad_batches(kBatch, 3), in_order(1)); }),
                    HasSubstr("in a row, guard.max_consecutive is 0"));
        if (!evaluated) compile();
        EXPECT_TRUE(model.predict(x, 7).equal(expected)) << where << evaluated;
      }
    });
  }
}

// What the guard says of the norms that it has seen.
TEST(ModelCompile, NormsAreThoseOfTheMeanGradient) {
  std::string expected;
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(strategy.rank()));
    model.compile(
        Sgd({.learning_rate = 0.1}), MeanSquaredError(), {},
        {.guard = GuardOptions{.max_consecutive = 0, .spike_factor = 50, .spike_window = 4}});
    const Dataset last_is_small(3 * kBatch + 3, [](std::span<const std::int64_t> numbers) {
      return testing::dataset(kSamples, 1).samples(numbers);
    });
    model.fit(last_is_small, in_order(1));
    const std::string text = failure_of([&] {
      Samples all = samples(kBatch, 1);
      all.targets.fill_(1e4);
      model.fit({all.inputs, all.targets}, in_order(1));
    });
    const std::size_t begin = text.find("(running mean "), end = text.find(')', begin);
    ASSERT_NE(end, std::string::npos) << text;
    const std::string mean = text.substr(begin, end - begin);
    if (expected.empty()) expected = mean;
    EXPECT_EQ(mean, expected) << where;
  });
}

// The average that the header of WeightAverage tells of, from the weights after each step.
TEST(ModelCompile, EverythingButTrainingIsByTheAverage) {
  constexpr double kDecay = 0.3;  // above the first three of (1 + t) / (10 + t)
  constexpr std::int64_t kSteps = 7;
  const Dataset data = testing::dataset(kBatch, 1);
  SpreadModel::NamedTensors average;
  Trained expected;
  at::Tensor of_weights;
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    const auto scope = strategy.scope();
    const at::Tensor x = samples(kSamples, 3).inputs;
    if (strategy.size() == 1) {
      Model plain(scope, make_net(0));
      plain.compile(Adam({.learning_rate = 0.05}), MeanSquaredError());
      average = plain.weights();
      for (auto& [name, tensor] : average) tensor = tensor.detach().clone();
      std::int64_t t = 0;
      FitOptions options = in_order(kSteps);
      options.callbacks = {LambdaCallback([&](Model& model, const EpochEnd&) {
        const auto count = static_cast<double>(t++);
        const auto share = static_cast<float>(1 - std::min(kDecay, (1 + count) / (10 + count)));
        const SpreadModel::NamedTensors weights = model.weights();
        const at::NoGradGuard no_grad;
        for (std::size_t i = 0; i < weights.size(); ++i) {
          average[i].second.add_((weights[i].second - average[i].second).mul_(share));
        }
      })};
      expected.history = plain.fit(data, options);
      of_weights = plain.predict(x, 7);
      plain.set_weights(average);
      expected.predictions = plain.predict(x, 7);
      expected.evaluation = plain.evaluate(data, kBatch);
      EXPECT_FALSE(expected.predictions.equal(of_weights)) << where;
    }
    Model model(scope, make_net(strategy.rank()));
    model.compile(Adam({.learning_rate = 0.05}), MeanSquaredError(), {}, {.average_decay = kDecay});
    FitOptions options = in_order(kSteps);
    options.validation = data;
    const History history = model.fit(data, options);
    EXPECT_EQ(history.values("loss"), expected.history.values("loss")) << where;
    EXPECT_EQ(history.values("val_loss").back(), expected.evaluation.at("loss")) << where;
    EXPECT_TRUE(model.evaluate(data, kBatch) == expected.evaluation) << where;
    EXPECT_TRUE(model.predict(x, 7).equal(expected.predictions)) << where;
    const SpreadModel::NamedTensors weights = model.weights();
    if (strategy.rank() != 0) return;
    ASSERT_EQ(weights.size(), average.size()) << where;
    for (std::size_t i = 0; i < average.size(); ++i) {
      EXPECT_EQ(weights[i].first, average[i].first) << where;
      EXPECT_TRUE(weights[i].second.equal(average[i].second)) << where << weights[i].first;
    }
  });
}

// Training sees neither evaluations nor the end of fit().
TEST(ModelCompile, TrainingGoesOnFromTheWeightsAndTheirAverage) {
  for_all_strategies([&](Strategy& strategy, const std::string& where) {
    const auto scope = strategy.scope();
    const at::Tensor x = samples(kSamples, 3).inputs;
    const auto run = [&](bool pause) {
      Model model(scope, make_net(strategy.rank()));
      model.compile(Adam({.learning_rate = 0.05}), MeanSquaredError(), {}, {.average_decay = 0.8});
      FitOptions options = quiet(pause ? 1 : 3);
      model.fit(testing::dataset(kSamples, 1), options);
      if (pause) {
        model.predict(x, 7);
        model.weights();
        options.initial_epoch = 1;
        options.epochs = 3;
        model.fit(testing::dataset(kSamples, 1), options);
      }
      return model.predict(x, 7);
    };
    EXPECT_TRUE(run(true).equal(run(false))) << where;
  });
}

// Saved by one, loaded by another; compiled again.
TEST(ModelCompile, TheAverageIsWhatIsKept) {
  for (const int kind : {kMirrored, 0, 1, 2, 3}) {
    const testing::TemporaryFolder folder;
    const std::string path = folder.path().string();
    run_threads(2, [&](Group& group) {
      const auto strategy = make_strategy(group, kind);
      const auto scope = strategy->scope();
      const std::string where = place(*strategy, kind);
      const at::Tensor x = samples(kSamples, 3).inputs;
      Model model(scope, make_net(0));
      model.compile(Sgd({.learning_rate = 0.5}), MeanSquaredError(), {}, {.average_decay = 0.7});
      FitOptions options = quiet(2);
      options.callbacks = {ModelCheckpoint({.folder = path})};
      model.fit(testing::dataset(kSamples, 1), options);
      const at::Tensor expected = model.predict(x);

      Model other(scope, make_net(7));
      other.compile(Sgd(), MeanSquaredError(), {}, {.average_decay = 0.7});
      other.load_weights(path);
      EXPECT_TRUE(other.predict(x).equal(expected)) << where << ": loaded";
      model.compile(Sgd(), MeanSquaredError());
      EXPECT_TRUE(model.predict(x).equal(expected)) << where << ": compiled again";
      // From one start the same way.
      model.compile(Sgd(), MeanSquaredError(), {}, {.average_decay = 0.7});
      model.fit(testing::dataset(kSamples, 4), quiet(1));
      other.fit(testing::dataset(kSamples, 4), quiet(1));
      EXPECT_TRUE(model.predict(x).equal(other.predict(x))) << where << ": trained on";
    });
  }
}

TEST(ModelCompile, RefusesOptionsOutOfRange) {
  run_threads(1, [](Group& group) {
    for (const int kind : {kMirrored, 2}) {
      const auto strategy = make_strategy(group, kind);
      const auto scope = strategy->scope();
      Model model(scope, make_net(0));
      const auto failure = [&](const CompileOptions& options) {
        return failure_of([&] { model.compile(Sgd(), MeanSquaredError(), {}, options); });
      };
      for (const double decay : {-0.5, 1.0, kNaN}) {
        EXPECT_THAT(failure({.average_decay = decay}),
                    HasSubstr(fmt::format("ConfigError: average_decay is {}", decay)));
      }
      EXPECT_THAT(failure({.guard = GuardOptions{.spike_factor = 0.5}}),
                  HasSubstr("ConfigError: guard.spike_factor is 0.5"));
    }
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, make_net(0, at::kDouble));
    EXPECT_THAT(
        failure_of([&] { model.compile(Sgd(), MeanSquaredError(), {}, {.average_decay = 0.5}); }),
        AllOf(HasSubstr("ConfigError: average_decay is 0.5"), HasSubstr("Double"),
              HasSubstr("make the model f32")));
  });
}

// Their norms are those of f32.
TEST(ModelCompile, GuardsModelsOfOtherDtypes) {
  run_threads(2, [](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, make_net(0, at::kDouble));
    model.compile(Sgd(), MeanSquaredError(), {}, {.guard = kGuarded.guard});
    Samples all = samples(kSamples, 1, at::kDouble);
    all.inputs[3 * kBatch - 1][2] = kNaN;
    all.targets[3 * kBatch + 4] = 1e4;
    const History history = model.fit({all.inputs, all.targets}, in_order(2));
    EXPECT_EQ(history.non_finite, 2);
    EXPECT_EQ(history.spikes, 2);
  });
}

}  // namespace
}  // namespace trireme
