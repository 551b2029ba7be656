// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/cuda_on_host.h"
// The text under test:
#include "trireme/ops/cuda/norm_kernels.cu"
// After it:
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda/device_data.h"

namespace trireme::testing {
namespace {

using ops::cuda::Stream;

constexpr double kTolerance = 2e-5;  // f32 sums in another order, of up to 8200 numbers near 1

struct Case {
  Element element = Element::kF32;
  std::int64_t rows = 0, width = 0;
  bool centred = false, added = false;
  std::int64_t offset = 0;

  std::string name() const {
    return fmt::format("{} x {} of {} bytes, {}{}, offset {}", rows, width, element_bytes(element),
                       centred ? "layer norm" : "RMS norm", added ? " with addend" : "", offset);
  }
};

// Rows across blocks of 32 and grids of 7; widths below, at and beyond warps, vectors and what a
// block holds at once (8192).
std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](std::int64_t rows, std::int64_t width, std::int64_t offset) {
    for (const Element element : kElements) {
      for (const bool centred : {false, true}) {
        const bool added = (element == Element::kF32) == centred;
        all.push_back({element, rows, width, centred, added, offset});
        if (rows * width < 5000) all.push_back({element, rows, width, centred, !added, offset});
      }
    }
  };
  for (const std::int64_t rows : {0, 1, 5, 67, 130}) add(rows, 33, 0);
  for (const std::int64_t width : {1, 3, 257, 1000, 4097}) add(2, width, 0);
  add(34, 264, 0);
  add(260, 3, 0);  // 9 blocks, on a grid of 7
  add(5, 264, 1);
  add(1, 8193, 0);
  add(2, 8200, 0);
  all.push_back({Element::kBf16, 34, 8200, true, false, 0});
  return all;
}

// Both directions of one norm on a device's memory; the operands are the same for both engines.
struct Norm {
  explicit Norm(const Case& norm) : c(norm) {}

  std::vector<float> numbers(std::int64_t count, std::uint32_t seed, float scale, float shift) {
    std::vector<float> values = distinct(count, seed);
    for (float& value : values) value = value * scale + shift;
    return values;
  }
  DeviceData typed(std::int64_t count, std::uint32_t seed, float scale, float shift) {
    return {c.element, numbers(count, seed, scale, shift), c.offset};
  }
  DeviceData floats(std::int64_t count) {
    return {Element::kF32, std::vector<float>(static_cast<std::size_t>(count), 0.5F), 0};
  }

  ops::NormShape shape() {
    return {.element = c.element,
            .rows = c.rows,
            .width = c.width,
            .weight = weight.data(),
            .bias = c.centred ? bias.data() : nullptr,
            .mean = c.centred ? mean.floats() : nullptr,
            .inverse = inverse.floats()};
  }
  ops::NormForward forward() {
    return {.shape = shape(),
            .epsilon = 1e-5F,
            .x = x.data(),
            .addend = c.added ? addend.data() : nullptr,
            .sum = c.added ? sum.data() : nullptr,
            .out = out.data()};
  }
  ops::NormBackward backward() {
    return {.shape = shape(),
            .x = x.data(),
            .out_grad = out_grad.data(),
            .sum_grad = c.added ? sum_grad.data() : nullptr,
            .x_grad = x_grad.data(),
            .weight_grad = weight_grad.floats(),
            .bias_grad = c.centred ? bias_grad.floats() : nullptr,
            .partials = partials.floats()};
  }

  Case c;
  std::int64_t elements = c.rows * c.width;
  DeviceData weight = typed(c.width, 1, 0.5F, 1), bias = typed(c.width, 2, 1, 0);
  DeviceData x = typed(elements, 3, 2, 0.75F), addend = typed(elements, 4, 1, 0);
  DeviceData out_grad = typed(elements, 5, 1, 0), sum_grad = typed(elements, 6, 1, 0);
  DeviceData sum = typed(elements, 7, 1, 0), out = typed(elements, 8, 1, 0), x_grad = out;
  DeviceData mean = floats(c.rows), inverse = floats(c.rows);
  DeviceData weight_grad = floats(c.width), bias_grad = floats(c.width);
  DeviceData partials = floats(ops::norm_blocks(c.rows) * 2 * c.width);
};

