// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models under ParameterServerStrategy, in whole: what its tests train, and what they compare it
// with.
#pragma once

#include <fmt/format.h>
#include <torch/types.h>

#include <functional>
#include <map>
#include <string>

#include "tests/ps/job.h"
#include "tests/support/ranks.h"
#include "tests/support/trained_models.h"
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
