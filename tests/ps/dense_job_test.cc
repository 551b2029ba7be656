// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dense parameters on real servers, in one process.

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/ps/job.h"
#include "trireme/base/error.h"
#include "trireme/comm/reduction_tree.h"
#include "trireme/optim/optimizer.h"

namespace trireme::ps {
namespace {

constexpr std::int64_t kSize = 11 * kShardBlock;

JobLayout dense_layout(const std::string& optimizer = "adamw") {
  JobLayout layout;
  layout.range_bytes = 4 * 3 * kShardBlock;  // the last range is shorter
  layout.dense.size = kSize;
  layout.dense.optimizer.name = optimizer;
  // Three parameters: the second lies in two ranges, and gaps lie between.
  layout.dense.parameters = {
      {.entry = {"embedding", {2, kShardBlock}, 0, 2 * kShardBlock}, .decays = true},
      {.entry = {"matrix", {50, 100}, 2 * kShardBlock + 64, 5000}, .decays = true},
      {.entry = {"bias", {777}, 8 * kShardBlock + 128, 777}},
  };
  return layout;
}

float first_weight(std::int64_t i) {
  return static_cast<float>(std::sin(0.001 * static_cast<double>(i)));
}

// Of a rank in a step: distinct in each element.
float gradient_of(int rank, std::int64_t step, std::int64_t i) {
  return static_cast<float>(
      std::cos(0.01 * static_cast<double>(i) + 3.0 * rank + 0.7 * static_cast<double>(step)));
}

// What one optimizer makes of the sum over the ranks, in the tree of a collective.
std::vector<float> reference(const JobLayout& layout, int ranks, std::int64_t steps,
                             double learning_rate) {
  const at::Tensor weights = at::zeros({kSize}, at::kFloat);
  const at::Tensor sum = at::zeros({kSize}, at::kFloat);
  float* w = weights.data_ptr<float>();
  for (std::int64_t i = 0; i < kSize; ++i) w[i] = first_weight(i);
  const auto optimizer = optim::make_optimizer(
      layout.dense.optimizer, {.parameters = layout.dense.parameters, .segments = {{0, kSize}}});
  for (std::int64_t step = 0; step < steps; ++step) {
    std::vector<std::vector<float>> gradients;
    std::vector<const void*> inputs;
    for (int rank = 0; rank < ranks; ++rank) {
      gradients.emplace_back(kSize);
      for (std::int64_t i = 0; i < kSize; ++i) {
        gradients.back()[static_cast<std::size_t>(i)] = gradient_of(rank, step, i);
      }
    }
    for (const auto& gradient : gradients) inputs.push_back(gradient.data());
    reduce_tree(inputs, sum.data_ptr<float>(), kSize, DType::kF32, ReduceOp::kSum);
    const std::vector<optim::PieceUpdate> pieces = {{.weights = weights, .gradients = sum}};
    optimizer->step({.pieces = pieces,
                     .learning_rate = learning_rate,
                     .gradient_scale = 1.0 / static_cast<double>(ranks)});
  }
  return {w, w + kSize};
}

void fill_gradients(Worker& worker) {
  const std::span<float> gradients = worker.gradients();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = gradient_of(worker.rank(), worker.clock(), static_cast<std::int64_t>(i));
  }
}

// The steps of a worker; what stands in weights() at the end.
void train(Worker& worker, std::int64_t steps, double learning_rate) {
  if (worker.rank() == 0) {
    for (std::size_t i = 0; i < worker.weights().size(); ++i) {
      worker.weights()[i] = first_weight(static_cast<std::int64_t>(i));
    }
    worker.wait(worker.init());
  }
  worker.wait(worker.pull());
  while (worker.clock() < steps) {
    fill_gradients(worker);
    worker.wait(worker.push({.learning_rate = learning_rate, .then_pull = true}));
    worker.end_step();
  }
}

class DenseJob : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(DenseJob, SyncGivesTheBitsOfOneOptimizerOverASum) {
  const auto [servers, workers] = GetParam();
  for (const char* optimizer : {"sgd", "adamw", "lion"}) {
    Job job({.servers = servers, .workers = workers});
    const JobLayout layout = dense_layout(optimizer);
    const std::vector<float> expected = reference(layout, workers, 5, 0.01);
    job.run(layout, [&](Worker& worker) {
      train(worker, 5, 0.01);
      EXPECT_EQ(std::memcmp(worker.weights().data(), expected.data(), kSize * sizeof(float)), 0)
          << optimizer << " rank " << worker.rank();
    });
    EXPECT_TRUE(job.coordinator().wait_for(std::chrono::seconds(10)));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, DenseJob,
                         testing::Values(std::tuple(1, 1), std::tuple(1, 3), std::tuple(2, 2),
                                         std::tuple(3, 5)));

TEST(DenseJobFailure, ALostServerLosesNothing) {
  Job job({.servers = 3, .workers = 2});
  const JobLayout layout = dense_layout();
  const std::vector<float> expected = reference(layout, 2, 12, 0.01);
  std::atomic<bool> ended = false;
  job.run(layout, [&](Worker& worker) {
    train(worker, 4, 0.01);
    if (worker.rank() == 0 && !ended.exchange(true)) job.end_server(1);
    train(worker, 12, 0.01);
    EXPECT_EQ(std::memcmp(worker.weights().data(), expected.data(), kSize * sizeof(float)), 0);
  });
}

}  // namespace
}  // namespace trireme::ps
