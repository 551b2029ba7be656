// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What all vector kernels share: f32 vectors from and to f32 and bf16 memory, exp and the
// activations. Compiled once for each set of vector units (Highway's foreach_target); include it
// after hwy/foreach_target.h.
//
// Every operation is a correctly rounded f32 operation or a fused multiply-add, in an order that
// the width of the vectors does not change, unless said otherwise.
#if defined(TRIREME_OPS_KERNELS_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_OPS_KERNELS_SIMD_INL_H
#undef TRIREME_OPS_KERNELS_SIMD_INL_H
#else
#define TRIREME_OPS_KERNELS_SIMD_INL_H
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "trireme/ops/kernels/element.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
using Vec = hn::Vec<F32>;
inline constexpr F32 kF32Tag{};
inline constexpr std::size_t kLanes = hn::MaxLanes(F32());

struct Bf16 {
  std::uint16_t bits;
};

HWY_INLINE Vec load(const float* from) { return hn::LoadU(kF32Tag, from); }
HWY_INLINE Vec load(const Bf16* from) {
  const hn::Rebind<std::uint16_t, F32> du16;
  const hn::Repartition<std::uint32_t, F32> du32;
  const auto bits = hn::LoadU(du16, &from->bits);
  return hn::BitCast(kF32Tag, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits)));
}

// Rounds to nearest, ties to even; a NaN stays a NaN.
HWY_INLINE hn::Vec<hn::Rebind<std::uint16_t, F32>> to_bf16(Vec value) {
  const hn::Rebind<std::uint16_t, F32> du16;
  const hn::Repartition<std::uint32_t, F32> du32;
  const hn::Repartition<std::int32_t, F32> di32;
  const auto bits = hn::BitCast(du32, value);
  const auto high = hn::ShiftRight<16>(bits);
  const auto tie = hn::And(high, hn::Set(du32, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(tie, hn::Set(du32, 0x7FFF))));
  const auto quiet = hn::Or(high, hn::Set(du32, 0x40));
  const auto nan = hn::RebindMask(du32, hn::IsNaN(value));
  return hn::DemoteTo(du16, hn::BitCast(di32, hn::IfThenElse(nan, quiet, rounded)));
}

HWY_INLINE void store(Vec value, float* to) { hn::StoreU(value, kF32Tag, to); }
HWY_INLINE void store(Vec value, Bf16* to) {
  hn::StoreU(to_bf16(value), hn::Rebind<std::uint16_t, F32>(), &to->bits);
}

// bf16 in pairs, as the processor's bf16 dot product takes them: a lane holds two neighbours.
struct Bf16Pair {
  std::uint16_t bits;  // of one of the two
};
HWY_INLINE Vec load(const Bf16Pair* from) { return load(reinterpret_cast<const float*>(from)); }

template <class T>
inline constexpr std::int64_t kPerLane = 1;
template <>
inline constexpr std::int64_t kPerLane<Bf16Pair> = 2;

// The first count elements, fewer than fill a vector; the rest is zero, its memory is not touched.
template <class T>
HWY_INLINE Vec load_first(const T* from, std::size_t count) {
  HWY_ALIGN T part[kLanes * kPerLane<T>] = {};
  for (std::size_t i = 0; i < count; ++i) part[i] = from[i];
  return load(part);
}
template <class T>
HWY_INLINE void store_first(Vec value, T* to, std::size_t count) {
  HWY_ALIGN T part[kLanes];
  store(value, part);
  for (std::size_t i = 0; i < count; ++i) to[i] = part[i];
}

