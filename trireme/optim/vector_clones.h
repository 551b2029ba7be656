// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Marks a function that is compiled for several vector widths of x86-64, one of which is chosen at
// load time. All give the same bits where each operation is correctly rounded and none is
// contracted or reordered: CMakeLists.txt sets -ffp-contract=off for the files that use it. What
// such a function calls must be inlined into it ([[gnu::always_inline]]) to be compiled so.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TRIREME_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TRIREME_VECTOR_CLONES
#endif
