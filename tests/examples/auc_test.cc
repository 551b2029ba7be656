// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/auc.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor floats(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }

// All pairs, one by one.
double counted(const std::vector<float>& scores, const std::vector<float>& labels) {
  double right = 0, pairs = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    for (std::size_t j = 0; j < scores.size(); ++j) {
      if (labels[i] != 1 || labels[j] != 0) continue;
      pairs += 1;
      right += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
    }
  }
  return right / pairs;
}

RC_GTEST_PROP(Auc, IsTheShareOfPairsInOrder, ()) {
  const auto count = *rc::gen::inRange<std::size_t>(2, 40);
  const auto whole = *rc::gen::container<std::vector<int>>(count, rc::gen::inRange(-5, 6));
  std::vector<float> scores(whole.begin(), whole.end());
  std::vector<float> labels;
  for (const int label : *rc::gen::container<std::vector<int>>(count, rc::gen::inRange(0, 2))) {
    labels.push_back(static_cast<float>(label));
  }
  labels[0] = 0, labels[1] = 1;
  Auc auc;
  auc.add(floats(scores), floats(labels));
  RC_ASSERT(std::abs(auc.value() - counted(scores, labels)) < 1e-12);
}

TEST(Auc, KnowsItsEnds) {
  Auc best, worst, chance;
  best.add(floats({1, 2, 3, 4, 5}), floats({0, 0, 0, 1, 1}));
  worst.add(floats({1, 2, 3, 4, 5}), floats({1, 1, 0, 0, 0}));
  chance.add(floats({7, 7, 7, 7, 7}), floats({1, 0, 1, 0, 0}));
  EXPECT_EQ(best.value(), 1.0);
  EXPECT_EQ(worst.value(), 0.0);
  EXPECT_EQ(chance.value(), 0.5);
}

TEST(Auc, PartsOfWorkersAreTheWhole) {
  const std::vector<float> scores = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  const std::vector<float> labels = {0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0};
  Auc whole, left, right;
  whole.add(floats(scores), floats(labels));
  left.add(floats(scores).narrow(0, 0, 4), floats(labels).narrow(0, 0, 4));
  right.add(floats(scores).narrow(0, 4, 7), floats(labels).narrow(0, 4, 7));
  const at::Tensor theirs = right.samples();
  EXPECT_EQ(theirs.size(0), 7);
  left.add(theirs.select(1, 0), theirs.select(1, 1));
  EXPECT_EQ(left.value(), whole.value());
  EXPECT_EQ(whole.value(), counted(scores, labels));
}

TEST(Auc, RefusesWhatHasNone) {
  Auc auc;
  EXPECT_THAT(
      [&] {
        auc.add(floats({1, 2}), floats({1}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("2 elements")));
  EXPECT_THAT(
      [&] {
        auc.add(floats({1, 2}), floats({1, 0.5}));
      },
      ThrowsMessage<DataError>(HasSubstr("label 1 is 0.5")));
  EXPECT_THAT(
      [&] {
        auc.add(floats({1, std::nanf("")}), floats({1, 0}));
      },
      ThrowsMessage<DataError>(HasSubstr("score 1 is nan")));
  Auc clicks;
  clicks.add(floats({1, 2, 3}), floats({1, 1, 1}));
  EXPECT_THAT([&] { static_cast<void>(clicks.value()); },
              ThrowsMessage<DataError>(HasSubstr("3 clicks and 0 others")));
}

}  // namespace
}  // namespace trireme::examples