TEST(CudaNorm, ForwardIsTheProcessors) {
  for (const Case& c : cases()) {
    Norm expected(c);
    ops::norm_forward(expected.forward());
    const std::vector<float> results = in_every_order([&] {
      Norm norm(c);
      ops::cuda::norm_forward(norm.forward(), Stream{});
      expect_close(norm.out.values(), expected.out.values(), c.element, kTolerance, c.name());
      expect_same(norm.sum.values(), expected.sum.values(), c.name());
      expect_close(norm.mean.values(), expected.mean.values(), Element::kF32, kTolerance, c.name());
      expect_close(norm.inverse.values(), expected.inverse.values(), Element::kF32, kTolerance,
                   c.name());
      std::vector<float> all = norm.out.values();
      append(all, norm.inverse.values());
      return all;
    });
    if (HasFatalFailure()) return;
  }
}

TEST(CudaNorm, BackwardIsTheProcessors) {
  for (const Case& c : cases()) {
    Norm expected(c);
    ops::norm_forward({.shape = expected.shape(),
                       .epsilon = 1e-5F,
                       .x = expected.x.data(),
                       .out = expected.out.data()});
    const DeviceData mean = expected.mean, inverse = expected.inverse;
    ops::norm_backward(expected.backward());
    in_every_order([&] {
      Norm norm(c);
      norm.mean = mean;
      norm.inverse = inverse;
      ops::cuda::norm_backward(norm.backward(), Stream{});
      expect_close(norm.x_grad.values(), expected.x_grad.values(), c.element, kTolerance, c.name());
      expect_close(norm.weight_grad.values(), expected.weight_grad.values(), Element::kF32,
                   kTolerance, c.name());
      expect_close(norm.bias_grad.values(), expected.bias_grad.values(), Element::kF32, kTolerance,
                   c.name());
      expect_same(norm.mean.values(), mean.values(), c.name());
      std::vector<float> all = norm.x_grad.values();
      append(all, norm.weight_grad.values());
      append(all, norm.bias_grad.values());
      norm.partials.values();
      return all;
    });
    if (HasFatalFailure()) return;
  }
}

TEST(CudaNorm, OfNoRowsIsNoLaunch) {
  Norm norm({.rows = 0, .width = 8, .centred = true});
  cuda_on_host::host = {};
  ops::cuda::norm_forward(norm.forward(), Stream{});
  ops::cuda::norm_backward(norm.backward(), Stream{});
  EXPECT_EQ(cuda_on_host::host.launches, 0);
}

// A row's variance survives a mean a thousand times as large.
TEST(CudaNorm, MeanIsSubtractedBeforeSquares) {
  constexpr std::int64_t kWidth = 1000;
  Norm norm({.rows = 1, .width = kWidth, .centred = true});
  double sum = 0, squares = 0;
  std::vector<float> x = norm.numbers(kWidth, 9, 1, 4096);
  for (const float value : x) sum += value;
  for (const float value : x) squares += (value - sum / kWidth) * (value - sum / kWidth);
  norm.x = DeviceData(Element::kF32, x);
  cuda_on_host::host = {};
  ops::cuda::norm_forward(norm.forward(), Stream{});
  EXPECT_NEAR(norm.inverse.values()[0], 1 / std::sqrt(squares / kWidth + 1e-5), 1e-4);
}

TEST(CudaNorm, NanSpoilsItsRowOnly) {
  Norm norm({.rows = 3, .width = 40, .centred = true});
  std::vector<float> x = norm.x.values();
  x[47] = std::nanf("");
  norm.x = DeviceData(Element::kF32, x);
  cuda_on_host::host = {};
  ops::cuda::norm_forward(norm.forward(), Stream{});
  const std::vector<float> out = norm.out.values();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 40 == 1) << i;
}

}  // namespace
}  // namespace trireme::testing
