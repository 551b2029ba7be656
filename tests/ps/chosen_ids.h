// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ids by where they lie in a table's index.
#pragma once

#include <cstdint>

namespace trireme::testing {

// h = x ^ (x >> shift), undone: each pass makes `shift` bits more right.
constexpr std::uint64_t undo_shift(std::uint64_t h, int shift) {
  std::uint64_t x = h;
  for (int bits = shift; bits < 64; bits += shift) x = h ^ (x >> shift);
  return x;
}

// Of an odd number modulo 2^64, by Newton's iteration.
constexpr std::uint64_t inverse(std::uint64_t odd) {
  std::uint64_t x = odd;
  for (int i = 0; i < 6; ++i) x *= 2 - odd * x;
  return x;
}

// The id whose RowIndex::hash_of() this is.
constexpr std::uint64_t id_of_hash(std::uint64_t hash) {
  std::uint64_t h = undo_shift(hash, 31) * inverse(0x94D049BB133111EBU);
  h = undo_shift(h, 27) * inverse(0xBF58476D1CE4E5B9U);
  return undo_shift(h, 30);
}

}  // namespace trireme::testing
