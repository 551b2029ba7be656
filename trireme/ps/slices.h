// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which slice of the sparse tables a row belongs to: by a hash of its id alone, so that workers,
// servers and snapshots agree without asking. The same for ever: snapshots rest on it.
//
//   const std::uint32_t slice = slice_of(id, num_slices);
#pragma once

#include <cstdint>

namespace trireme::ps {

// In [0, num_slices), num_slices >= 1; each slice gets an equal share of any ids. The finaliser of
// MurmurHash3 (A. Appleby), whose 64 bits are cut into num_slices ranges of equal length. A table's
// index uses other bits (row_index.h): the ids of one slice lie everywhere in its table.
constexpr std::uint32_t slice_of(std::uint64_t id, std::uint32_t num_slices) {
  std::uint64_t h = id;
  h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDU;
  h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53U;
  h ^= h >> 33;
  // The high 64 bits of the 96-bit product h x num_slices.
  const std::uint64_t low = (h & 0xFFFFFFFFU) * num_slices;
  const std::uint64_t high = (h >> 32) * num_slices + (low >> 32);
  return static_cast<std::uint32_t>(high >> 32);
}

}  // namespace trireme::ps
