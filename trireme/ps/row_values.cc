// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_values.h"

#include <algorithm>
#include <cmath>

#include "trireme/base/random.h"
#include "trireme/optim/vector_clones.h"

namespace trireme::ps {
namespace {

// As in base/random.cc, whose blocks these are: a test compares them.
constexpr std::uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;
constexpr int kLanes = 16;  // of 32 bits in the widest vectors
constexpr std::int64_t kGroup = 4 * kLanes;

struct Seed {
  std::uint64_t id;
  std::uint64_t key;
};

[[gnu::always_inline]] inline std::uint32_t low(std::uint64_t x) {
  return static_cast<std::uint32_t>(x);
}
[[gnu::always_inline]] inline std::uint32_t high(std::uint64_t x) {
  return static_cast<std::uint32_t>(x >> 32);
}

// The bits of group g.
[[gnu::always_inline]] inline void random_bits(const Seed& seed, std::uint32_t group,
                                               std::uint32_t* __restrict out) {
  std::uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    c0[l] = low(seed.id);
    c1[l] = high(seed.id);
    c2[l] = kLanes * group + static_cast<std::uint32_t>(l);
    c3[l] = 0;
  }
  std::uint32_t k0 = low(seed.key), k1 = high(seed.key);
  for (int round = 0; round < kRounds; ++round) {
    for (int l = 0; l < kLanes; ++l) {
      const std::uint64_t product0 = std::uint64_t{kMultiplier0} * c0[l];
      const std::uint64_t product1 = std::uint64_t{kMultiplier1} * c2[l];
      c0[l] = high(product1) ^ c1[l] ^ k0;
      c1[l] = low(product1);
      c2[l] = high(product0) ^ c3[l] ^ k1;
      c3[l] = low(product0);
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  for (int l = 0; l < kLanes; ++l) {
    out[l] = c0[l];
    out[kLanes + l] = c1[l];
    out[2 * kLanes + l] = c2[l];
    out[3 * kLanes + l] = c3[l];
  }
}

TRIREME_VECTOR_CLONES
void fill_uniform(const Seed& seed, float scale, std::int64_t width, float* __restrict row) {
  std::uint32_t bits[kGroup];
  for (std::int64_t begin = 0; begin < width; begin += kGroup) {
    random_bits(seed, static_cast<std::uint32_t>(begin / kGroup), bits);
    const std::int64_t count = std::min(kGroup, width - begin);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto fraction = static_cast<float>(static_cast<std::int32_t>(bits[i] >> 8));
      row[begin + i] = (fraction * 0x1.0p-23F - 1.0F) * scale;
    }
  }
}

// The normal quantile of p, by Wichura's algorithm AS 241, PPND7 (Applied Statistics 37, 1988),
// whose relative error is about 1e-7; in f64, so that only rounding to f32 is seen. Here for
// q = p - 1/2 up to 0.425 on either side.
[[gnu::always_inline]] inline double central_quantile(double q) {
  const double r = 0.180625 - q * q;
  const double numerator =
      ((5.9109374720E+1 * r + 1.5929113202E+2) * r + 5.0434271938E+1) * r + 3.3871327179E+0;
  const double denominator =
      ((6.7187563600E+1 * r + 7.8757757664E+1) * r + 1.7895169469E+1) * r + 1.0;
  return q * numerator / denominator;
}

// Beyond, for a p of at least e^-25, which 2^-33 is.
double tail_quantile(double q) {
  const double r = std::sqrt(-std::log(0.5 - std::abs(q))) - 1.6;
  const double numerator =
      ((1.7023821103E-1 * r + 1.3067284816E+0) * r + 2.7568153900E+0) * r + 1.4234372777E+0;
  const double denominator = (1.2021132975E-1 * r + 7.3700164250E-1) * r + 1.0;
  return std::copysign(numerator / denominator, q);
}

// q of 32 bits, never at -1/2 or 1/2.
[[gnu::always_inline]] inline double centred(std::uint32_t bits) {
  return (static_cast<double>(bits) + 0.5) * 0x1.0p-32 - 0.5;
}

TRIREME_VECTOR_CLONES
void fill_normal(const Seed& seed, float scale, std::int64_t width, float* __restrict row) {
  std::uint32_t bits[kGroup];
  for (std::int64_t begin = 0; begin < width; begin += kGroup) {
    random_bits(seed, static_cast<std::uint32_t>(begin / kGroup), bits);
    const std::int64_t count = std::min(kGroup, width - begin);
    for (std::int64_t i = 0; i < count; ++i) {
      row[begin + i] = static_cast<float>(central_quantile(centred(bits[i]))) * scale;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const double q = centred(bits[i]);
      if (std::abs(q) > 0.425) row[begin + i] = static_cast<float>(tail_quantile(q)) * scale;
    }
  }
}

}  // namespace

RowValues::RowValues(RowInit init, double scale, std::uint64_t seed, const std::string& table)
    : init_(init),
      scale_(static_cast<float>(scale)),
      key_(RandomStream(seed, "rows of table " + table).bits(0)) {}

void RowValues::fill(std::uint64_t id, std::int64_t width, float* row) const {
  switch (init_) {
    case RowInit::kUniform:
      return fill_uniform({id, key_}, scale_, width, row);
    case RowInit::kNormal:
      return fill_normal({id, key_}, scale_, width, row);
    case RowInit::kZeros:
      std::fill_n(row, width, 0.0F);
  }
}

}  // namespace trireme::ps
