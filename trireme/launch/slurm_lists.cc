// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/slurm_lists.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr int kMostNodes = 1'000'000;

[[noreturn]] void refuse(std::string_view variable, std::string_view list, std::string_view why) {
  throw_error<ConfigError>("{}={}: {}", variable, list, why);
}

// Digits only, so neither signs nor spaces pass.
std::optional<std::uint64_t> parse_digits(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Up to the first comma; the rest moves on behind it.
std::string_view take_item(std::string_view& rest) {
  const std::size_t comma = rest.find(',');
  const std::string_view item = rest.substr(0, comma);
  rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  return item;
}

// "003-005,7" holds; returns "003", the number as it is written.
std::string_view first_of_ranges(std::string_view ranges, std::string_view variable,
                                 std::string_view list) {
  const std::string_view first = ranges.substr(0, ranges.find_first_of("-,"));
  if (ranges.empty() || ranges.back() == ',') refuse(variable, list, "empty number in brackets");
  while (!ranges.empty()) {
    const std::string_view item = take_item(ranges);
    const std::size_t dash = item.find('-');
    const auto low = parse_digits(item.substr(0, dash));
    const auto high = dash == std::string_view::npos ? low : parse_digits(item.substr(dash + 1));
    if (!low || !high) refuse(variable, list, "brackets hold something that is not a number");
    if (*high < *low) refuse(variable, list, "a range in brackets descends");
  }
  return first;
}

}  // namespace

std::string first_slurm_host(std::string_view list, std::string_view variable) {
  std::string host;
  std::string_view rest = list;
  while (!rest.empty() && rest.front() != ',') {
    const std::size_t special = rest.find_first_of("[],");
    host += rest.substr(0, special);
    if (special == std::string_view::npos) break;
    rest.remove_prefix(special);
    if (rest.front() == ']') refuse(variable, list, "a bracket closes that was not opened");
    if (rest.front() == ',') break;
    const std::size_t close = rest.find(']');
    if (close == std::string_view::npos) refuse(variable, list, "a bracket does not close");
    host += first_of_ranges(rest.substr(1, close - 1), variable, list);
    rest.remove_prefix(close + 1);
  }
  if (host.empty()) refuse(variable, list, "expected a list of hosts");
  return host;
}

std::vector<int> slurm_task_counts(std::string_view list, std::string_view variable) {
  std::vector<int> counts;
  if (list.empty() || list.back() == ',') refuse(variable, list, "expected counts such as 2(x3),1");
  std::string_view rest = list;
  while (!rest.empty()) {
    std::string_view item = take_item(rest);
    std::uint64_t repeat = 1;
    if (const std::size_t open = item.find("(x"); open != std::string_view::npos) {
      const auto times = item.back() == ')'
                             ? parse_digits(item.substr(open + 2, item.size() - open - 3))
                             : std::nullopt;
      if (!times) refuse(variable, list, "expected counts such as 2(x3),1");
      repeat = *times;
      item = item.substr(0, open);
    }
    const auto count = parse_digits(item);
    if (!count || *count == 0 || *count > kMostNodes || repeat == 0) {
      refuse(variable, list, "expected counts such as 2(x3),1");
    }
    if (repeat > kMostNodes - counts.size()) refuse(variable, list, "more than a million nodes");
    counts.insert(counts.end(), repeat, static_cast<int>(*count));
  }
  return counts;
}

}  // namespace trireme
