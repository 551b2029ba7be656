// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trireme/checkpoint/atomic_file.h"

namespace trireme {
namespace {

std::string grouped(std::string digits) {
  const std::size_t first = digits.starts_with('-') ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

struct TextWriter {
  // Numbers from here on are shown without decimals, which would be noise; up to where a double
  // still holds every integer.
  static constexpr double kWhole = 1e6;
  static constexpr double kExact = 9007199254740992.0;  // 2^53

  std::string operator()(bool value) const { return value ? "yes" : "no"; }
  std::string operator()(std::int64_t value) const { return grouped(fmt::format("{}", value)); }
  std::string operator()(double value) const {
    const double size = std::abs(value);
    return size >= kWhole && size <= kExact ? grouped(fmt::format("{:.0f}", value))
                                            : fmt::format("{:.6g}", value);
  }
  std::string operator()(const std::string& value) const { return value; }
};

}  // namespace

void write_summary(const std::string& path, const Fields& fields) {
  std::string text = "{";
  for (const auto& [name, value] : fields) {
    text += fmt::format("{}\n  {}: {}", text.size() > 1 ? "," : "", to_json(name), to_json(value));
  }
  write_file_atomically(path, text + "\n}\n");
}

std::string format_table(const Fields& fields) {
  std::size_t width = 0;
  for (const auto& [name, value] : fields) {
    width = std::max(width, name.size());
  }
  std::string table;
  for (const auto& [name, value] : fields) {
    table += fmt::format("  {:<{}}  {}\n", name, width, std::visit(TextWriter(), value));
  }
  return table;
}

}  // namespace trireme
