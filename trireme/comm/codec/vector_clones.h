// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TRIREME_VECTOR_CLONES before a function compiles it once per vector width; the program picks one
// when it starts. The bits are the same in each as long as the file is built with
// -ffp-contract=off and sums have a fixed order. TRIREME_INLINE is for what such functions call.
#pragma once

// The sanitizers' start-up code cannot run before the resolvers of the clones do.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define TRIREME_VECTOR_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TRIREME_VECTOR_CLONES
#endif
#define TRIREME_INLINE inline __attribute__((always_inline))
