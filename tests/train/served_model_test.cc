// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Model under ParameterServerStrategy. The workers of a job are threads of the test, as are its
// servers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include <atomic>
#include <barrier>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/trained_models.h"
#include "tests/train/served_training.h"
#include "trireme/base/error.h"
#include "trireme/train/model.h"

namespace trireme {
namespace {

using testing::alone;
using testing::dataset;
using testing::expect_same;
using testing::expect_same_with_servers;
using testing::formula;
using testing::kBatch;
using testing::kFeatures;
using testing::kSamples;
using testing::make_net;
using testing::place;
using testing::quiet;
using testing::run_job;
using testing::run_threads;
using testing::run_workers;
using testing::samples;
using testing::served;
using testing::Train;
using testing::train;
using testing::Trained;
using testing::wide_net;
using testing::with_validation;

TEST(ServedModel, TrainsTheSameAsWithoutServers) {
  for (const OptimizerRecipe& optimizer :
       {OptimizerRecipe(Adam({.learning_rate = 0.01})),
        OptimizerRecipe(AdamW({.learning_rate = 0.01, .weight_decay = 0.3})),
        OptimizerRecipe(Sgd({.learning_rate = 0.1, .momentum = 0.9})),
        OptimizerRecipe(ShardedOptimizer({.name = "lamb"}, 0.01))}) {
    const Train body = [&](Strategy& strategy) {
      return train(strategy, wide_net(strategy.rank()), optimizer);  // rank 0's counts
    };
    const Trained expected = alone(body);
    EXPECT_LT(expected.history.epochs.back().at("loss"), expected.history.epochs[0].at("loss"));
    expect_same_with_servers(expected, body);
  }
}

// Whose optimizers are LibTorch's, which round elsewhere.
TEST(ServedModel, TrainsNearlyTheSameAsMirrored) {
  const Train body = [](Strategy& strategy) {
    return train(strategy, wide_net(strategy.rank()), Adam({.learning_rate = 0.01}));
  };
  Trained expected;
  run_threads(2, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const Trained found = body(strategy);
    if (group.rank() == 0) expected = found;
  });
  run_job(2, served(2), [&](ParameterServerStrategy& strategy) {
    const Trained found = body(strategy);
    for (std::size_t i = 0; i < 3; ++i) {
      for (const auto& [name, value] : expected.history.epochs[i].values()) {
        EXPECT_NEAR(found.history.epochs[i].at(name), value, 1e-5) << name;
      }
    }
    EXPECT_TRUE(found.predictions.allclose(expected.predictions, 1e-4, 1e-6));
  });
}

TEST(ServedModel, ThreeWorkersHaveTwoMicroBatchesEach) {
  const Train body = [](Strategy& strategy) {
    return train(strategy, make_net(strategy.rank()), Adam({.learning_rate = 0.05}));
  };
  const Trained expected = alone(body, 6);
  run_job(2, served(3), [&](ParameterServerStrategy& strategy) {
    expect_same(body(strategy), expected, place(strategy, 2));
  });
}

// A NaN in the third batch, in the part of the last rank; a target far off in the fourth.
Dataset with_bad_batches() {
  Samples all = samples(kSamples, 1);
  all.inputs[3 * kBatch - 1][2] = std::numeric_limits<double>::quiet_NaN();
  all.targets[3 * kBatch + 4] = 1e4;
  return {all.inputs, all.targets};
}

TEST(ServedModel, PassesOverBadStepsAndAveragesAsOthersDo) {
  const CompileOptions compile{
      .average_decay = 0.6,
      .guard = GuardOptions{.max_consecutive = 2, .spike_factor = 50, .spike_window = 2}};
  FitOptions in_order = with_validation(3);
  in_order.shuffle = false;
  const Train body = [&](Strategy& strategy) {
    return train(strategy, make_net(strategy.rank()), Adam({.learning_rate = 0.05}),
                 {.compile = compile, .data = with_bad_batches(), .fit = in_order});
  };
  const Trained expected = alone(body);
  EXPECT_EQ(expected.history.non_finite, 3);
  EXPECT_EQ(expected.history.spikes, 3);
  expect_same_with_servers(expected, [&](Strategy& strategy) {
    const Trained found = body(strategy);
    EXPECT_EQ(found.history.non_finite, 3);
    EXPECT_EQ(found.history.spikes, 3);
    return found;
  });
}

// Whole batches: a mean needs two samples.
TEST(ServedModel, RunningMeansAndWhatIsNotTrainedAreThoseOfRank0) {
  const Dataset data = dataset(5 * kBatch, 1);
  const auto net = [](double phase) {
    torch::nn::Sequential result = make_net(phase);
    result->push_back(torch::nn::BatchNorm1d(1));
    result[0]->as<torch::nn::Linear>()->bias.requires_grad_(false);
    return result;
  };
  const auto body = [&](Strategy& strategy, const torch::nn::Sequential& module) {
    const auto scope = strategy.scope();
    Model model(scope, module);
    model.compile(Sgd({.learning_rate = 0.1}), MeanSquaredError());
    model.fit(data, quiet(2));
    return model.predict(samples(kSamples, 2).inputs, 7);
  };
  at::Tensor expected;
  run_threads(2, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const at::Tensor found = body(strategy, net(group.rank()));
    if (group.rank() == 0) expected = found;
  });
  run_job(2, served(2), [&](ParameterServerStrategy& strategy) {
    EXPECT_TRUE(body(strategy, net(strategy.rank())).equal(expected)) << strategy.rank();
  });
}

