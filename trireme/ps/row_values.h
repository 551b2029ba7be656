// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowValues: what the rows of a table begin with, by id. Internal to the tables.
//
// Value v of a row is 32 bits of a Philox4x32 block (base/random.h) whose key comes of the seed and
// the table's name and whose counter is {id, block, 0}. Sixteen blocks at a time, a lane of the
// vector units each: value 64 g + 16 i + l is word i of block 16 g + l.
#pragma once

#include <cstdint>
#include <string>

namespace trireme::ps {

enum class RowInit { kUniform, kNormal, kZeros };

// Constant after construction; any thread. Denormals must be flushed (ops::FlushDenormals).
class RowValues {
 public:
  RowValues(RowInit init, double scale, std::uint64_t seed, const std::string& table);

  // Uniform: in [-scale, scale), 24 random bits each. Normal: with deviation scale, up to 6.3 of
  // them.
  void fill(std::uint64_t id, std::int64_t width, float* row) const;

 private:
  RowInit init_;
  float scale_;
  std::uint64_t key_;
};

}  // namespace trireme::ps
