// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/codec_values.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/base/error.h"
#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/compressed_all_reduce.h"
#include "trireme/comm/codec/error_feedback.h"

namespace trireme {
namespace {

using testing::decoded;
using testing::run_threads;

using Values = std::vector<float>;
using ByRank = std::vector<Values>;

const std::vector<CompressionOptions> kAllCodecs = {
    {.codec = Bf16Compression{}},
    {.codec = Int8Compression{}},
    {.codec = TopKCompression{.fraction = 0.05}},
    {.codec = LowRankCompression{.components = 3}},
};

// Different for each rank, step and element, with a part that stays.
Values values_of(int rank, int step, std::size_t count) {
  Values values =
      testing::heavy_tailed_values(count, static_cast<std::uint64_t>(rank + 100 * step));
  const Values stays = testing::normal_values(count, static_cast<std::uint64_t>(900 + rank));
  for (std::size_t i = 0; i < count; ++i) values[i] += stays[i];
  return values;
}

// What each rank has after each step, results[step][rank].
std::vector<ByRank> results_of(int n, std::size_t count, const CompressionOptions& options,
                               ReduceOp op, int steps, const std::string& engine = "gloo") {
  std::vector<ByRank> results(static_cast<std::size_t>(steps), ByRank(static_cast<std::size_t>(n)));
  run_threads(
      n,
      [&](Group& group) {
        const auto exchange =
            make_compressed_all_reduce(group, static_cast<std::int64_t>(count), options);
        for (int step = 0; step < steps; ++step) {
          Values values = values_of(group.rank(), step, count);
          exchange->all_reduce(values, op);
          results[static_cast<std::size_t>(step)][static_cast<std::size_t>(group.rank())] = values;
        }
      },
      n == 1 ? "auto" : engine);
  return results;
}

Values tree_sum(const ByRank& inputs, ReduceOp op) {
  Values sum(inputs[0].size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    Values leaves;
    for (const Values& input : inputs) leaves.push_back(input[i]);
    sum[i] = testing::reference_tree(leaves, 0, leaves.size(), op);
    if (op == ReduceOp::kMean) sum[i] /= static_cast<float>(leaves.size());
  }
  return sum;
}

// One encoding with error feedback, there and back, without ErrorFeedback.
Values feed(Codec& codec, const Values& values, Values& residual) {
  Values corrected(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) corrected[i] = residual[i] + values[i];
  const Values back = testing::there_and_back(codec, corrected);
  for (std::size_t i = 0; i < values.size(); ++i) residual[i] = corrected[i] - back[i];
  return back;
}

// The exchange as the essays describe it, on one rank and without parts. Dense codecs encode the
// sum again.
std::vector<Values> reference(int n, std::size_t count, Codec& codec, bool encodes_sum, ReduceOp op,
                              int steps) {
  ByRank residuals(static_cast<std::size_t>(n), Values(count));
  Values combined_residual(count);
  std::vector<Values> results;
  for (int step = 0; step < steps; ++step) {
    ByRank arrived;
    for (int rank = 0; rank < n; ++rank) {
      arrived.push_back(
          feed(codec, values_of(rank, step, count), residuals[static_cast<std::size_t>(rank)]));
    }
    const Values sum = tree_sum(arrived, op);
    results.push_back(encodes_sum ? feed(codec, sum, combined_residual) : sum);
  }
  return results;
}

void expect_equals_reference(int n, std::size_t count, ReduceOp op) {
  SCOPED_TRACE(std::to_string(n) + " ranks, " + std::to_string(count) + " elements");
  constexpr int kSteps = 3;
  Bf16Codec bf16;
  Int8Codec int8;
  TopKCodec top_k({.fraction = 0.05});
  // Many elements in common, in f32: sums that show their association.
  const TopKCompression half{.fraction = 0.5, .bf16_values = false};
  TopKCodec top_half(half);
  const std::vector<Codec*> codecs = {&bf16, &int8, &top_k, &top_half};
  for (std::size_t i = 0; i < codecs.size(); ++i) {
    const CompressionOptions options = i < 3 ? kAllCodecs[i] : CompressionOptions{.codec = half};
    const auto results = results_of(n, count, options, op, kSteps);
    const auto expected = reference(n, count, *codecs[i], i < 2, op, kSteps);
    for (std::size_t step = 0; step < kSteps; ++step) {
      for (std::size_t rank = 0; rank < static_cast<std::size_t>(n); ++rank) {
        ASSERT_EQ(results[step][rank], expected[step])
            << codecs[i]->name() << ", rank " << rank << ", step " << step;
      }
    }
  }
}

TEST(CompressedAllReduce, IsTheTreeSumOfWhatWasDecoded) {
  for (const int n : {1, 2, 3, 5}) {
    expect_equals_reference(n, 5003, ReduceOp::kSum);
    expect_equals_reference(n, 1777, ReduceOp::kMean);
  }
}

// Parts of nothing: fewer blocks than ranks.
TEST(CompressedAllReduce, TakesFewElements) {
  for (const std::size_t count : {0U, 1U, 255U, 513U}) {
    expect_equals_reference(3, count, ReduceOp::kSum);
  }
}

TEST(CompressedAllReduce, RanksHaveTheSameBitsAndEnginesAgree) {
  for (const CompressionOptions& options : kAllCodecs) {
    const auto gloo = results_of(3, 3001, options, ReduceOp::kMean, 3, "gloo");
    const auto shm = results_of(3, 3001, options, ReduceOp::kMean, 3, "shm");
    for (const ByRank& step : gloo) {
      EXPECT_EQ(step[1], step[0]);
      EXPECT_EQ(step[2], step[0]);
    }
    EXPECT_EQ(shm, gloo);
  }
}

// The sum of matrices of one component each has as many as there are ranks.
TEST(CompressedAllReduce, LowRankFindsTheSumOfTheRanks) {
  run_threads(
      3,
      [](Group& group) {
        const auto part = [](int rank) {
          const Values left = testing::normal_values(50, static_cast<std::uint64_t>(rank));
          const Values right = testing::normal_values(70, static_cast<std::uint64_t>(10 + rank));
          Values matrix(50 * 70);
          for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] = left[i / 70] * right[i % 70];
          return matrix;
        };
        Values values = part(group.rank());
        const auto exchange = make_compressed_all_reduce(
            group, 50 * 70, {.codec = LowRankCompression{.components = 3, .rows = 50}});
        exchange->all_reduce(values);
        const Values expected = tree_sum({part(0), part(1), part(2)}, ReduceOp::kSum);
        EXPECT_LT(testing::relative_error(values, expected), 1e-5);
      },
      "gloo");
}

// Norm of the sum over steps of what should have arrived less what did: the largest after steps
// 30 to 40 and after steps 70 to 80.
std::pair<double, double> missing(const CompressionOptions& options) {
  constexpr std::size_t kCount = 801;
  constexpr int kRanks = 3;
  constexpr int kSteps = 80;
  const auto results = results_of(kRanks, kCount, options, ReduceOp::kMean, kSteps);
  std::vector<double> difference(kCount);
  std::pair<double, double> largest;
  for (int step = 0; step < kSteps; ++step) {
    ByRank inputs;
    for (int rank = 0; rank < kRanks; ++rank) inputs.push_back(values_of(rank, step, kCount));
    const Values expected = tree_sum(inputs, ReduceOp::kMean);
    const Values& arrived = results[static_cast<std::size_t>(step)][0];
    for (std::size_t i = 0; i < kCount; ++i) difference[i] += double{expected[i]} - arrived[i];
    const double norm = testing::norm(Values(difference.begin(), difference.end()));
    if (step >= 30 && step < 40) largest.first = std::max(largest.first, norm);
    if (step >= 70) largest.second = std::max(largest.second, norm);
  }
  return largest;
}

TEST(CompressedAllReduce, EverythingArrivesWithFeedbackOnly) {
  for (CompressionOptions options : kAllCodecs) {
    const auto with = missing(options);
    EXPECT_LT(with.second, with.first * 1.25);
    options.error_feedback = false;
    const auto without = missing(options);
    EXPECT_GT(without.second, without.first * 1.25);
    EXPECT_GT(without.second, with.second * 2);
  }
}

// Gradient descent on a sum of quadratics whose minima differ between the ranks: at the common
// minimum the ranks' gradients are large and cancel. 1 % of the elements travel.
double distance_after_descent(bool error_feedback) {
  constexpr std::size_t kCount = 400;
  constexpr float kRate = 0.004F;
  double distance = 0;
  run_threads(
      2,
      [&](Group& group) {
        const ByRank minima = {testing::normal_values(kCount, 1),
                               testing::normal_values(kCount, 2)};
        const Values& own = minima[static_cast<std::size_t>(group.rank())];
        const auto exchange = make_compressed_all_reduce(
            group, kCount,
            {.codec = TopKCompression{.fraction = 0.01}, .error_feedback = error_feedback});
        Values x(kCount);
        Values gradient(kCount);
        for (int step = 0; step < 5000; ++step) {
          for (std::size_t i = 0; i < kCount; ++i) {
            gradient[i] = (1 + static_cast<float>(i % 3)) * (x[i] - own[i]);
          }
          exchange->all_reduce(gradient, ReduceOp::kMean);
          const float rate = kRate / (1 + static_cast<float>(step) / 1000);
          for (std::size_t i = 0; i < kCount; ++i) x[i] -= rate * gradient[i];
        }
        const Values minimum = tree_sum(minima, ReduceOp::kMean);
        if (group.rank() == 0) distance = testing::relative_error(x, minimum);
      },
      "gloo");
  return distance;
}

TEST(CompressedAllReduce, DescentWithOnePercentReachesTheMinimumWithFeedbackOnly) {
  const double with = distance_after_descent(true);
  const double without = distance_after_descent(false);
  EXPECT_LT(with, 0.05);
  EXPECT_GT(without, 0.5);
}

TEST(CompressedAllReduce, SendsAsManyBytesLessAsItSays) {
  constexpr std::int64_t kCount = 300 * 1024;
  std::vector<CompressionOptions> all = kAllCodecs;
  run_threads(
      3,
      [&](Group& group) {
        const auto sent_by = [&](const std::function<void()>& body) {
          const std::int64_t before = group.bytes_sent();
          body();
          return static_cast<double>(group.bytes_sent() - before);
        };
        Values values = values_of(group.rank(), 0, kCount);
        const double plain = sent_by([&] { group.all_reduce(buffer_of(std::span(values))); });
        for (const CompressionOptions& options : all) {
          const auto exchange = make_compressed_all_reduce(group, kCount, options);
          const double sent = sent_by([&] { exchange->all_reduce(values); });
          const double ratio = compression_ratio(exchange->codec(), kCount);
          // Top-k sends its list to both others; the other codecs exchange as all_reduce does.
          const bool gathers = exchange->codec().name().starts_with("topk");
          const double expected = gathers ? ratio * 2 / 3 : ratio;
          EXPECT_NEAR(plain / sent / expected, 1, 0.01) << exchange->codec().name();
        }
      },
      "gloo");
}

TEST(CompressedAllReduce, WhatIsNotFiniteReachesAllRanksOnce) {
  for (const CompressionOptions& options : kAllCodecs) {
    run_threads(
        3,
        [&](Group& group) {
          const auto exchange = make_compressed_all_reduce(group, 2000, options);
          for (int step = 0; step < 4; ++step) {
            Values values = values_of(group.rank(), step, 2000);
            const bool is_bad = step == 1 || step == 2;
            if (is_bad && group.rank() == step) {
              values[1234] = step == 1 ? std::nanf("") : HUGE_VALF;
            }
            exchange->all_reduce(values);
            EXPECT_EQ(std::isfinite(values[1234]), !is_bad) << exchange->codec().name();
            if (is_bad) continue;
            for (const float x : values) ASSERT_TRUE(std::isfinite(x));
          }
          for (const CompressionState& state : exchange->state()) {
            for (const float x : state.values) ASSERT_TRUE(std::isfinite(x)) << state.name;
          }
        },
        "gloo");
  }
}

TEST(CompressedAllReduce, ResumesFromItsState) {
  for (const CompressionOptions& options : kAllCodecs) {
    run_threads(
        2,
        [&](Group& group) {
          const auto first = make_compressed_all_reduce(group, 1500, options);
          const auto second = make_compressed_all_reduce(group, 1500, options);
          for (int step = 0; step < 3; ++step) {
            Values values = values_of(group.rank(), step, 1500);
            first->all_reduce(values);
          }
          const auto from = first->state();
          const auto to = second->state();
          ASSERT_EQ(from.size(), to.size());
          for (std::size_t i = 0; i < from.size(); ++i) {
            ASSERT_EQ(from[i].name, to[i].name);
            std::copy(from[i].values.begin(), from[i].values.end(), to[i].values.begin());
          }
          Values continued = values_of(group.rank(), 3, 1500);
          Values resumed = continued;
          first->all_reduce(continued);
          second->all_reduce(resumed);
          EXPECT_EQ(resumed, continued);
        },
        "gloo");
  }
}

TEST(CompressedAllReduce, RefusesWhatCannotBe) {
  run_threads(1, [](Group& group) {
    EXPECT_THROW(make_compressed_all_reduce(group, -1, {}), ConfigError);
    EXPECT_THROW(make_compressed_all_reduce(group, 10, {.codec = TopKCompression{.fraction = 2}}),
                 ConfigError);
    const auto exchange = make_compressed_all_reduce(group, 10, {});
    Values nine(9);
    Values ten(10);
    EXPECT_THROW(exchange->all_reduce(nine), ShapeError);
    EXPECT_THROW(exchange->all_reduce(ten, ReduceOp::kMax), ShapeError);
    exchange->all_reduce(ten);
  });
}

}  // namespace
}  // namespace trireme
