// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/sizes.h"

#include <fmt/core.h>

#include <charconv>
#include <limits>
#include <utility>

#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr std::pair<std::string_view, int> kUnits[] = {
    {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}};

}  // namespace

std::int64_t parse_bytes(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty()) unit = "B";
  for (const auto& [name, shift] : kUnits) {
    const bool fits = number <= (std::numeric_limits<std::int64_t>::max() >> shift);
    if (error == std::errc() && number > 0 && name == unit && fits) return number << shift;
  }
  throw_error<ConfigError>("'{}' is no size; sizes are like 4, 4KiB, 64MiB or 1GiB", text);
}

std::string format_bytes(std::int64_t bytes) {
  for (const auto& [name, shift] : kUnits) {
    const std::int64_t unit = std::int64_t{1} << shift;
    if (bytes >= unit && bytes % unit == 0) return fmt::format("{} {}", bytes / unit, name);
  }
  return fmt::format("{} B", bytes);
}

}  // namespace trireme
