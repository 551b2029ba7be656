// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who waits for whom, and what is applied when: workers that one thread drives in turns, so that
// the order of what arrives is the test's.

#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <memory>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/optim/gradient_norm.h"

namespace trireme::ps {
namespace {

using ::testing::ElementsAre;

// Plain steps of -1 times the gradient, which sums of integers survive exactly.
JobLayout plain_layout(const Consistency& consistency) {
  JobLayout layout = dense_layout("sgd");
  layout.consistency = consistency;
  layout.dense.optimizer.momentum = 0;
  layout.dense.optimizer.weight_decay = 0;
  return layout;
}
constexpr PushOptions kPlain{.learning_rate = 1};

void push_ones(Worker& worker, float value) {
  for (float& gradient : worker.gradients()) gradient = value;
  worker.wait(worker.push(kPlain));
}

// What a thread of its own waits for.
class Waiter {
 public:
  Waiter(Worker& worker, Timestamp timestamp)
      : done_(std::async(std::launch::async, [&worker, timestamp] { worker.wait(timestamp); })) {}
  bool returned() const {
    return done_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  void finish() { done_.get(); }

 private:
  std::future<void> done_;
};

// Looks until the servers say that they wait for this rank alone.
bool awaits(Worker& worker, int rank) {
  const Deadline deadline = Deadline::after(std::chrono::seconds(30));
  while (!deadline.expired()) {
    const std::vector<std::int32_t> awaited = worker.report().awaited;
    if (!awaited.empty() && std::all_of(awaited.begin(), awaited.end(),
                                        [&](std::int32_t other) { return other == rank; })) {
      return true;
    }
  }
  return false;
}

void init(std::vector<std::unique_ptr<Worker>>& workers) {
  workers[0]->wait(workers[0]->init());
  for (auto& worker : workers) worker->wait(worker->pull());
}

TEST(Consistency, SyncWaitsForAll) {
  Job job({.servers = 2, .workers = 3});
  auto workers = job.join(plain_layout(Consistency::sync()));
  init(workers);
  for (float& gradient : workers[0]->gradients()) gradient = 3;
  for (float& gradient : workers[2]->gradients()) gradient = 6;
  Waiter first(*workers[0], workers[0]->push(kPlain));
  Waiter third(*workers[2], workers[2]->push({.learning_rate = 1, .then_pull = true}));
  EXPECT_TRUE(awaits(*workers[0], 1));
  EXPECT_FALSE(first.returned());
  EXPECT_FALSE(third.returned());
  push_ones(*workers[1], 9);
  first.finish();
  third.finish();
  EXPECT_EQ(workers[2]->weights()[kDenseSize - 1], -6);
}

class Bounded : public testing::TestWithParam<std::int64_t> {};

// A worker that holds still is waited for by those who are k steps ahead of it, and by none before.
TEST_P(Bounded, StopsWhoIsTooFarAhead) {
  const std::int64_t bound = GetParam();
  Job job({.servers = 2, .workers = 2});
  auto workers = job.join(plain_layout(Consistency::bounded(bound)));
  init(workers);
  Worker &slow = *workers[0], &fast = *workers[1];
  for (std::int64_t step = 0; step <= bound; ++step) {
    EXPECT_EQ(fast.clock(), step);
    fast.wait(fast.pull());
    EXPECT_EQ(fast.weights()[0], -2.0F * static_cast<float>(step));
    push_ones(fast, 2);
    fast.end_step();
  }
  Waiter pull(fast, fast.pull());
  EXPECT_TRUE(awaits(fast, 0));
  EXPECT_FALSE(pull.returned());
  push_ones(slow, 5);
  slow.end_step();
  pull.finish();
  EXPECT_EQ(fast.weights()[0], -2.0F * static_cast<float>(bound + 1) - 5);
  // The push after that is too far ahead again.
  push_ones(fast, 2);
  fast.end_step();
  Waiter push(fast, fast.push(kPlain));
  EXPECT_TRUE(awaits(fast, 0));
  EXPECT_FALSE(push.returned());
  push_ones(slow, 5);
  push.finish();
}

INSTANTIATE_TEST_SUITE_P(Steps, Bounded, testing::Values(0, 1, 3));

TEST(Consistency, AsyncWaitsForNobody) {
  Job job({.servers = 2, .workers = 2});
  auto workers = job.join(plain_layout(Consistency::async()));
  init(workers);
  Worker& fast = *workers[1];
  for (int step = 1; step <= 20; ++step) {
    for (float& gradient : fast.gradients()) gradient = 1;
    fast.wait(fast.push({.learning_rate = 1, .then_pull = true}));
    fast.end_step();
    EXPECT_EQ(fast.weights()[0], -step);
  }
}

TEST(Consistency, AsyncSumsAreExactWhateverTheOrder) {
  constexpr int kWorkers = 4, kSteps = 20;
  Job job({.servers = 3, .workers = kWorkers, .threads = 2});
  std::atomic<int> left{kWorkers};
  std::promise<void> all_pushed;
  const auto done = all_pushed.get_future().share();
  job.run(plain_layout(Consistency::async()), [&](Worker& worker) {
    if (worker.rank() == 0) worker.wait(worker.init());
    worker.wait(worker.pull());
    for (int step = 0; step < kSteps; ++step) {
      for (std::size_t i = 0; i < worker.gradients().size(); ++i) {
        worker.gradients()[i] =
            static_cast<float>((worker.rank() + 1) * step + static_cast<int>(i % 7));
      }
      worker.wait(worker.push(kPlain));
      worker.end_step();
    }
    if (--left == 0) all_pushed.set_value();
    done.wait();
    worker.wait(worker.pull());
    for (std::size_t i = 0; i < worker.weights().size(); ++i) {
      const int expected =
          10 * kSteps * (kSteps - 1) / 2 + kWorkers * kSteps * static_cast<int>(i % 7);
      ASSERT_EQ(worker.weights()[i], static_cast<float>(-expected)) << i;
    }
  });
}

// Updates of a range since its worker last read there, when its push is applied.
TEST(Consistency, StalenessIsCounted) {
  Job job({.servers = 1, .workers = 2});
  auto workers = job.join(plain_layout(Consistency::async()));
  init(workers);
  Worker &a = *workers[0], &b = *workers[1];
  const auto push = [](Worker& worker, bool then_pull) {
    worker.wait(worker.push(1, {.learning_rate = 1, .then_pull = then_pull}));
    worker.end_step();  // pushes nothing to the other ranges
    worker.wait_all();
  };
  push(a, false);  // 0
  push(a, false);  // 1: its own
  push(a, true);   // 2
  push(b, true);   // 3
  push(a, true);   // 1: b's
  push(b, false);  // 1: a's
  a.wait(a.pull());
  push(a, false);  // 0
  // The others had pushes of nothing, which count as any others: the same, but for what was read.
  std::vector<std::int64_t> staleness = a.report().staleness;
  // Range 1: 0 twice, 1 three times, 2 and 3 once. The three others were read at the beginning by
  // both, and by a before its last push: 0 1 2 of a, 3 of b, 4 of a, 5 of b, 0 of a.
  EXPECT_THAT(staleness, ElementsAre(2 + 3 * 2, 3 + 3, 1 + 3, 1 + 3, 3, 3));
}

class Codecs : public testing::TestWithParam<const char*> {};

// The sum of what was applied keeps up with the sum of the gradients: what one push leaves out the
// next ones bring. Without that small elements never move.
TEST_P(Codecs, LoseNothingForGood) {
  constexpr int kSteps = 40;
  Job job({.servers = 2, .workers = 2, .codec = GetParam()});
  auto workers = job.join(plain_layout(Consistency::async()));
  init(workers);
  const auto gradient = [](std::size_t i) { return 1.0F + static_cast<float>(i % 101) * 0.01F; };
  for (int step = 0; step < kSteps; ++step) {
    for (auto& worker : workers) {
      for (std::size_t i = 0; i < worker->gradients().size(); ++i)
        worker->gradients()[i] = gradient(i);
      worker->wait(worker->push(kPlain));
      worker->end_step();
    }
  }
  workers[0]->wait(workers[0]->pull());
  for (std::size_t i = 0; i < workers[0]->weights().size(); ++i) {
    // Two workers owe at most what few of their steps bring: of topk(0.3) each element comes in
    // every fourth or seventh, the small ones later.
    ASSERT_NEAR(workers[0]->weights()[i], -2 * kSteps * gradient(i), 2 * 8 * 2.01F) << i;
  }
}

// Towards a target, to where f32 gets.
TEST_P(Codecs, ConvergeToTheSame) {
  const auto distance = [](const std::string& codec) {
    Job job({.servers = 2, .workers = 2, .codec = codec});
    double squares = 0;
    job.run(plain_layout(Consistency::sync()), [&](Worker& worker) {
      begin(worker);
      const auto target = [](std::size_t i) { return 2.0F + static_cast<float>(i % 13); };
      while (worker.clock() < 60) {
        for (std::size_t i = 0; i < worker.weights().size(); ++i) {
          worker.gradients()[i] =
              worker.weights()[i] - target(i) + (worker.rank() == 0 ? 0.5F : -0.5F);
        }
        worker.wait(worker.push({.learning_rate = 0.2, .then_pull = true}));
        worker.end_step();
      }
      if (worker.rank() != 0) return;
      for (std::size_t i = 0; i < worker.weights().size(); ++i) {
        squares += std::pow(worker.weights()[i] - target(i), 2);
      }
    });
    return std::sqrt(squares / static_cast<double>(kDenseSize));
  };
  EXPECT_LT(distance(""), 1e-4);
  EXPECT_LT(distance(GetParam()), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Names, Codecs, testing::Values("bf16", "int8", "topk(0.3)"));

TEST(Consistency, ExtrasAreSummed) {
  Job job({.servers = 2, .workers = 3});
  auto workers = job.join(plain_layout(Consistency::sync()));
  init(workers);
  std::vector<Timestamp> pushed;
  for (auto& worker : workers) {
    const double rank = worker->rank();
    pushed.push_back(
        worker->push({.learning_rate = 1, .then_pull = true, .extras = {rank, 10 * rank + 1}}));
  }
  for (std::size_t i = 0; i < workers.size(); ++i) {
    workers[i]->wait(pushed[i]);
    for (std::size_t range = 0; range < 4; ++range) {
      EXPECT_THAT(workers[i]->last_extras(range), ElementsAre(3, 33));
    }
  }
}

// Whoever leaves a range out in a step, the first of them too, the others' step is a whole one.
TEST(Consistency, WhoPushesNothingTakesNothingAway) {
  for (const int silent : {0, 1, 2}) {
    Job job({.servers = 2, .workers = 3});
    auto workers = job.join(plain_layout(Consistency::sync()));
    init(workers);
    std::vector<Timestamp> pushed;
    for (auto& worker : workers) {
      if (worker->rank() != silent) {
        for (float& gradient : worker->gradients()) gradient = 4;
        pushed.push_back(worker->push({.learning_rate = 0.5, .gradient_scale = 3}));
      }
      worker->end_step();
    }
    workers[0]->wait(workers[0]->pull());
    EXPECT_EQ(workers[0]->weights()[0], -6) << "without worker " << silent;
    EXPECT_EQ(workers[0]->weights()[kDenseSize - 1], -6) << "without worker " << silent;
  }
}

// A worker that pushes rows counts in the mean of all rows, in whatever slices its own are.
TEST(Consistency, TheMeanOfARowDoesNotDependOnSlices) {
  JobLayout layout;
  layout.sparse.tables = {
      {.name = "rows", .width = 3, .init = "zeros", .optimizer = {.name = "sgd", .momentum = 0.0}}};
  for (const int slices : {1, 7}) {
    layout.sparse.slices = slices;
    Job job({.servers = 2, .workers = 2});
    auto workers = job.join(layout);
    init(workers);
    const std::vector<float> gradient = {2, 4, 6};
    std::vector<std::vector<std::uint64_t>> ids;
    for (std::uint64_t id = 0; id < 20; ++id) {
      for (auto& worker : workers) {
        ids.push_back({100 * id + static_cast<std::uint64_t>(worker->rank())});
        const PushRows rows{.table = 0, .ids = ids.back(), .gradients = gradient.data()};
        worker->push_rows({&rows, 1}, kPlain);
        worker->end_step();
      }
    }
    for (const auto& id : ids) {
      std::vector<float> row(3);
      const PullRows wanted{.table = 0, .ids = id, .rows = row.data()};
      workers[0]->wait(workers[0]->pull_rows({&wanted, 1}));
      EXPECT_THAT(row, ElementsAre(-1, -2, -3)) << "id " << id[0] << ", " << slices << " slices";
    }
  }
}

// The mean counts contributions by their weight.
TEST(Consistency, ContributionsCountByTheirWeight) {
  Job job({.servers = 1, .workers = 2});
  auto workers = job.join(plain_layout(Consistency::sync()));
  init(workers);
  for (float& gradient : workers[0]->gradients()) gradient = 3;
  for (float& gradient : workers[1]->gradients()) gradient = 5;
  const Timestamp first = workers[0]->push({.learning_rate = 1, .weight = 6});
  const Timestamp second = workers[1]->push({.learning_rate = 1, .weight = 2});
  workers[0]->wait(first);
  workers[1]->wait(second);
  for (auto& worker : workers) worker->end_step();
  workers[0]->wait(workers[0]->pull());
  EXPECT_EQ(workers[0]->weights()[7], -1);
}

TEST(TwoPhases, GiveTheBitsOfOneAndTheSumsOfTheWhole) {
  JobLayout layout = dense_layout();
  layout.two_phases = true;
  const std::vector<float> expected = reference(layout, 3, 4);
  Job job({.servers = 2, .workers = 3});
  job.run(layout, [&](Worker& worker) {
    begin(worker);
    while (worker.clock() < 4) {
      std::vector<float> sum(kDenseSize);
      for (std::int64_t i = 0; i < kDenseSize; ++i) {
        const auto at = static_cast<std::size_t>(i);
        worker.gradients()[at] = gradient_of(worker.rank(), worker.clock(), i);
        // The tree of three: (0 + 1) + 2.
        sum[at] = gradient_of(0, worker.clock(), i) + gradient_of(1, worker.clock(), i);
        sum[at] += gradient_of(2, worker.clock(), i);
      }
      worker.wait(worker.push({.weight = 1, .extras = {1.0 + worker.rank()}}));
      std::vector<double> sums;
      for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
        const SumReport& report = worker.sum(range);
        EXPECT_EQ(report.weight, 3);
        EXPECT_THAT(report.extras, ElementsAre(6));
        sums.insert(sums.end(), report.block_sums.begin(), report.block_sums.end());
      }
      const at::Tensor whole =
          optim::block_sums(at::from_blob(sum.data(), {kDenseSize}, at::kFloat));
      EXPECT_EQ(sums, std::vector<double>(whole.data_ptr<double>(),
                                          whole.data_ptr<double>() + whole.numel()));
      for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
        worker.wait(worker.commit(range, {.learning_rate = kLearningRate, .then_pull = true}));
      }
      worker.end_step();
    }
    EXPECT_TRUE(
        (Values{{worker.weights().begin(), worker.weights().end()}, {}} == Values{expected, {}}));
  });
}

// A worker may leave out ranges, and some are left out by all.
TEST(TwoPhases, GoOnWithWhoContributes) {
  JobLayout layout = plain_layout(Consistency::sync());
  layout.two_phases = true;
  Job job({.servers = 2, .workers = 2});
  job.run(layout, [&](Worker& worker) {
    if (worker.rank() == 0) worker.wait(worker.init());
    const auto mine = static_cast<std::size_t>(worker.rank());
    while (worker.clock() < 10) {
      for (float& gradient : worker.gradients()) gradient = static_cast<float>(worker.clock());
      worker.push(mine, {});
      worker.commit(mine, kPlain);
      worker.end_step();  // the other three are pushed without a contribution
      worker.wait_all();
    }
    worker.wait(worker.pull());
    EXPECT_EQ(worker.weights()[0], -45);
    EXPECT_EQ(worker.weights()[3 * kShardBlock], -45);
    EXPECT_EQ(worker.weights()[6 * kShardBlock], 0);
  });
}

}  // namespace
}  // namespace trireme::ps
