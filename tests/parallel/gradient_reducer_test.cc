// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using testing::Chain;
using testing::gradients_of;
using ::testing::HasSubstr;
using testing::relative_difference;
using testing::run_threads;

using Order = std::vector<std::size_t>;

// Buckets of one block of f64.
constexpr std::int64_t kOneBlockBytes = kShardBlock * 8;
constexpr std::int64_t kRows = 3;  // of a micro-batch
constexpr double kTolerance = 1e-12;
// Of a backward pass that waits for what should be sent meanwhile; it fails then.
constexpr std::chrono::milliseconds kHoldTime = std::chrono::seconds(20);

// A reducer that sums over ranks, and keeps the order of its buckets.
struct Summed {
  Summed(torch::nn::Module& module, Group& group, const ReducerOptions& options)
      : flat(module, at::kDouble, {.group = &group}),
        reducer(flat, group, options,
                [this](Group& wire, std::size_t bucket, const at::Tensor& gradients) {
                  left.push_back(bucket);
                  wire.all_reduce(buffer_of_tensor(gradients));
                }) {}

  FlatParameters flat;
  Order left;  // the communication thread's, until finish()
  GradientReducer reducer;
};

// The sum of the gradients of the micro-batches, by LibTorch alone.
std::vector<at::Tensor> plain_sum(int layers, const std::vector<std::int64_t>& micro_batches) {
  Chain chain(layers);
  for (const std::int64_t m : micro_batches) chain.loss(m * kRows, kRows).backward();
  return gradients_of(chain);
}

std::vector<std::int64_t> first_numbers(std::int64_t n) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// Two branches; the one that is built last is the first in the backward pass.
struct Branches : torch::nn::Module {
  at::Tensor loss(std::int64_t first, bool left_last) {
    const at::Tensor early = left_last ? right->loss(first, kRows) : left->loss(first, kRows);
    const at::Tensor late = left_last ? left->loss(first, kRows) : right->loss(first, kRows);
    return left_last ? late + early : early + late;
  }
  std::shared_ptr<Chain> left = register_module("left", std::make_shared<Chain>(2, at::kDouble, 1));
  std::shared_ptr<Chain> right =
      register_module("right", std::make_shared<Chain>(2, at::kDouble, 2));
};

TEST(GradientReducer, BucketsLeaveInTheOrderThatRankZeroSawWhateverTheOthersDo) {
  constexpr int kRanks = 3, kSteps = 3;
  std::vector<std::vector<Order>> left(kRanks, std::vector<Order>(kSteps));
  Branches plain;
  for (int rank = 0; rank < kRanks; ++rank) plain.loss(rank * kRows, false).backward();
  run_threads(kRanks, [&](Group& group) {
    Branches model;
    Summed summed(model, group, {.bucket_bytes = kOneBlockBytes});
    ASSERT_EQ(summed.reducer.buckets().size(), 5U);
    for (int step = 0; step < kSteps; ++step) {
      summed.flat.zero_grad();
      summed.left.clear();
      summed.reducer.backward(model.loss(group.rank() * kRows, group.rank() == 0));
      summed.reducer.finish();
      left[static_cast<std::size_t>(group.rank())][static_cast<std::size_t>(step)] = summed.left;
      EXPECT_LE(relative_difference(gradients_of(model), gradients_of(plain)), kTolerance)
          << "rank " << group.rank() << ", step " << step;
    }
  });
  const Order last_to_first{4, 3, 2, 1, 0};
  // Rank 0 goes through the left branch first; bucket 2 holds something of both.
  const Order learned{0, 1, 2, 3, 4};
  for (int rank = 0; rank < kRanks; ++rank) {
    const auto& steps = left[static_cast<std::size_t>(rank)];
    EXPECT_EQ(steps[0], last_to_first) << rank;
    for (int step = 1; step < kSteps; ++step) {
      const Order& order = steps[static_cast<std::size_t>(step)];
      EXPECT_EQ(order, left[0][static_cast<std::size_t>(step)]) << rank << ", step " << step;
      EXPECT_LT(std::max(std::find(order.begin(), order.end(), 0U),
                         std::find(order.begin(), order.end(), 1U)),
                std::min(std::find(order.begin(), order.end(), 3U),
                         std::find(order.begin(), order.end(), 4U)))
          << "the left branch's before the right one's";
    }
  }
}

