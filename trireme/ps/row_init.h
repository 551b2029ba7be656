// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowInit: what the rows of a sparse table begin with, by the seed, the table's name and the row's
// id alone, so that any server can make any row. Internal to the tables.
//
// Values 4b .. 4b + 3 come of one Philox4x32 block: counter {id, id >> 32, b, 0}, key XXH3 of the
// name with the seed. Uniform: the top 24 bits of a word in [-1, 1), times the scale. Normal: of
// two words a pair by Box and Muller's method, at most 5.9 standard deviations. Logarithm, sine and
// cosine are series of additions, products and divisions in f32, each correctly rounded: every
// machine computes the same bits, and sixteen at once where it can.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace trireme::ps {

class RowInit {
 public:
  // kind: uniform, normal, zeros.
  RowInit(const std::string& kind, double scale, std::uint64_t seed, const std::string& name);

  // count f32 of the row's beginning.
  void fill(std::uint64_t id, std::int64_t count, float* row) const;

 private:
  enum class Kind { kUniform, kNormal, kZeros };
  // Constant after construction.
  Kind kind_;
  float scale_;
  std::array<std::uint32_t, 2> key_;
};

}  // namespace trireme::ps
