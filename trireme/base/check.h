// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Checks of Trireme's own invariants. They are always on and throw InternalError. What a user can
// cause is never checked here: that is one of the errors of error.h.
//
//   TRIREME_ASSERT(!buckets.empty(), "a step has gradients");
//   TRIREME_CHECK_EQ(received_bytes, expected_bytes, "frame {}", sequence);
#pragma once

#include <fmt/format.h>

#include <string>
#include <type_traits>

#include "trireme/base/error.h"

#define TRIREME_ASSERT(condition, ...)                                    \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      ::trireme::detail::assertion_failed(#condition, __FILE__, __LINE__, \
                                          ::fmt::format(__VA_ARGS__));    \
    }                                                                     \
  } while (false)

#define TRIREME_CHECK_OP_(left, op, right, ...)                                                 \
  do {                                                                                          \
    const auto& trireme_left = (left);                                                          \
    const auto& trireme_right = (right);                                                        \
    if (!(trireme_left op trireme_right)) [[unlikely]] {                                        \
      ::trireme::detail::assertion_failed(                                                      \
          ::fmt::format("{} ({}) " #op " {} ({})", #left, trireme_left, #right, trireme_right), \
          __FILE__, __LINE__, ::fmt::format(__VA_ARGS__));                                      \
    }                                                                                           \
  } while (false)

// Both values are printed.
#define TRIREME_CHECK_EQ(left, right, ...) TRIREME_CHECK_OP_(left, ==, right, __VA_ARGS__)
#define TRIREME_CHECK_LE(left, right, ...) TRIREME_CHECK_OP_(left, <=, right, __VA_ARGS__)
#define TRIREME_CHECK_LT(left, right, ...) TRIREME_CHECK_OP_(left, <, right, __VA_ARGS__)

namespace trireme::detail {

[[noreturn]] void assertion_failed(const std::string& expression, const char* file, int line,
                                   const std::string& message);

}  // namespace trireme::detail