// Holds the backward pass between the first layers until this rank has sent gradients of later
// ones: no step ends where these wait for the end of backward.
void hold_until_sent(Chain& chain, GradientReducer& reducer, std::int64_t& sent_before) {
  chain.between = [&](std::size_t layer, const at::Tensor& x) {
    if (layer > 0) return x;
    const at::Tensor here = x * 1;
    here.register_hook([&](const at::Tensor&) {
      const Deadline deadline = Deadline::after(kHoldTime);
      while (reducer.bytes_sent() == sent_before && !deadline.expired()) std::this_thread::yield();
      EXPECT_GT(reducer.bytes_sent(), sent_before) << "nothing left while backward ran";
    });
    return here;
  };
}

TEST(GradientReducer, BucketsLeaveWhileBackwardRuns) {
  for (const std::string engine : {"shm", "gloo"}) {
    run_threads(
        2,
        [&](Group& group) {
          Chain chain(4);
          Summed summed(chain, group, {.bucket_bytes = kOneBlockBytes});
          std::int64_t sent_before = 0;
          hold_until_sent(chain, summed.reducer, sent_before);
          for (int step = 0; step < 3; ++step) {
            summed.flat.zero_grad();
            sent_before = summed.reducer.bytes_sent();
            summed.reducer.backward(chain.loss(group.rank() * kRows, kRows));
            summed.reducer.finish();
            EXPECT_LE(relative_difference(gradients_of(chain), plain_sum(4, {0, 1})), kTolerance);
          }
        },
        engine);
  }
}

// Two rounds of 2 and 1 micro-batches on each rank, the short one first: buckets leave in the
// backward passes of the micro-batches that end a round, and in no other.
TEST(GradientReducer, BucketsLeaveWhileTheLastBackwardOfARoundRuns) {
  run_threads(2, [&](Group& group) {
    Chain chain(4);
    Summed summed(chain, group, {.micro_batches = 6, .bucket_bytes = kOneBlockBytes});
    ASSERT_EQ(summed.reducer.micro_batches(),
              (group.rank() == 0 ? std::vector<std::int64_t>{4, 0, 1}
                                 : std::vector<std::int64_t>{5, 2, 3}));
    for (int step = 0; step < 2; ++step) {
      summed.flat.zero_grad();
      for (std::size_t i = 0; i < 3; ++i) {
        std::int64_t sent_before = summed.reducer.bytes_sent();
        chain.between = {};
        // The first round's buckets may still travel in the second micro-batch: hold the last one
        // until more has been sent than they are.
        if (i == 0) hold_until_sent(chain, summed.reducer, sent_before);
        summed.reducer.backward(chain.loss(summed.reducer.micro_batches()[i] * kRows, kRows));
      }
      summed.reducer.finish();
      EXPECT_LE(relative_difference(gradients_of(chain), plain_sum(4, first_numbers(6))),
                kTolerance);
      EXPECT_EQ(summed.left.size(),
                static_cast<std::size_t>(step + 1) * 2 * summed.reducer.buckets().size());
    }
  });
}

