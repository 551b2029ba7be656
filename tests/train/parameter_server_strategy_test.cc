// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How a ParameterServerStrategy comes to be, and what it refuses; served_model_test.cc has its
// models.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include <atomic>
#include <memory>
#include <vector>

#include "tests/ps/job.h"
#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/trained_models.h"
#include "tests/train/served_training.h"
#include "trireme/train/model.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::alone;
using testing::dataset;
using testing::expect_same;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::kSamples;
using testing::make_net;
using testing::quiet;
using testing::run_rank_threads;
using testing::run_workers;
using testing::served;
using testing::Train;
using testing::train;
using testing::wide_net;

// Nothing around it: servers on threads of this process.
TEST(ParameterServerStrategy, HoldsItsServersItself) {
  const Train body = [](Strategy& strategy) {
    return train(strategy, wide_net(1), Adam({.learning_rate = 0.01}));
  };
  ParameterServerStrategy strategy({.servers = 2, .range_bytes = 4 * kShardBlock});
  EXPECT_EQ(strategy.rank(), 0);
  EXPECT_EQ(strategy.size(), 1);
  expect_same(body(strategy), alone(body), "servers of its own");
  strategy.close();
  strategy.close();
}

TEST(ParameterServerStrategy, CompiledAgainItsModelGoesOnFromItsWeights) {
  ParameterServerStrategy strategy;
  const auto scope = strategy.scope();
  Model model(scope, make_net(1));
  model.compile(Sgd({.learning_rate = 0.5}), BinaryCrossEntropy());
  model.fit(dataset(kSamples, 1), quiet(2));
  const Logs before = model.evaluate(dataset(kSamples, 1), 7);
  model.compile(AdamW({.learning_rate = 0.05}), BinaryCrossEntropy());
  EXPECT_TRUE(model.evaluate(dataset(kSamples, 1), 7) == before);
  const History history = model.fit(dataset(kSamples, 1), quiet(2));
  EXPECT_LT(history.epochs[1].at("loss"), before.at("loss"));
  strategy.close();
}

TEST(ParameterServerStrategy, RefusesNumbersAndWordsOutOfRange) {
  const auto refused = [](const ParameterServerOptions& options) {
    return failure_of([&] { ParameterServerStrategy strategy(options); });
  };
  EXPECT_THAT(refused({.servers = 0}), HasSubstr("servers 0"));
  EXPECT_THAT(refused({.workers = -1}), HasSubstr("workers -1"));
  EXPECT_THAT(refused({.consistency = "often"}), HasSubstr("often"));
  EXPECT_THAT(refused({.codec = "int7"}), HasSubstr("int7"));
  EXPECT_THAT(refused({.range_bytes = 5}), HasSubstr("range_bytes 5"));
  const ps::WorkerOptions nowhere{.coordinator_port = 1};
  EXPECT_THAT(failure_of([&] {
                ParameterServerStrategy strategy(nowhere, {.workers = 2, .micro_batches = 6});
              }),
              AllOf(HasSubstr("6 micro-batches"), HasSubstr("power of two")));
}

TEST(ParameterServerStrategy, RefusesModelsThatServersCannotKeep) {
  ParameterServerStrategy strategy;
  const auto scope = strategy.scope();
  Model f64(scope, make_net(1, at::kDouble));
  EXPECT_THAT(failure_of([&] { f64.compile(Sgd(), MeanSquaredError()); }), HasSubstr("keep f32"));
  Model model(scope, make_net(1));
  EXPECT_THAT(failure_of([&] {
                model.compile(TorchOptimizer([](std::vector<at::Tensor>) {
                                return std::unique_ptr<torch::optim::Optimizer>();
                              }),
                              MeanSquaredError());
              }),
              HasSubstr("does not run on parameter servers"));
}

TEST(ParameterServerStrategy, RefusesWorkersThatDisagreeOrComeTwice) {
  const ps::Job job({.servers = 1, .workers = 2});
  run_workers(job, served(2), [](ParameterServerStrategy& strategy) {
    const auto scope = strategy.scope();
    Model model(scope, make_net(1));
    model.compile(Sgd({.learning_rate = 0.5}), MeanSquaredError());
    EXPECT_THAT(failure_of([&] { model.compile(Sgd(), MeanSquaredError()); }),
                HasSubstr("keep one model, compiled once"));
    strategy.close();
  });
}

TEST(ParameterServerStrategy, RefusesWhoComesWhenTheOthersTrain) {
  const ps::Job job({.servers = 1, .workers = 2});
  std::atomic<bool> tried = false;
  const auto compiled = [](Strategy& strategy) {
    Model model(strategy.scope(), make_net(1));
    model.compile(Sgd(), MeanSquaredError());
    return model;
  };
  run_rank_threads(2, [&](int rank) {
    {
      ParameterServerStrategy strategy(job.worker_options(rank), served(2));
      Model model = compiled(strategy);
      if (rank == 0) {
        tried.wait(false);
        model.fit(dataset(kSamples, 1), quiet(1));
        return strategy.close();
      }
    }  // lost
    ParameterServerStrategy again(job.worker_options(1), served(2));
    EXPECT_THAT(failure_of([&] { compiled(again); }),
                HasSubstr("worker 1 was started while the job goes on"));
    tried = true;
    tried.notify_all();
  });
}

}  // namespace
}  // namespace trireme
