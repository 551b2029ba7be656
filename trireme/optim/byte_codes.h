// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Codes of a byte for numbers of [-1, 1] and [0, 1], after the dynamic tree quantisation of
// Dettmers (2016; 2022, section 1.3): decades that are cut into evenly spaced intervals, twice as
// many in each decade as in the one below. A number's code is that of its interval, its value the
// middle.
//
//   signed     7 bits and a sign: code 0 is 0; codes n .. 2 n - 1, with n = 2^(6 - d), cut decade
//   d,
//              (10^-d / 10, 10^-d], into n
//   unsigned   8 bits: the same with n = 2^(7 - d), and one decade more
//
// So 64 intervals lie in [0.1, 1], 32 in [0.01, 0.1], and the smallest value is 5.5e-7 (5.5e-8).
// Other than in the paper the topmost value is 1 itself on both sides: the largest number of a
// block is kept exactly, and coding what was decoded gives the same codes. And no unsigned code of
// a number above 0 is 0: a root of it that something is divided by must not vanish.
//
// Elementwise in f32: the same bytes for any vector width. Compiled for several, as kernels.h.
#pragma once

#include <cstdint>

namespace trireme::optim::detail {

inline constexpr std::int64_t kCodeBlock = 256;  // elements that share a scale

// How numbers become codes: the nearest one, or by chance that of the value above or below, so that
// the mean is the number. A mean that decays by a hundredth in a step would else stay where it is,
// as codes lie further apart than that.
struct CodeRounding {
  bool stochastic = false;
  std::uint32_t random_key = 0;     // of the step and the moment
  std::uint64_t first_element = 0;  // number, in the whole buffer, of the first value
};

// values [count] in blocks of kCodeBlock become codes [count] and scales, one for each block: its
// largest absolute value.
void encode_signed(std::int64_t count, const float* values, std::uint8_t* codes, float* scales,
                   const CodeRounding& rounding = {});
void encode_unsigned(std::int64_t count, const float* values, std::uint8_t* codes, float* scales,
                     const CodeRounding& rounding = {});
void decode_signed(std::int64_t count, const std::uint8_t* codes, const float* scales,
                   float* values);
void decode_unsigned(std::int64_t count, const std::uint8_t* codes, const float* scales,
                     float* values);

}  // namespace trireme::optim::detail
