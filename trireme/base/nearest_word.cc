// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/internal/nearest_word.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "trireme/base/config.h"

namespace trireme {
namespace detail {
namespace {

std::string lower(std::string_view word) {
  std::string result(word);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace

// Insertions, deletions, substitutions and swaps of neighbours cost 1 each (optimal string
// alignment), by three rows of the usual table.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, substituted});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

std::optional<std::size_t> likeness(std::string_view word, std::string_view known) {
  // Words shorter than this hold too little for "one contains the other" to mean anything.
  constexpr std::size_t kMinContained = 4;
  constexpr std::size_t kContained = 1000;

  const std::string a = lower(word);
  const std::string b = lower(known);
  const std::size_t distance = edit_distance(a, b);
  const std::size_t limit = std::max<std::size_t>(1, std::max(a.size(), b.size()) / 3);
  if (distance <= limit && distance < std::max(a.size(), b.size())) return distance;
  const std::string& longer = a.size() < b.size() ? b : a;
  const std::string& shorter = a.size() < b.size() ? a : b;
  if (shorter.size() >= kMinContained && longer.find(shorter) != std::string::npos) {
    return kContained + longer.size() - shorter.size();
  }
  return std::nullopt;
}

}  // namespace detail

std::optional<std::string> nearest_word(std::string_view word,
                                        const std::vector<std::string>& known) {
  std::optional<std::size_t> best;
  std::optional<std::string> result;
  for (const std::string& candidate : known) {
    const auto distance = detail::likeness(word, candidate);
    if (distance && (!best || *distance < *best)) {
      best = distance;
      result = candidate;
    }
  }
  return result;
}

}  // namespace trireme
