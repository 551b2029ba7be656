// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Asking for memory before it is needed. Internal to the tables.
#pragma once

namespace trireme::ps {

// The cache line at this address, which need not be readable. The empty statement is an effect:
// GCC takes a function that only prefetches for one without, and leaves its calls out.
[[gnu::always_inline]] inline void prefetch_line(const void* address) {
  __builtin_prefetch(address);
  asm volatile("");
}

}  // namespace trireme::ps
