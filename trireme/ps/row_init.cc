// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_init.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "trireme/base/check.h"
#include "trireme/optim/vector_clones.h"

namespace trireme::ps {
namespace {

// Blocks that are computed side by side.
constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kWords = 4;
constexpr std::int64_t kValues = kLanes * kWords;

struct Lanes {
  std::uint32_t word[kWords][kLanes];
};

// Philox4x32-10 (base/random.h) of kLanes counters that differ in their third word.
[[gnu::always_inline]] inline void philox_lanes(std::uint64_t id, std::uint32_t first_block,
                                                std::uint32_t key0, std::uint32_t key1, Lanes& x) {
  for (std::int64_t i = 0; i < kLanes; ++i) {
    x.word[0][i] = static_cast<std::uint32_t>(id);
    x.word[1][i] = static_cast<std::uint32_t>(id >> 32);
    x.word[2][i] = first_block + static_cast<std::uint32_t>(i);
    x.word[3][i] = 0;
  }
  for (int round = 0; round < 10; ++round) {
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::uint64_t product0 = std::uint64_t{0xD2511F53} * x.word[0][i];
      const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * x.word[2][i];
      x.word[0][i] = static_cast<std::uint32_t>(product1 >> 32) ^ x.word[1][i] ^ key0;
      x.word[1][i] = static_cast<std::uint32_t>(product1);
      x.word[2][i] = static_cast<std::uint32_t>(product0 >> 32) ^ x.word[3][i] ^ key1;
      x.word[3][i] = static_cast<std::uint32_t>(product0);
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

// The top 24 bits, exactly.
inline float top_bits(std::uint32_t word) {
  return static_cast<float>(static_cast<std::int32_t>(word >> 8));
}

// Of u in [2^-25, 1]: u = 2^e m with m around 1, and ln m = 2 artanh((m - 1) / (m + 1)), where the
// first term that is left out is below 2e-9.
inline float logarithm(float u) {
  constexpr std::uint32_t kRootOfHalf = 0x3F3504F3;  // the bits of sqrt(1/2)
  const auto bits = std::bit_cast<std::uint32_t>(u);
  const std::int32_t e = static_cast<std::int32_t>(bits - kRootOfHalf) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<std::uint32_t>(e) << 23));
  const float s = (m - 1.0F) / (m + 1.0F);
  const float z = s * s;
  const float series = 1.0F + z * (1.0F / 3 + z * (1.0F / 5 + z * (1.0F / 7 + z * (1.0F / 9))));
  return static_cast<float>(e) * std::numbers::ln2_v<float> + 2.0F * s * series;
}

struct Pair {
  float x, y;
};

// A point of the circle: the quarter by the top two bits, the angle in it by the next 24, from
// -pi/4 to pi/4, where the series' first terms that are left out are below 3e-8.
inline Pair on_circle(std::uint32_t word) {
  constexpr float kHalfPi = std::numbers::pi_v<float> / 2;
  const float a = (top_bits(word << 2) * 0x1.0p-24F - 0.5F) * kHalfPi;
  const float z = a * a;
  const float sine =
      a * (1.0F + z * (-1.0F / 6 + z * (1.0F / 120 + z * (-1.0F / 5040 + z * (1.0F / 362880)))));
  const float cosine =
      1.0F + z * (-1.0F / 2 + z * (1.0F / 24 + z * (-1.0F / 720 + z * (1.0F / 40320))));
  const std::uint32_t quarter = word >> 30;
  const float x = (quarter & 1) != 0 ? sine : cosine;
  const float y = (quarter & 1) != 0 ? cosine : sine;
  return {quarter == 1 || quarter == 2 ? -x : x, quarter >= 2 ? -y : y};
}

// A row's values from first_block on; to: [kValues].
TRIREME_VECTOR_CLONES
void uniform_values(std::uint64_t id, std::uint32_t first_block,
                    const std::array<std::uint32_t, 2>& key, float scale, float* __restrict to) {
  Lanes x;
  philox_lanes(id, first_block, key[0], key[1], x);
  for (std::int64_t i = 0; i < kLanes; ++i) {
    for (std::int64_t w = 0; w < kWords; ++w) {
      to[i * kWords + w] = (top_bits(x.word[w][i]) * 0x1.0p-23F - 1.0F) * scale;
    }
  }
}

TRIREME_VECTOR_CLONES
void normal_values(std::uint64_t id, std::uint32_t first_block,
                   const std::array<std::uint32_t, 2>& key, float scale, float* __restrict to) {
  Lanes x;
  philox_lanes(id, first_block, key[0], key[1], x);
  float values[kWords][kLanes];
  for (std::int64_t w = 0; w < kWords; w += 2) {
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const float u = (top_bits(x.word[w][i]) + 0.5F) * 0x1.0p-24F;
      const float radius = std::sqrt(-2.0F * logarithm(u)) * scale;
      const Pair point = on_circle(x.word[w + 1][i]);
      values[w][i] = radius * point.x;
      values[w + 1][i] = radius * point.y;
    }
  }
  for (std::int64_t i = 0; i < kLanes; ++i) {
    for (std::int64_t w = 0; w < kWords; ++w) to[i * kWords + w] = values[w][i];
  }
}

}  // namespace

RowInit::RowInit(const std::string& kind, double scale, std::uint64_t seed, const std::string& name)
    : kind_(kind == "uniform"  ? Kind::kUniform
            : kind == "normal" ? Kind::kNormal
                               : Kind::kZeros),
      scale_(static_cast<float>(scale)) {
  TRIREME_ASSERT(kind_ != Kind::kZeros || kind == "zeros", "rows begin as '{}'", kind);
  const std::uint64_t hash = XXH3_64bits_withSeed(name.data(), name.size(), seed);
  key_ = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32)};
}

void RowInit::fill(std::uint64_t id, std::int64_t count, float* row) const {
  if (kind_ == Kind::kZeros) {
    std::fill_n(row, count, 0.0F);
    return;
  }
  const auto values = kind_ == Kind::kUniform ? uniform_values : normal_values;
  std::int64_t at = 0;
  for (; at + kValues <= count; at += kValues) {
    values(id, static_cast<std::uint32_t>(at / kWords), key_, scale_, row + at);
  }
  if (at == count) return;
  float rest[kValues];
  values(id, static_cast<std::uint32_t>(at / kWords), key_, scale_, rest);
  std::copy_n(rest, count - at, row + at);
}

}  // namespace trireme::ps
