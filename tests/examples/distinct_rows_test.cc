// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/distinct_rows.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor longs(const std::vector<std::int64_t>& values) { return at::tensor(values, at::kLong); }

TEST(DistinctRows, ComeInTheOrderOfTheBatch) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  const at::Tensor ids = longs({7, 0, 7, -1, kLeast, 0, -1, 9}).view({2, 4});
  const DistinctRows distinct = distinct_rows(ids);
  EXPECT_TRUE(distinct.ids.equal(longs({7, 0, -1, kLeast, 9})));
  EXPECT_TRUE(distinct.places.equal(longs({0, 1, 0, 2, 3, 1, 2, 4}).view({2, 4})));
}

TEST(DistinctRows, GradientsOfEqualIdsAreSummed) {
  const DistinctRows distinct = distinct_rows(longs({5, 3, 5, 5, 3, 8}).view({3, 2}));
  const at::Tensor gradients = at::arange(18, at::kFloat).view({3, 2, 3});
  const at::Tensor sums = row_gradients(gradients, distinct);
  EXPECT_TRUE(
      sums.equal(at::tensor({0 + 6 + 9, 1 + 7 + 10, 2 + 8 + 11, 3 + 12, 4 + 13, 5 + 14, 15, 16, 17},
                            at::kFloat)
                     .view({3, 3})));
}

// Few ids, so that many are equal; with steps between them that a bad hash would put together.
RC_GTEST_PROP(DistinctRows, SpreadAndSumFindEveryRow, ()) {
  const auto count = *rc::gen::inRange<std::size_t>(0, 200);
  const auto step = std::int64_t{1} << *rc::gen::inRange(0, 56);
  const auto drawn = *rc::gen::container<std::vector<int>>(count, rc::gen::inRange(-20, 20));
  std::vector<std::int64_t> ids;
  for (const int draw : drawn) ids.push_back(draw * step);
  const DistinctRows distinct = distinct_rows(longs(ids));

  std::vector<std::int64_t> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  const auto end = std::unique(sorted.begin(), sorted.end());
  RC_ASSERT(distinct.ids.numel() == end - sorted.begin());

  // Rows that are their ids come back as the ids.
  RC_ASSERT(spread(distinct.ids.unsqueeze(1), distinct).view({-1}).equal(longs(ids)));
  // Sums of 1 and of the number of the place.
  const at::Tensor gradients = at::empty({static_cast<std::int64_t>(count), 2}, at::kFloat);
  for (std::int64_t i = 0; i < gradients.size(0); ++i) {
    gradients.data_ptr<float>()[2 * i] = 1;
    gradients.data_ptr<float>()[2 * i + 1] = static_cast<float>(i);
  }
  const at::Tensor sums = row_gradients(gradients, distinct);
  for (std::int64_t n = 0; n < distinct.ids.numel(); ++n) {
    float equal = 0, numbers = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (ids[i] != distinct.ids.data_ptr<std::int64_t>()[n]) continue;
      equal += 1, numbers += static_cast<float>(i);
    }
    RC_ASSERT(sums.data_ptr<float>()[2 * n] == equal);
    RC_ASSERT(sums.data_ptr<float>()[2 * n + 1] == numbers);
  }
}

TEST(DistinctRows, GradientsOfOtherShapesAreRefused) {
  const DistinctRows distinct = distinct_rows(longs({5, 3, 5, 5}).view({2, 2}));
  EXPECT_THAT(
      [&] {
        row_gradients(at::zeros({4, 3}), distinct);
      },
      ThrowsMessage<ShapeError>(HasSubstr("[4, 3]")));
  EXPECT_THAT(
      [&] {
        row_gradients(at::zeros({2, 2, 3}, at::kDouble), distinct);
      },
      ThrowsMessage<ShapeError>(HasSubstr("Double")));
}

}  // namespace
}  // namespace trireme::examples