// As many of the elements from `at` on as make a vector, or are left of width.
HWY_INLINE std::size_t part_of(std::int64_t width, std::int64_t at) {
  const auto left = static_cast<std::size_t>(width - at);
  return left < kLanes ? left : kLanes;
}
constexpr std::int64_t padded_width(std::int64_t width) {
  return (width + static_cast<std::int64_t>(kLanes) - 1) / static_cast<std::int64_t>(kLanes) *
         static_cast<std::int64_t>(kLanes);
}
template <class T>
HWY_INLINE Vec load_part(const T* from, std::size_t count) {
  return count == kLanes ? load(from) : load_first(from, count);
}
template <class T>
HWY_INLINE void store_part(Vec value, T* to, std::size_t count) {
  count == kLanes ? store(value, to) : store_first(value, to, count);
}
// Zero from lane count on.
HWY_INLINE Vec keep_first(Vec value, std::size_t count) {
  return count == kLanes ? value : hn::IfThenElseZero(hn::FirstN(kF32Tag, count), value);
}
// As a T holds it.
template <class T>
HWY_INLINE Vec rounded_to(Vec value) {
  if constexpr (sizeof(T) == sizeof(float)) return value;
  const hn::Repartition<std::uint32_t, F32> du32;
  return hn::BitCast(kF32Tag, hn::ShiftLeft<16>(hn::PromoteTo(du32, to_bf16(value))));
}

HWY_INLINE Vec fill(float value) { return hn::Set(kF32Tag, value); }

// e^x for x <= 88, 0 below -87.3: 2^n times a polynomial of degree 6 in the rest, within 2 ulp.
HWY_INLINE Vec exp(Vec x) {
  const hn::Repartition<std::int32_t, F32> di32;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693145751953125F;  // 16 bits: n times it is exact
  constexpr float kLn2Low = 1.42860682030941723e-6F;
  const Vec n = hn::Round(hn::Mul(x, fill(kLog2E)));
  Vec r = hn::NegMulAdd(n, fill(kLn2High), x);
  r = hn::NegMulAdd(n, fill(kLn2Low), r);
  Vec p = fill(1.0F / 720);
  p = hn::MulAdd(p, r, fill(1.0F / 120));
  p = hn::MulAdd(p, r, fill(1.0F / 24));
  p = hn::MulAdd(p, r, fill(1.0F / 6));
  p = hn::MulAdd(p, r, fill(0.5F));
  p = hn::MulAdd(p, r, fill(1.0F));
  p = hn::MulAdd(p, r, fill(1.0F));
  const auto exponent = hn::Add(hn::ConvertTo(di32, n), hn::Set(di32, 127));
  const Vec power = hn::BitCast(kF32Tag, hn::ShiftLeft<23>(exponent));
  return hn::IfThenZeroElse(hn::Lt(x, fill(-87.3F)), hn::Mul(p, power));
}

// 1 / (1 + e^-x). The bound keeps e^-x finite; at it the result is 0 in f32 for all that follows.
HWY_INLINE Vec sigmoid(Vec x) {
  const Vec e = exp(hn::Min(hn::Neg(x), fill(87.0F)));
  return hn::Div(fill(1.0F), hn::Add(fill(1.0F), e));
}

// GELU in its tanh form, x / 2 (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kGeluLinear = 2 * 0.79788456080286536F;
constexpr float kGeluCubic = 0.044715F * kGeluLinear;

HWY_INLINE Vec gelu_gate(Vec x) {
  const Vec square = hn::Mul(x, x);
  return sigmoid(hn::Mul(x, hn::MulAdd(fill(kGeluCubic), square, fill(kGeluLinear))));
}
HWY_INLINE Vec gelu(Vec x) { return hn::Mul(x, gelu_gate(x)); }
// s + x s (1 - s) d(2 z)/dx.
HWY_INLINE Vec gelu_derivative(Vec x) {
  const Vec s = gelu_gate(x);
  const Vec slope = hn::MulAdd(fill(3 * kGeluCubic), hn::Mul(x, x), fill(kGeluLinear));
  const Vec change = hn::Mul(hn::Mul(x, s), hn::Sub(fill(1.0F), s));
  return hn::MulAdd(change, slope, s);
}

HWY_INLINE Vec silu(Vec x) { return hn::Mul(x, sigmoid(x)); }
// s (1 + x (1 - s)).
HWY_INLINE Vec silu_derivative(Vec x) {
  const Vec s = sigmoid(x);
  return hn::Mul(s, hn::MulAdd(x, hn::Sub(fill(1.0F), s), fill(1.0F)));
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
