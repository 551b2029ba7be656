// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Slices: how the rows of sparse tables are shared among servers, by a hash of the row's id.
//
// The hash maps ids one to one onto [0, 2^64), which slices cut into equal parts in order: slice s
// of n holds the ids whose hash lies in [2^64 s / n, 2^64 (s + 1) / n). So slices of 6 are halves
// of slices of 3, and who reads slice s of n need not look into a slice of m that does not overlap
// it. Snapshots rely on it: a test freezes the values.
#pragma once

#include <cstdint>

namespace trireme::ps {

// Finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014; the constants are Stafford's mix 13) of id + 1 golden gamma, so that 0 is nothing
// special. One to one; each bit of the id changes each bit of the hash in about half of all cases.
constexpr std::uint64_t hash_of_id(std::uint64_t id) {
  std::uint64_t h = id + 0x9E3779B97F4A7C15;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EB;
  return h ^ (h >> 31);
}

// In [0, num_slices). num_slices >= 1.
constexpr int slice_of(std::uint64_t id, int num_slices) {
  __extension__ using Wide = unsigned __int128;
  const auto slices = static_cast<unsigned>(num_slices);
  return static_cast<int>(static_cast<std::uint64_t>((Wide{hash_of_id(id)} * slices) >> 64));
}

// Whether slice a of num_a and slice b of num_b can have an id in common.
constexpr bool slices_overlap(int a, int num_a, int b, int num_b) {
  const std::int64_t begin_a = std::int64_t{a} * num_b, begin_b = std::int64_t{b} * num_a;
  return begin_a < begin_b + num_a && begin_b < begin_a + num_b;
}

}  // namespace trireme::ps
