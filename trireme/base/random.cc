// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/random.h"

#include <xxhash.h>

#include <bit>
#include <cmath>
#include <numbers>

#include "trireme/base/check.h"

namespace trireme {
namespace {

// Multipliers and Weyl constants of Philox4x32 (Salmon et al. 2011, table 2 and section 4.3).
constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

// Four rounds suffice for a pseudo-random permutation (Luby and Rackoff 1988) of a large domain;
// two more for the small ones.
constexpr std::uint64_t kFeistelRounds = 6;

constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

// The top 53 bits as a fraction.
double to_unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{kMultiplier0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{kMultiplier1} * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1),
               high(product0) ^ counter[3] ^ key[1], low(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : RandomStream(seed, XXH3_64bits(name.data(), name.size())) {}

RandomStream::RandomStream(std::uint64_t seed, std::uint64_t stream)
    : seed_(seed), stream_(stream) {}

// Counter: the index and the stream; key: the seed. Each block serves one index (64 of its 128 bits
// for bits(), all of them for normal()), so no value depends on the order of calls.
std::uint64_t RandomStream::bits(std::uint64_t index) const {
  const auto block =
      philox4x32({low(index), high(index), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
  return std::uint64_t{block[0]} | (std::uint64_t{block[1]} << 32);
}

double RandomStream::uniform(std::uint64_t index) const { return to_unit(bits(index)); }

double RandomStream::normal(std::uint64_t index) const {
  const auto block =
      philox4x32({low(index), high(index), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
  const double u = 1.0 - to_unit(std::uint64_t{block[0]} | (std::uint64_t{block[1]} << 32));
  const double v = to_unit(std::uint64_t{block[2]} | (std::uint64_t{block[3]} << 32));
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

RandomPermutation::RandomPermutation(std::uint64_t size, std::uint64_t seed, std::uint64_t stream)
    : size_(size), half_bits_(0), stream_(seed, stream) {
  TRIREME_ASSERT(size >= 1, "a permutation has elements");
  const auto bits = static_cast<std::uint32_t>(std::bit_width(size - 1));
  half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
}

std::uint64_t RandomPermutation::operator()(std::uint64_t index) const {
  TRIREME_CHECK_LT(index, size_, "index of a permutation");
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t value = index;
  // The network permutes fewer than 4 x size values (or four), so that a walk to one below size
  // takes less than 4 steps on average.
  do {
    std::uint64_t left = value >> half_bits_;
    std::uint64_t right = value & mask;
    for (std::uint64_t round = 0; round < kFeistelRounds; ++round) {
      const std::uint64_t mixed = stream_.bits(right ^ (round << 56)) & mask;
      const std::uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    value = (left << half_bits_) | right;
  } while (value >= size_);
  return value;
}

}  // namespace trireme
