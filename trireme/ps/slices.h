// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <cstdint>

namespace trireme::ps {

// Scatters ids whatever their pattern: the finaliser of splitmix64 (Steele, Lea and Flood, "Fast
// splittable pseudorandom number generators", OOPSLA 2014).
inline std::uint64_t mix_id(std::uint64_t id) {
  id += 0x9e3779b97f4a7c15ULL;
  id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9ULL;
  id = (id ^ (id >> 27)) * 0x94d049bb133111ebULL;
  return id ^ (id >> 31);
}

// The slice of all tables that the row is in, below slices. Part of the format of snapshots. Pure.
inline std::uint32_t slice_of(std::uint64_t id, std::uint32_t slices) {
  return static_cast<std::uint32_t>((static_cast<unsigned __int128>(mix_id(id)) * slices) >> 64);
}

}  // namespace trireme::ps