TEST(ServedModel, SavesWhatOthersLoadAndLoadsWhatOthersSave) {
  const testing::TemporaryFolder folder;
  const std::string mirrored = folder.path() / "mirrored";
  const std::string by_servers = folder.path() / "served";
  const at::Tensor inputs = samples(kSamples, 2).inputs;
  at::Tensor first, second;
  run_threads(2, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, wide_net(1));
    model.compile(Sgd({.learning_rate = 0.1}), MeanSquaredError());
    model.fit(dataset(kSamples, 1), quiet(1));
    model.save_weights(mirrored);
    const at::Tensor found = model.predict(inputs);
    if (group.rank() == 0) first = found;
  });
  // Through a codec that does not keep weights.
  ParameterServerOptions options = served(2);
  options.codec = "int8";
  run_job(2, options, [&](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, wide_net(strategy.rank() + 5));
    model.compile(Adam({.learning_rate = 0.01}), MeanSquaredError());
    model.fit(dataset(kSamples, 1), quiet(1));
    EXPECT_FALSE(model.predict(inputs).equal(first));
    model.load_weights(mirrored);
    EXPECT_TRUE(model.predict(inputs).equal(first)) << strategy.rank();
    model.fit(dataset(kSamples, 3), {.batch_size = kBatch,
                                     .callbacks = {ModelCheckpoint({.folder = by_servers})},
                                     .progress = false});
    const at::Tensor found = model.predict(inputs);
    EXPECT_FALSE(found.equal(first));
    if (strategy.rank() == 0) second = found;
  });
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, wide_net(9));
    model.compile(Sgd(), MeanSquaredError());
    model.load_weights(by_servers);
    EXPECT_TRUE(model.predict(inputs).equal(second));
  });
}

// More of them than the header of a call holds.
TEST(ServedModel, PredictionsTravelInParts) {
  const auto predict = [](Strategy& strategy) {
    const auto scope = strategy.scope();
    torch::nn::Linear net(kFeatures, 3001);
    const at::NoGradGuard no_grad;
    net->weight.copy_(formula(net->weight.sizes(), strategy.rank()));
    net->bias.zero_();
    Model model(scope, net);
    model.compile(Sgd(), MeanSquaredError());
    return model.predict(samples(kSamples, 2).inputs, 7);
  };
  at::Tensor expected;
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    expected = predict(strategy);
  });
  run_job(1, served(2), [&](ParameterServerStrategy& strategy) {
    EXPECT_TRUE(predict(strategy).equal(expected)) << strategy.rank();
  });
}

