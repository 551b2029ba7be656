// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/protocol/view.h"

#include <fmt/format.h>

#include <charconv>

#include "trireme/base/error.h"

namespace trireme::ps {

Consistency Consistency::parse(const std::string& text) {
  if (text == "sync") return sync();
  if (text == "async") return async();
  constexpr std::string_view kPrefix = "bounded(";
  if (text.starts_with(kPrefix) && text.ends_with(')')) {
    const char* const end = text.data() + text.size() - 1;
    std::int64_t steps = 0;
    const auto result = std::from_chars(text.data() + kPrefix.size(), end, steps);
    if (result.ec == std::errc() && result.ptr == end && steps >= 0 && steps < kUnbounded) {
      return bounded(steps);
    }
  }
  throw_error<ConfigError>(
      "consistency '{}' is none: sync, async, or bounded(k), k being the number of steps that a "
      "worker may be ahead of the slowest, as in bounded(4)",
      text);
}

std::string Consistency::text() const {
  if (sums) return "sync";
  if (bound == kUnbounded) return "async";
  return fmt::format("bounded({})", bound);
}

}  // namespace trireme::ps
