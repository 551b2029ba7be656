// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/gradient_norm.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "tests/support/compute_threads.h"
#include "tests/support/operation.h"

namespace trireme {
namespace {

at::Tensor normal(std::int64_t count, std::uint64_t stream) {
  return testing::normal({count}, stream).to(at::kFloat);
}

TEST(GlobalNorm, IsTheNorm) {
  EXPECT_EQ(optim::global_norm(torch::zeros({0})), 0.0);
  EXPECT_DOUBLE_EQ(optim::global_norm(torch::tensor({3.0F, -4.0F})), 5.0);
  for (const std::int64_t size : {1, 15, 17, 4095, 4097, 50'001}) {
    const at::Tensor values = normal(size, 3);
    EXPECT_NEAR(optim::global_norm(values) / values.to(at::kDouble).norm().item<double>(), 1.0,
                1e-12)  // LibTorch's own f64 sum is a little less exact
        << size;
  }
  // In f32 the squares would overflow.
  EXPECT_DOUBLE_EQ(optim::global_norm(torch::full({100}, 1e30F)), 1e31 * (1e30F / 1e30));
  EXPECT_TRUE(std::isnan(optim::global_norm(torch::full({5}, std::nanf("")))));
}

TEST(GlobalNorm, ThreadsDoNotMatter) {
  const at::Tensor values = normal(300'007, 3);
  const auto with = [&](int threads) {
    const testing::ComputeThreads guard(threads);
    return optim::global_norm(values);
  };
  EXPECT_EQ(with(1), with(2));
  EXPECT_EQ(with(1), with(5));
}

TEST(ClipScale, BringsDownOnlyWhatIsTooLong) {
  EXPECT_EQ(optim::clip_scale(4.0, 1.0), 0.25);
  EXPECT_EQ(optim::clip_scale(0.5, 1.0), 1.0);
  EXPECT_EQ(optim::clip_scale(4.0, 0.0), 1.0);
}

}  // namespace
}  // namespace trireme
