// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models under ParameterServerStrategy, in whole: what its tests train, and what they compare it
// with.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <functional>
#include <map>
#include <string>

#include "tests/ps/job.h"
#include "tests/support/fitted_models.h"
#include "tests/support/ranks.h"
#include "trireme/train/model.h"

namespace trireme::testing {

// The net's ranges are as small as can be: three of them.
constexpr std::int64_t kHidden = 1200;

inline torch::nn::Sequential wide_net(double phase) {
  torch::nn::Sequential net(torch::nn::Linear(kFeatures, kHidden), torch::nn::Tanh(),
                            torch::nn::Linear(kHidden, 1), torch::nn::Sigmoid());
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : net->parameters()) {
    parameter.copy_(formula(parameter.sizes(), phase += 1) / 20);
  }
  return net;
}

inline ParameterServerOptions served(int workers, const std::string& consistency = "sync") {
  return {.workers = workers, .consistency = consistency, .range_bytes = 4 * kShardBlock};
}

// Calls body on a thread for each worker of the job. Strategies are left open: body may close its.
inline void run_workers(const ps::Job& job, const ParameterServerOptions& options,
                        const std::function<void(ParameterServerStrategy&)>& body) {
  run_rank_threads(options.workers, [&](int rank) {
    ParameterServerStrategy strategy(job.worker_options(rank), options);
    body(strategy);
  });
}

inline void run_job(int servers, const ParameterServerOptions& options,
                    const std::function<void(ParameterServerStrategy&)>& body) {
  const ps::Job job({.servers = servers, .workers = options.workers});
  run_workers(job, options, [&](ParameterServerStrategy& strategy) {
    body(strategy);
    strategy.close();
    strategy.close();
  });
}

struct Trained {
  History history;
  Logs evaluation;
  at::Tensor predictions;
};

inline void expect_same(const Trained& found, const Trained& expected, const std::string& where) {
  ASSERT_EQ(found.history.epochs.size(), expected.history.epochs.size()) << where;
  for (std::size_t i = 0; i < expected.history.epochs.size(); ++i) {
    for (const auto& [name, value] : expected.history.epochs[i].values()) {
      EXPECT_EQ(found.history.epochs[i].at(name), value) << where << ", epoch " << i << " " << name;
    }
  }
  EXPECT_TRUE(found.evaluation == expected.evaluation) << where;
  EXPECT_TRUE(found.predictions.equal(expected.predictions)) << where;
}

inline FitOptions with_validation(std::int64_t epochs) {
  FitOptions options = quiet(epochs);
  options.validation = dataset(17, 5);
  return options;
}

inline Trained train(Strategy& strategy, const torch::nn::Sequential& net,
                     const OptimizerRecipe& optimizer, const CompileOptions& compile = {},
                     const Dataset& data = dataset(kSamples, 1),
                     FitOptions options = with_validation(3)) {
  const auto scope = strategy.scope();
  Model model(scope, net);
  model.compile(optimizer, MeanSquaredError(), {BinaryAccuracy(), MeanAbsoluteError()}, compile);
  Trained result;
  result.history = model.fit(data, options);
  result.evaluation = model.evaluate(dataset(kSamples, 1), 7);
  result.predictions = model.predict(samples(kSamples, 2).inputs, 7);
  return result;
}

inline std::string place(const Strategy& strategy, int servers) {
  return fmt::format("rank {} of {}, {} servers", strategy.rank(), strategy.size(), servers);
}

using Train = std::function<Trained(Strategy&)>;

// Of a world of one without servers, whose optimizer is the servers'.
inline Trained alone(const Train& body, std::int64_t micro_batches = 0) {
  Trained result;
  run_threads(1, [&](Group& group) {
    ShardedStrategy strategy(group, {.stage = 0, .micro_batches = micro_batches});
    result = body(strategy);
  });
  return result;
}

inline void expect_same_with_servers(const Trained& expected, const Train& body) {
  for (const auto& [servers, workers] : std::map<int, int>{{1, 1}, {2, 2}, {3, 4}}) {
    run_job(servers, served(workers), [&](ParameterServerStrategy& strategy) {
      expect_same(body(strategy), expected, place(strategy, servers));
    });
  }
}

}  // namespace trireme::testing
