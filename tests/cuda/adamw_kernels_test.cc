// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/cuda_on_host.h"
// The text under test:
#include "trireme/optim/cuda/adamw_kernels.cu"
// After it:
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/cuda/device_data.h"
#include "trireme/ops/kernels/tasks.h"

namespace trireme::testing {
namespace {

using ops::cuda::Stream;
using optim::detail::AdamWScalars;
using optim::detail::UpdateExtras;

constexpr AdamWScalars kScalars{.gradient_scale = 0.37F,
                                .beta1 = 0.9F,
                                .one_minus_beta1 = 0.1F,
                                .beta2 = 0.95F,
                                .one_minus_beta2 = 0.05F,
                                .inverse_sqrt_correction2 = 3.1F,
                                .epsilon = 1e-8F,
                                .step_size = 0.013F};
constexpr float kKeep = 0.8F;

enum class Copy { kNone, kNearest, kStochastic };

struct Case {
  std::int64_t count = 0;
  std::int64_t offset = 0, copy_offset = 0;
  Copy copy = Copy::kNone;
  bool clear = false;
  std::vector<std::int64_t> bounds;

  std::string name() const {
    return fmt::format("{} elements, offsets {} and {}, copy {}, {} bounds", count, offset,
                       copy_offset, static_cast<int>(copy), bounds.size());
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Copy copy : {Copy::kNone, Copy::kNearest, Copy::kStochastic}) {
    for (const std::int64_t offset : {0, 1}) {
      for (const std::int64_t count : {0, 1, 3, 33, 257, 1000, 4097}) {
        all.push_back({count, offset, offset, copy, offset == 0, {}});
        all.push_back({count, offset, offset, copy, offset == 1, {0, count}});
      }
      // Ranges that begin and end inside of vectors, touch, are empty or within one vector.
      all.push_back(
          {1000, offset, 4 + offset, copy, true, {1, 6, 6, 9, 13, 15, 16, 16, 20, 24, 25, 999}});
      all.push_back({4099, offset, 2, copy, false, {7, 4098}});
    }
  }
  return all;
}

// Usual numbers, and those that would give themselves away, alone and together: denormal ones,
// factors of such, infinities, NaN, zeros of both signs.
std::vector<float> numbers(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values = distinct(count, seed);
  const float special[] = {1e-40F, -1e-42F, 3e-23F, 1e-19F,       -0.0F,     0.0F,
                           1e30F,  -3e38F,  1.0F,   -2.00390625F, HUGE_VALF, std::nanf("")};
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % 13 == seed) values[i] = special[i / 13 % std::size(special)];
    if (i % 13 == 6) values[i] = special[(i / 13 * seed + i / 156) % std::size(special)];
  }
  return values;
}

struct State {
  explicit State(const Case& given) : c(given) {
    std::vector<float> squares = numbers(c.count, 4);
    for (float& value : squares) value = std::fabs(value);
    second = DeviceData(Element::kF32, squares, c.offset);
  }

  UpdateExtras extras(std::int64_t from = 0) {
    return {
        .copy = c.copy == Copy::kNone ? nullptr : static_cast<std::uint16_t*>(copy.data()) + from,
        .stochastic = c.copy == Copy::kStochastic,
        .random_key = 0xDEADBEEF,
        .first_element = 0xFFFFFFF0U + static_cast<std::uint64_t>(from),
        .clear_gradients = c.clear};
  }
  void update_on_processor(AdamWScalars scalars, const float* factor) {
    const ops::FlushDenormals flush;
    if (factor != nullptr) scalars.gradient_scale *= *factor;
    std::vector<std::int64_t> ends = c.bounds;
    ends.push_back(c.count);
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      optim::detail::adamw_update(scalars, i % 2 == 0 ? 1.0F : kKeep, ends[i] - begin,
                                  weights.floats() + begin, gradients.floats() + begin,
                                  first.floats() + begin, second.floats() + begin, extras(begin));
      begin = ends[i];
    }
  }
  void update_on_device(const float* factor) {
    optim::cuda::adamw_update(kScalars, kKeep, factor,
                              {.count = c.count,
                               .weights = weights.floats(),
                               .gradients = gradients.floats(),
                               .first_moment = first.floats(),
                               .second_moment = second.floats(),
                               .bounds = c.bounds.data(),
                               .num_bounds = static_cast<std::int64_t>(c.bounds.size())},
                              extras(), Stream{});
  }
  std::vector<float> results() const {
    std::vector<float> all;
    for (const DeviceData* data : {&weights, &gradients, &first, &second, &copy}) {
      append(all, data->values());
    }
    return all;
  }

  Case c;
  DeviceData weights{Element::kF32, numbers(c.count, 1), c.offset};
  DeviceData gradients{Element::kF32, numbers(c.count, 2), c.offset};
  DeviceData first{Element::kF32, numbers(c.count, 3), c.offset}, second = first;
  DeviceData copy{Element::kBf16, numbers(c.count, 5), c.copy_offset};
};

