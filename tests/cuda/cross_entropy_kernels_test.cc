// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/cuda_on_host.h"
// The text under test:
#include "trireme/ops/cuda/cross_entropy_kernels.cu"
// After it:
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda/device_data.h"

namespace trireme::testing {
namespace {

using ops::cuda::Stream;

constexpr float kScale = 0.25F;

enum class Gradient { kNone, kF32, kInPlace, kBf16 };

struct Case {
  std::int64_t rows = 0, columns = 0, offset = 0;
  Gradient gradient = Gradient::kNone;

  Element element() const { return gradient == Gradient::kBf16 ? Element::kBf16 : Element::kF32; }
  std::string name() const {
    return fmt::format("{} x {}, offset {}, gradient {}", rows, columns, offset,
                       static_cast<int>(gradient));
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Gradient gradient :
       {Gradient::kNone, Gradient::kF32, Gradient::kInPlace, Gradient::kBf16}) {
    for (const std::int64_t rows : {0, 1, 5, 67, 130}) all.push_back({rows, 33, 0, gradient});
    for (const std::int64_t columns : {1, 3, 257, 1000, 4097}) {
      all.push_back({5, columns, 0, gradient});
    }
    all.push_back({6, 1000, 1, gradient});
    all.push_back({2, 4100, 0, gradient});
    all.push_back({2, 9001, 0, gradient});
  }
  return all;
}

// Row by row: usual ones, one far above the others, huge ones, with -infinity, falling and rising
// ones (the maximum of each thread never and always moves).
std::vector<float> logits_of(const Case& c) {
  std::vector<float> logits = distinct(c.rows * c.columns, 1);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / c.columns;
    const auto column = static_cast<std::int64_t>(i) % c.columns;
    float& x = logits[i];
    if (row % 6 == 0) x *= 8;
    if (row % 6 == 1 && column == c.columns / 2) x = 40;
    if (row % 6 == 2) x = x * 3 + 1e4F;
    if (row % 6 == 3) x = x * 3 - 1e4F;
    if (row % 6 == 4) x = column % 2 != 0 ? -HUGE_VALF : 8 - static_cast<float>(column) / 64;
    if (row % 6 == 5) x = static_cast<float>(column) / 64;
  }
  return logits;
}

std::vector<std::int64_t> targets_of(const Case& c) {
  std::vector<std::int64_t> targets;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    const std::int64_t even = r * 37 % c.columns / 2 * 2;
    targets.push_back(r % 7 == 3 ? -1 : r % 31 == 8 ? -100 : even);
  }
  return targets;
}

struct Result {
  std::vector<float> losses, gradient;
};

struct CrossEntropy {
  explicit CrossEntropy(const Case& given)
      : c(given),
        logits(Element::kF32, logits_of(c), c.offset),
        gradient(c.element(), distinct(c.rows * c.columns, 2), c.offset),
        targets(targets_of(c)),
        losses(static_cast<std::size_t>(c.rows), 5.0) {}

  ops::CrossEntropyRows rows(float scale) {
    void* to = c.gradient == Gradient::kNone      ? nullptr
               : c.gradient == Gradient::kInPlace ? logits.data()
                                                  : gradient.data();
    return {.logits = logits.floats(),
            .targets = targets.data(),
            .rows = c.rows,
            .columns = c.columns,
            .losses = losses.data(),
            .gradient = to,
            .gradient_element = c.element(),
            .scale = scale};
  }
  Result result() const {
    Result r{{losses.begin(), losses.end()}, {}};
    logits.values();  // its guards
    if (c.gradient == Gradient::kInPlace) r.gradient = logits.values();
    if (c.gradient != Gradient::kInPlace) r.gradient = gradient.values();
    return r;
  }

  Case c;
  DeviceData logits, gradient;
  std::vector<std::int64_t> targets;
  std::vector<double> losses;
};

TEST(CudaCrossEntropy, IsTheProcessors) {
  constexpr double kLossTolerance = 2e-6, kGradientTolerance = 2e-6;
  for (const Case& c : cases()) {
    CrossEntropy processor(c);
    ops::cross_entropy_rows(processor.rows(kScale));
    const Result expected = processor.result();
    in_every_order([&] {
      CrossEntropy device(c);
      // The scale is the one in device memory.
      ops::cuda::cross_entropy_rows(device.rows(1000), &kScale, Stream{});
      const Result actual = device.result();
      expect_close(actual.losses, expected.losses, Element::kF32, kLossTolerance, c.name());
      expect_close(actual.gradient, expected.gradient, c.element(), kGradientTolerance, c.name());
      std::vector<float> all = actual.losses;
      append(all, actual.gradient);
      return all;
    });
    if (HasFatalFailure()) return;
  }
}

// Against f64: the sum of a long row.
TEST(CudaCrossEntropy, LossOfALongRowIsExactToRounding) {
  const Case c{.rows = 1, .columns = 50257, .gradient = Gradient::kNone};
  CrossEntropy device(c);
  double sum = 0;
  const std::vector<float> logits = device.logits.values();
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  cuda_on_host::host = {};
  ops::cuda::cross_entropy_rows(device.rows(1), nullptr, Stream{});
  EXPECT_NEAR(device.losses[0], std::log(sum) - logits[0], 1e-6);
}

TEST(CudaCrossEntropy, NanSpoilsItsRowOnly) {
  const Case c{.rows = 3, .columns = 33, .gradient = Gradient::kF32};
  for (const std::size_t at : {33, 50, 65}) {
    CrossEntropy device(c);
    device.logits.floats()[at] = std::nanf("");
    cuda_on_host::host = {};
    ops::cuda::cross_entropy_rows(device.rows(1), &kScale, Stream{});
    const Result result = device.result();
    for (std::size_t r = 0; r < 3; ++r) EXPECT_EQ(std::isnan(result.losses[r]), r == 1);
    for (std::size_t i = 0; i < 99; ++i) EXPECT_EQ(std::isnan(result.gradient[i]), i / 33 == 1);
  }
}

TEST(CudaCrossEntropy, OfNoRowsIsNoLaunch) {
  cuda_on_host::host = {};
  ops::cuda::cross_entropy_rows({.columns = 8}, nullptr, Stream{});
  EXPECT_EQ(cuda_on_host::host.launches, 0);
}

}  // namespace
}  // namespace trireme::testing
