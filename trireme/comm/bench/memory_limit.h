// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the memory of this host carries while all ranks use it: the limit that operations inside a
// host are held against.
#pragma once

#include <cstdint>

#include "trireme/comm/bench/runner.h"

namespace trireme {

// Bytes read and written per second, all ranks together, by `x += 1` over an array of each rank,
// all of them at the same time. In place, because then every byte that goes over the bus is
// counted: a line is read, changed and written back, none is read only to be overwritten. The best
// of some passes, each as slow as its slowest rank. Collective; all ranks on one host; the smallest
// array_bytes counts.
double measure_memory_bytes_per_s(const BenchSubject& subject, std::int64_t array_bytes);

// Bytes of each rank's array that no cache holds: all arrays together have twice the last cache's
// size, and 256 MiB at least, where an eighth of the free memory allows it.
std::int64_t memory_limit_array_bytes(int ranks);

}  // namespace trireme
