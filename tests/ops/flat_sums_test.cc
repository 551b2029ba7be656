// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/flat_sums.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/compute_threads.h"
#include "tests/support/operation.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

TEST(FlatSums, AddAndClearOnAnyNumberOfThreads) {
  for (const std::int64_t size : {0, 1, 65'536, 200'003}) {
    const at::Tensor a = testing::normal({size}, 1).to(at::kFloat),
                     b = testing::normal({size}, 2).to(at::kFloat);
    for (const int threads : {1, 2, 3}) {
      const testing::ComputeThreads compute_threads(threads);
      const at::Tensor to = a.clone(), from = b.clone();
      ops::add_and_clear(to, from);
      EXPECT_TRUE(to.equal(a + b)) << size << " on " << threads;
      EXPECT_TRUE(from.equal(torch::zeros({size}))) << size << " on " << threads;
    }
  }
}

TEST(FlatSums, RefuseWhatDoesNotFit) {
  const at::Tensor good = torch::zeros({4});
  EXPECT_THROW(ops::add_and_clear(good, torch::zeros({5})), ShapeError);
  EXPECT_THROW(ops::add_and_clear(good, torch::zeros({4}, at::kBFloat16)), ShapeError);
  EXPECT_THROW(ops::add_and_clear(torch::zeros({8}).slice(0, 0, 8, 2), good), ShapeError);
}

}  // namespace
}  // namespace trireme
