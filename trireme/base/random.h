// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Counter-based random numbers: value i of a stream is a pure function of (seed, stream, i), so
// that any rank can make any part of a random tensor or permutation without the rest, and the
// layout is not part of the result.
//
//   const RandomStream stream(seed, "blocks.3.attn.q.weight");
//   for (std::int64_t i = begin; i < end; ++i) weight[i - begin] = 0.02f * stream.normal(i);
//
// Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace trireme {

// One Philox4x32-10 block: 128 random bits from a 128-bit counter and a 64-bit key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// A named stream of numbers. Constant after construction; any thread may call it.
class RandomStream {
 public:
  // Streams with different names (or seeds) are independent.
  RandomStream(std::uint64_t seed, std::string_view name);
  RandomStream(std::uint64_t seed, std::uint64_t stream);

  // 64 uniform bits for index i.
  std::uint64_t bits(std::uint64_t index) const;
  // Uniform in [0, 1), 53 random bits.
  double uniform(std::uint64_t index) const;
  // Standard normal (Box-Muller in f64), the same on every machine up to the last bit of libm's
  // f64 log, sin and cos, which rounding to f32 hides in all but about one of 2^29 values.
  double normal(std::uint64_t index) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

// A pseudo-random permutation of [0, size) by index, in constant memory: a Feistel network over the
// next even number of bits with cycle walking. Constant after construction; any thread may call it.
class RandomPermutation {
 public:
  // size >= 1.
  RandomPermutation(std::uint64_t size, std::uint64_t seed, std::uint64_t stream);

  std::uint64_t size() const { return size_; }
  // index < size(); the result is < size(), and each result comes once.
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  std::uint64_t size_;
  std::uint32_t half_bits_;
  RandomStream stream_;
};

}  // namespace trireme
