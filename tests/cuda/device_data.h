// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Operands for kernels that run on the host double of CUDA, and how their results are compared.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trireme/ops/kernels/element.h"

namespace trireme::testing {

using ops::Element;

inline constexpr Element kElements[] = {Element::kF32, Element::kBf16};

// Elements in memory, between guards that no kernel may touch: values() fails the test if one did.
// They start `offset` elements behind an address that is a multiple of 16.
class DeviceData {
 public:
  DeviceData(Element element, const std::vector<float>& values, std::int64_t offset = 0);

  void* data() { return bytes() + first_; }
  float* floats() { return static_cast<float*>(data()); }
  std::vector<float> values() const;

 private:
  struct alignas(16) Line {
    unsigned char bytes[16];
  };
  unsigned char* bytes() { return lines_.data()->bytes; }
  const unsigned char* bytes() const { return lines_.data()->bytes; }

  Element element_;
  std::int64_t count_;
  std::int64_t first_;  // byte
  std::vector<Line> lines_;
};

// Numbers in [-1, 1) without a pattern; others for another seed.
std::vector<float> distinct(std::int64_t count, std::uint32_t seed);
float rounded_to(Element element, float value);
std::vector<float> rounded_to(Element element, std::vector<float> values);

// Runs what a test does to its operands: with a block's threads in ascending and in descending
// order, on grids of 7 blocks, of one and of as many as there is work. All give the same bits, and
// those are returned.
std::vector<float> in_every_order(const std::function<std::vector<float>()>& kernel);

// |actual - expected| <= tolerance (1 + |expected|). bf16: one element in 50 may be rounded to the
// neighbour. NaN is equal to NaN. Names the first element that is not close.
void expect_close(const std::vector<float>& actual, const std::vector<float>& expected,
                  Element element, double tolerance, const std::string& what);
// The same bits; NaN is equal to NaN.
void expect_same(const std::vector<float>& actual, const std::vector<float>& expected,
                 const std::string& what);

template <class T>
void append(std::vector<T>& to, const std::vector<T>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace trireme::testing