TEST(CudaAdamW, UpdateHasTheProcessorsBits) {
  constexpr float kFactor = 0.71F;
  for (const Case& c : cases()) {
    for (const float* factor : {static_cast<const float*>(nullptr), &kFactor}) {
      State expected(c);
      expected.update_on_processor(kScalars, factor);
      expect_same(in_every_order([&] {
                    State state(c);
                    state.update_on_device(factor);
                    return state.results();
                  }),
                  expected.results(), c.name());
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaAdamW, RoundingHasTheProcessorsBits) {
  for (const Case& c : cases()) {
    if (c.copy == Copy::kNone) continue;
    State expected(c);
    optim::detail::round_weights(c.count, expected.weights.floats(), expected.extras());
    expect_same(in_every_order([&] {
                  State state(c);
                  optim::cuda::round_weights(c.count, state.weights.floats(), state.extras(),
                                             Stream{});
                  return state.results();
                }),
                expected.results(), c.name());
  }
}

// Ones of all magnitudes: another order of additions has other bits.
TEST(CudaSumsOfSquares, HaveTheProcessorsBits) {
  for (const std::int64_t count : {0, 1, 3, 15, 16, 17, 4095, 4096, 4097, 4099, 40000, 300001}) {
    for (const std::int64_t offset : {0, 1}) {
      std::vector<float> values = distinct(count, 1);
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = std::ldexp(values[i], static_cast<int>(i * 7 % 61) - 30);
      }
      DeviceData data(Element::kF32, values, offset);
      std::vector<double> expected;
      for (std::int64_t at = 0; at < count; at += 4096) {
        expected.push_back(optim::detail::sum_of_squares(data.floats() + at,
                                                         std::min<std::int64_t>(4096, count - at)));
      }
      in_every_order([&] {
        std::vector<double> sums(expected.size() + 1, -1.0);
        optim::cuda::sums_of_squares(data.floats(), count, sums.data(), Stream{});
        EXPECT_EQ(sums.back(), -1.0);
        sums.pop_back();
        EXPECT_EQ(sums, expected) << count;
        return std::vector<float>{};
      });
    }
  }
}

TEST(CudaSumsOfSquares, KeepNanAndInfinity) {
  std::vector<float> values(9000, 1.0F);
  values[4100] = std::nanf("");
  values[8999] = HUGE_VALF;
  std::vector<double> sums(3);
  cuda_on_host::host = {};
  optim::cuda::sums_of_squares(values.data(), 9000, sums.data(), Stream{});
  EXPECT_EQ(sums[0], 4096);
  EXPECT_TRUE(std::isnan(sums[1]));
  EXPECT_EQ(sums[2], HUGE_VAL);
}

TEST(CudaAdamW, OfNothingIsNoLaunch) {
  cuda_on_host::host = {};
  optim::cuda::adamw_update(kScalars, kKeep, nullptr, {}, {}, Stream{});
  optim::cuda::round_weights(0, nullptr, {}, Stream{});
  optim::cuda::sums_of_squares(nullptr, 0, nullptr, Stream{});
  EXPECT_EQ(cuda_on_host::host.launches, 0);
}

}  // namespace
}  // namespace trireme::testing