// With accumulation: four micro-batches on each of two ranks. The first three send nothing, and
// what is sent in all is one sum; the last is held until it overlaps.
TEST(GradientReducer, NothingTravelsBeforeTheLastMicroBatchWhichOverlaps) {
  run_threads(2, [&](Group& group) {
    Chain chain(4);
    Summed summed(chain, group, {.micro_batches = 8, .bucket_bytes = kOneBlockBytes});
    for (int step = 0; step < 3; ++step) {
      summed.flat.zero_grad();
      std::int64_t sent_before = summed.reducer.bytes_sent();
      const std::size_t left_before = summed.left.size();
      for (std::size_t i = 0; i < 4; ++i) {
        chain.between = {};
        if (i == 3) hold_until_sent(chain, summed.reducer, sent_before);
        summed.reducer.backward(chain.loss(summed.reducer.micro_batches()[i] * kRows, kRows));
        if (i == 3) continue;
        EXPECT_EQ(summed.reducer.bytes_sent(), sent_before) << "micro-batch " << i;
      }
      summed.reducer.finish();
      EXPECT_EQ(summed.left.size() - left_before, summed.reducer.buckets().size())
          << "each bucket once a step";
      EXPECT_LE(relative_difference(gradients_of(chain), plain_sum(4, first_numbers(8))),
                kTolerance);
    }
  });
}

// 2 (N - 1) x the gradients over all ranks, and the notes: a weight, a number for each parameter
// and each rank, which go to every other rank. Nothing else from the second step on, however many
// micro-batches.
TEST(GradientReducer, SendsWhatARingWouldAndTheNotes) {
  for (const auto& [ranks, micro_batches, rounds] :
       {std::tuple{2, 2, 1}, std::tuple{3, 3, 1}, std::tuple{2, 8, 1}, std::tuple{2, 6, 2},
        std::tuple{3, 12, 1}}) {
    std::atomic<std::int64_t> sent = 0;
    std::int64_t expected = 0;
    run_threads(ranks, [&, ranks = ranks, micro_batches = micro_batches,
                        rounds = rounds](Group& group) {
      Chain chain(2);
      Summed summed(chain, group, {.micro_batches = micro_batches, .bucket_bytes = kOneBlockBytes});
      std::int64_t before = 0;
      for (int step = 0; step < 2; ++step) {
        before = summed.reducer.bytes_sent();
        for (const std::int64_t m : summed.reducer.micro_batches()) {
          summed.reducer.backward(chain.loss(m * kRows, kRows));
        }
        summed.reducer.finish();
      }
      sent += summed.reducer.bytes_sent() - before;
      if (group.rank() == 0) {
        expected = 2 * (ranks - 1) * 8 * rounds * summed.flat.size() +
                   ranks * (ranks - 1) * 8 * (1 + 4 + ranks);
      }
    });
    EXPECT_EQ(sent.load(), expected) << ranks << " ranks, " << micro_batches << " micro-batches";
  }
}

TEST(GradientReducer, ReportsWhatWasSeen) {
  run_threads(2, [](Group& group) {
    Chain chain(3);
    Summed summed(chain, group, {.bucket_bytes = kOneBlockBytes});
    EXPECT_EQ(summed.reducer.report().waited_for_rank, -1);
    for (int step = 0; step < 2; ++step) {
      summed.reducer.backward(chain.loss(0, kRows) + 0 * chain.weights[0].sum(),
                              0.25 + group.rank());
      summed.reducer.finish();
      const StepReport& report = summed.reducer.report();
      EXPECT_EQ(report.weight, 1.5);
      EXPECT_TRUE(report.unused.empty());
      EXPECT_TRUE(summed.reducer.unused().empty());
      EXPECT_GT(report.communication_us, 0);
      EXPECT_GE(report.exposed_us, 0);
      EXPECT_EQ(report.waited_for_rank == -1, step == 0);
    }
  });
}

TEST(GradientReducer, RefusesOptionsThatCannotBe) {
  run_threads(1, [](Group& group) {
    Chain chain(1);
    EXPECT_THROW(Summed(chain, group, {.micro_batches = -2}), ConfigError);
    EXPECT_THROW(Summed(chain, group, {.bucket_bytes = -1}), ConfigError);
  });
  run_threads(2, [](Group& group) {
    Chain chain(1);
    EXPECT_THROW(Summed(chain, group, {.micro_batches = 3}), ConfigError);
    group.barrier();
  });
}

}  // namespace
}  // namespace trireme