// The optimizer's moments stay, as without servers.
TEST(ServedModel, CallbacksStopAndBringBackTheBestWeights) {
  const Train body = [](Strategy& strategy) {
    FitOptions options = with_validation(40);
    options.callbacks = {EarlyStopping({.patience = 1, .restore_best_weights = true})};
    return train(strategy, wide_net(strategy.rank()), Sgd({.learning_rate = 3, .momentum = 0.9}),
                 {.fit = options});
  };
  const Trained expected = alone(body);
  EXPECT_LT(expected.history.epochs.size(), 40);
  expect_same_with_servers(expected, body);
}

TEST(ServedModel, OneWorkerStopsAll) {
  run_job(1, served(2), [](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(1));
    model.compile(Sgd(), MeanSquaredError());
    FitOptions options = quiet(9);
    options.callbacks = {LambdaCallback([&](Model& fitted, const EpochEnd& end) {
      if (end.epoch == 4 && strategy.rank() == 1) fitted.stop_training();
    })};
    EXPECT_EQ(model.fit(dataset(kSamples, 1), options).epochs.size(), 4);
  });
}

TEST(ServedModel, EachGoesItsOwnWayWithoutSync) {
  for (const std::string consistency : {"bounded(2)", "async"}) {
    std::mutex mutex;
    std::map<int, Logs> first_epochs;
    std::barrier together(3);
    run_job(2, served(3, consistency), [&](ParameterServerStrategy& strategy) {
      const auto scope = strategy.scope();
      Model model(scope, wide_net(strategy.rank()));
      model.compile(Adam({.learning_rate = 0.003}), MeanSquaredError(), {MeanAbsoluteError()},
                    {.guard = GuardOptions{}});
      const Logs before = model.evaluate(dataset(kSamples, 1), 7);
      together.arrive_and_wait();  // no one has trained yet
      const History history = model.fit(dataset(kSamples, 1), quiet(12));
      EXPECT_EQ(history.non_finite, 0) << "a batch without a sample of this worker";
      together.arrive_and_wait();
      // Of all samples, and by weights that no one changes any more.
      const Logs after = model.evaluate(dataset(kSamples, 1), 7);
      EXPECT_LT(after.at("loss"), before.at("loss")) << consistency;
      const auto [x, y] = samples(kSamples, 1);
      EXPECT_NEAR(torch::mse_loss(model.predict(x, 7), y).item<double>(), after.at("loss"), 1e-6)
          << consistency << " rank " << strategy.rank();
      const std::lock_guard lock(mutex);
      first_epochs.emplace(strategy.rank(), history.epochs[0]);
    });
    EXPECT_FALSE(first_epochs.at(0) == first_epochs.at(1)) << consistency;
  }
}

// Three samples are the first two workers'; the third's decay of weights would be an update.
TEST(ServedModel, WithoutSyncABatchWithoutItsSamplesIsNoStepOfAWorker) {
  run_job(1, served(3, "async"), [&](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(1));
    model.compile(AdamW({.learning_rate = 0.1, .weight_decay = 0.5}), MeanSquaredError());
    if (strategy.rank() < 2) return;
    const at::Tensor before = model.predict(samples(kSamples, 2).inputs);
    const History history = model.fit(dataset(3, 1), quiet(2));
    EXPECT_TRUE(std::isnan(history.epochs[0].at("loss")));
    EXPECT_TRUE(model.predict(samples(kSamples, 2).inputs).equal(before));
  });
}

// Alone in its job a worker of any consistency trains what a world of one does.
TEST(ServedModel, AloneItIsAWorldOfOne) {
  const Train body = [](Strategy& strategy) {
    return train(strategy, wide_net(1), Adam({.learning_rate = 0.01}),
                 {.compile = {.average_decay = 0.7, .guard = GuardOptions{}}});
  };
  const Trained expected = alone(body);
  for (const std::string consistency : {"sync", "bounded(0)", "async"}) {
    run_job(2, served(1, consistency), [&](ParameterServerStrategy& strategy) {
      expect_same(body(strategy), expected, consistency);
    });
  }
}

