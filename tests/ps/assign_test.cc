// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Pushes that are no gradients: extras alone, and weights that take the place of the range's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"

namespace trireme::ps {
namespace {

using testing::Each;
using testing::ElementsAre;

JobLayout layout_of(const Consistency& consistency) {
  JobLayout layout = dense_layout("sgd");
  layout.consistency = consistency;
  layout.two_phases = consistency.sums;
  return layout;
}

float assigned(std::size_t i) { return static_cast<float>(i % 1013) / 8 - 3; }

std::vector<float> all_assigned() {
  std::vector<float> values(kDenseSize);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = assigned(i);
  return values;
}

std::vector<float> pulled(Worker& worker) {
  worker.wait(worker.pull());
  return {worker.weights().begin(), worker.weights().end()};
}

void fill_gradients(Worker& worker, float value) {
  for (float& gradient : worker.gradients()) gradient = value;
}

// All ranges: the sum's extras, by range; then committed with the same.
std::vector<std::vector<double>> push_and_commit(Worker& worker, const PushOptions& options) {
  worker.wait(worker.push(options));
  std::vector<std::vector<double>> extras;
  for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
    extras.push_back(worker.sum(range).extras);
    PushOptions commit = options;
    commit.extras.clear();
    worker.wait(worker.commit(range, commit));
  }
  worker.end_step();
  return extras;
}

// By a codec that keeps no weights, and on both servers.
TEST(Assign, WeightsOfOneWorkerTakeThePlaceOfTheRanges) {
  Job job({.servers = 2, .workers = 3, .codec = "int8"});
  JobLayout layout = layout_of(Consistency::sync());
  layout.dense.optimizer.momentum = 0.5;
  const auto workers = job.join(layout);
  workers[0]->wait(workers[0]->init());
  const auto all = [&](const std::function<void(Worker&)>& body) {
    std::vector<std::thread> threads;
    for (const auto& worker : workers) threads.emplace_back([&] { body(*worker); });
    for (std::thread& thread : threads) thread.join();
  };
  all([](Worker& worker) {
    fill_gradients(worker, 127);  // which int8 keeps
    push_and_commit(worker, {.learning_rate = 0.5});
    const bool gives = worker.rank() == 1;
    for (std::size_t i = 0; i < worker.gradients().size(); ++i) {
      worker.gradients()[i] = gives ? assigned(i) : 99;
    }
    push_and_commit(worker, {.empty = !gives, .assign = true});
    EXPECT_EQ(pulled(worker), all_assigned()) << worker.rank();
  });
  ASSERT_TRUE(job.await_backups());
  job.end_server(0);
  all([](Worker& worker) {
    EXPECT_EQ(pulled(worker), all_assigned()) << worker.rank();
    // The optimizer goes on: of its momentum half is left.
    fill_gradients(worker, 127);
    push_and_commit(worker, {.learning_rate = 2});
    std::vector<float> expected = all_assigned();
    for (float& weight : expected) weight -= 2 * (127 + 127 / 2.0F);
    EXPECT_EQ(pulled(worker), expected) << worker.rank();
  });
}

TEST(Assign, WithoutSyncAtOnce) {
  Job job({.servers = 2, .workers = 2});
  const auto workers = job.join(layout_of(Consistency::async()));
  workers[0]->wait(workers[0]->init());
  for (std::size_t i = 0; i < kDenseSize; ++i) workers[1]->gradients()[i] = assigned(i);
  workers[1]->wait(workers[1]->push({.then_pull = true, .assign = true}));
  workers[1]->end_step();
  EXPECT_EQ(std::vector<float>(workers[1]->weights().begin(), workers[1]->weights().end()),
            all_assigned());
  EXPECT_EQ(pulled(*workers[0]), all_assigned());
}

TEST(Assign, ExtrasAloneChangeNothing) {
  Job job({.servers = 2, .workers = 3});
  job.run(layout_of(Consistency::sync()), [](Worker& worker) {
    begin(worker);
    const std::vector<float> before = pulled(worker);
    fill_gradients(worker, 1e9F);
    worker.wait(worker.push({.extras = {worker.rank() + 0.5, 7}, .empty = true}));
    for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
      EXPECT_THAT(worker.sum(range).extras, ElementsAre(4.5, 21));
      EXPECT_EQ(worker.sum(range).weight, 0);
    }
    worker.end_step();
    EXPECT_EQ(pulled(worker), before);
    // Beside a gradient they are no contribution to its mean.
    fill_gradients(worker, 2);
    const auto extras = push_and_commit(
        worker,
        {.learning_rate = 0.25, .extras = {1.0 + worker.rank()}, .empty = worker.rank() > 0});
    EXPECT_THAT(extras, Each(ElementsAre(6)));
    std::vector<float> expected = before;
    for (float& weight : expected) weight -= 0.5F;
    EXPECT_EQ(pulled(worker), expected);
  });
}

}  // namespace
}  // namespace trireme::ps
