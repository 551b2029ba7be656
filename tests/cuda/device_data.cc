// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/cuda/device_data.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "tests/fakes/cuda_on_host.h"

namespace trireme::testing {
namespace {

constexpr std::int64_t kGuardBytes = 64;
constexpr unsigned char kGuard = 0xA5;

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

}  // namespace

DeviceData::DeviceData(Element element, const std::vector<float>& values, std::int64_t offset)
    : element_(element),
      count_(static_cast<std::int64_t>(values.size())),
      first_(kGuardBytes + offset * element_bytes(element)),
      lines_(static_cast<std::size_t>((first_ + count_ * 4 + kGuardBytes) / 16 + 1)) {
  std::memset(bytes(), kGuard, lines_.size() * sizeof(Line));
  for (std::int64_t i = 0; i < count_; ++i) {
    unsigned char* to = bytes() + first_ + i * element_bytes(element);
    const float value = values[static_cast<std::size_t>(i)];
    const std::uint16_t half = to_bf16(value);
    element == Element::kF32 ? std::memcpy(to, &value, 4) : std::memcpy(to, &half, 2);
  }
}

std::vector<float> DeviceData::values() const {
  const std::int64_t end = first_ + count_ * element_bytes(element_);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(lines_.size() * sizeof(Line)); ++i) {
    if ((i < first_ || i >= end) && bytes()[i] != kGuard) {
      ADD_FAILURE() << "byte " << (i < first_ ? i - first_ : i - end)
                    << (i < first_ ? " before" : " behind") << " an operand was written";
      break;
    }
  }
  std::vector<float> values(static_cast<std::size_t>(count_));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const unsigned char* from =
        bytes() + first_ + static_cast<std::int64_t>(i) * element_bytes(element_);
    std::uint16_t half = 0;
    element_ == Element::kF32 ? std::memcpy(&values[i], from, 4) : std::memcpy(&half, from, 2);
    if (element_ == Element::kBf16) values[i] = from_bf16(half);
  }
  return values;
}

std::vector<float> distinct(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = seed * 0x9E3779B9U + 12345;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<std::int32_t>(state ^ state >> 15)) * 0x1p-31F;
  }
  return values;
}

float rounded_to(Element element, float value) {
  return element == Element::kF32 ? value : from_bf16(to_bf16(value));
}
std::vector<float> rounded_to(Element element, std::vector<float> values) {
  for (float& value : values) value = rounded_to(element, value);
  return values;
}

std::vector<float> in_every_order(const std::function<std::vector<float>()>& kernel) {
  using cuda_on_host::host;
  using cuda_on_host::Order;
  host = {};
  const std::vector<float> first = kernel();
  host = {.order = Order::kDescending, .most_blocks = 1};
  expect_same(kernel(), first, "with the threads in descending order, in one block");
  host = {.order = Order::kDescending, .most_blocks = 1U << 20};
  expect_same(kernel(), first, "with as many blocks as there is work");
  host = {};
  return first;
}

void expect_close(const std::vector<float>& actual, const std::vector<float>& expected,
                  Element element, double tolerance, const std::string& what) {
  const double bound = tolerance + (element == Element::kBf16 ? 0x1p-7 : 0);
  std::size_t others = 0;
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], e = expected[i];
    if (same(actual[i], expected[i])) continue;
    ++others;
    ASSERT_LE(std::fabs(a - e), bound * std::fabs(e) + tolerance) << what << ", element " << i;
  }
  if (element == Element::kBf16) {
    ASSERT_LE(others, 2 + actual.size() / 50) << what;
  }
}

void expect_same(const std::vector<float>& actual, const std::vector<float>& expected,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_TRUE(same(actual[i], expected[i]))
        << what << ", element " << i << ": " << actual[i] << ", expected " << expected[i];
  }
}

}  // namespace trireme::testing
