// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The chances of stochastic rounding. Internal to the optimizers' kernels.
#pragma once

#include <cstdint>

namespace trireme::optim::detail {

// 32 bits that look random, of a number and a key (the finaliser of MurmurHash3, A. Appleby).
[[gnu::always_inline]] inline std::uint32_t scrambled(std::uint32_t number, std::uint32_t key) {
  std::uint32_t h = number ^ key;
  h = (h ^ (h >> 16)) * 0x85EBCA6BU;
  h = (h ^ (h >> 13)) * 0xC2B2AE35U;
  return h ^ (h >> 16);
}

}  // namespace trireme::optim::detail