// In async rank 0 gives the weights, and what the servers do not keep each worker reads itself.
TEST(ServedModel, LoadsWithoutSync) {
  const testing::TemporaryFolder folder;
  const auto frozen_net = [](double phase) {
    torch::nn::Sequential net = make_net(phase);
    net[0]->as<torch::nn::Linear>()->weight.requires_grad_(false);
    return net;
  };
  const at::Tensor inputs = samples(kSamples, 2).inputs;
  at::Tensor expected;
  run_threads(1, [&](Group& group) {
    MirroredStrategy strategy(group, {});
    const auto scope = strategy.scope();
    Model model(scope, frozen_net(1));
    model.compile(Sgd(), MeanSquaredError());
    model.save_weights(folder.path());
    expected = model.predict(inputs);
  });
  std::atomic<bool> loaded = false;
  run_job(2, served(2, "async"), [&](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, frozen_net(strategy.rank() + 3));
    model.compile(Sgd(), MeanSquaredError());
    if (strategy.rank() == 0) {
      model.load_weights(folder.path());
      loaded = true;
      loaded.notify_all();
    } else {
      loaded.wait(false);
      model.load_weights(folder.path());
    }
    EXPECT_TRUE(model.predict(inputs).equal(expected)) << strategy.rank();
  });
}

// In the midst of a step, when rank 0 has made so many losses.
TEST(ServedModel, ALostServerChangesNothing) {
  const auto body = [](Strategy& strategy, int moment, const std::function<void()>& event) {
    int losses = 0;
    const Loss loss{[&](const at::Tensor& predictions, const at::Tensor& targets) {
      if (strategy.rank() == 0 && losses++ == moment) event();
      return torch::mse_loss(predictions, targets);
    }};
    const Trained result =
        train(strategy, wide_net(strategy.rank()), Adam({.learning_rate = 0.01}),
              {.compile = {.average_decay = 0.5, .guard = GuardOptions{}}, .loss = loss});
    EXPECT_TRUE(strategy.rank() != 0 || losses > moment);
    return result;
  };
  const Trained expected = alone([&](Strategy& strategy) { return body(strategy, 0, [] {}); });
  for (const int moment : {1, 8, 13, 25}) {  // 13: of an evaluation
    const int lost = moment % 2;
    ps::Job job({.servers = 2, .workers = 2});
    run_workers(job, served(2), [&](ParameterServerStrategy& strategy) {
      const auto event = [&] {
        EXPECT_TRUE(job.await_backups());
        job.end_server(lost);
      };
      expect_same(body(strategy, moment, event), expected,
                  fmt::format("rank {}, server {} is lost", strategy.rank(), lost));
      strategy.close();
    });
  }
}

// In the second epoch; what it had to do of an evaluation the others do.
TEST(ServedModel, TheOthersGoOnWithoutALostWorker) {
  const ps::Job job({.servers = 2, .workers = 4});
  std::mutex mutex;
  std::map<int, Trained> found;
  run_workers(job, served(4), [&](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, wide_net(strategy.rank()));
    int losses = 0;
    const Loss loss{[&](const at::Tensor& predictions, const at::Tensor& targets) {
      if (strategy.rank() == 2 && ++losses == 8) throw Error("this worker is lost");
      return torch::mse_loss(predictions, targets);
    }};
    model.compile(Adam({.learning_rate = 0.01}), loss, {MeanAbsoluteError()});
    Trained result;
    try {
      result.history = model.fit(dataset(kSamples, 1), with_validation(4));
    } catch (const Error& error) {
      EXPECT_EQ(strategy.rank(), 2) << error.what();
      return;
    }
    EXPECT_NE(strategy.rank(), 2);
    result.evaluation = model.evaluate(dataset(kSamples, 1), 7);
    result.predictions = model.predict(samples(kSamples, 1).inputs, 7);
    // By all samples, those of the lost worker's micro-batches as well.
    const at::Tensor targets = samples(kSamples, 1).targets;
    EXPECT_NEAR(result.evaluation.at("loss"),
                torch::mse_loss(result.predictions, targets).item<double>(), 1e-6);
    strategy.close();
    const std::lock_guard lock(mutex);
    found.emplace(strategy.rank(), result);
  });
  ASSERT_EQ(found.size(), 3);
  expect_same(found.at(1), found.at(0), "rank 1");
  expect_same(found.at(3), found.at(0), "rank 3");
  EXPECT_LT(found.at(0).history.epochs.back().at("loss"),
            found.at(0).history.epochs.front().at("loss"));
}

}  // namespace
}  // namespace trireme
