// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/dlrm.h"

#include <gtest/gtest.h>
#include <torch/optim.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "examples/support/auc.h"
#include "examples/support/click_generator.h"
#include "examples/support/distinct_rows.h"
#include "tests/examples/row_table.h"
#include "trireme/ops/threads.h"

namespace trireme::examples {
namespace {

using trireme::testing::RowTable;

constexpr DlrmOptions kSmall = {.numbers = 3, .categories = 4, .width = 5, .hidden = 8};

// A model in f64, and what it is given.
struct DlrmTest : ::testing::Test {
  DlrmTest() {
    torch::manual_seed(3);
    model = Dlrm(kSmall);
    model->to(torch::kDouble);
    numbers = torch::rand({6, 3}, torch::kDouble);
    rows = torch::randn({6, 4, 5}, torch::kDouble);
  }
  Dlrm model = nullptr;
  torch::Tensor numbers, rows;
};

TEST_F(DlrmTest, GradientsOfRowsAreTheSlopes) {
  rows.requires_grad_();
  model(numbers, rows).sum().backward();
  const torch::NoGradGuard no_gradients;
  constexpr double kStep = 1e-6, kTolerance = 1e-7;  // the error of central differences: step^2
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    const auto at = [&](double step) {
      auto moved = rows.clone();
      moved.view({-1})[i] += step;
      return model(numbers, moved).sum().item<double>();
    };
    EXPECT_NEAR(rows.grad().view({-1})[i].item<double>(), (at(kStep) - at(-kStep)) / (2 * kStep),
                kTolerance)
        << i;
  }
}

TEST_F(DlrmTest, SamplesDoNotSeeEachOther) {
  const torch::NoGradGuard no_gradients;
  const auto logits = model(numbers, rows);
  ASSERT_EQ(logits.sizes(), at::IntArrayRef({6}));
  for (std::int64_t i = 0; i < 6; ++i) {
    const auto alone = model(numbers.narrow(0, i, 1), rows.narrow(0, i, 1));
    EXPECT_NEAR(alone.item<double>(), logits[i].item<double>(), 1e-12) << i;
  }
}

// With orthogonal vectors of length one, the product of one pair after the other is made another.
TEST_F(DlrmTest, EveryPairHasASay) {
  const torch::NoGradGuard no_gradients;
  for (auto& parameter : model->bottom->parameters()) parameter.zero_();
  const auto straight = torch::eye(5, torch::kDouble).narrow(0, 0, 4).unsqueeze(0);
  const auto one_number = numbers.narrow(0, 0, 1);
  const double logit = model(one_number, straight).item<double>();
  for (std::int64_t left = 0; left < 4; ++left) {
    for (std::int64_t right = 0; right < 4; ++right) {
      if (left == right) continue;
      auto bent = straight.clone();  // still of length one
      bent[0][left] = 0.6 * straight[0][left] + 0.8 * straight[0][right];
      EXPECT_GT(std::abs(model(one_number, bent).item<double>() - logit), 1e-4)
          << left << " " << right;
    }
  }
}

// Reaches what the planted rule allows, with the rows in a plain table.
TEST(Dlrm, LearnsThePlantedRule) {
  constexpr std::int64_t kSamples = 400'000, kHeldOut = 50'000, kBatch = 512;
  ClickGeneratorOptions options;
  for (auto& column : options.columns)
    column.cardinality = std::min(column.cardinality, std::int64_t{20});
  const ClickGenerator clicks(options);
  RowTable table({.width = 16, .init = 0.1F, .learning_rate = 0.1F, .adagrad = 1});
  set_compute_threads({.threads = 1});  // the same bits on every machine of a kind
  torch::manual_seed(3);
  Dlrm model(DlrmOptions{});
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(4e-3));
  const auto embedded = [&](const DistinctRows& distinct) {
    return spread(table.pull(distinct.ids), distinct);
  };

  for (std::int64_t first = 0; first < kSamples; first += kBatch) {
    const double rate = std::min(1.0, 5 - 5.0 * static_cast<double>(first) / kSamples);
    table.set_learning_rate(static_cast<float>(0.1 * rate));
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(4e-3 * rate);
    const ClickBatch batch = clicks.make({.first = first, .count = kBatch}).batch;
    const DistinctRows distinct = distinct_rows(batch.categories);
    const auto rows = embedded(distinct).requires_grad_();
    optimizer.zero_grad();
    const auto logits = model(batch.numbers, rows);
    torch::binary_cross_entropy_with_logits(logits, batch.labels).backward();
    table.push(distinct.ids, row_gradients(rows.grad() * kBatch, distinct));
    optimizer.step();
  }

  const torch::NoGradGuard no_gradients;
  const PlantedClicks held_out = clicks.make({.first = kSamples, .count = kHeldOut});
  Auc reached, reachable;
  reachable.add(held_out.logits, held_out.batch.labels);
  const auto rows = embedded(distinct_rows(held_out.batch.categories));
  reached.add(model(held_out.batch.numbers, rows), held_out.batch.labels);
  EXPECT_GT(reached.value(), reachable.value() - 0.01) << reachable.value();
}

}  // namespace
}  // namespace trireme::examples
