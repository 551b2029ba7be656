// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How near a mistyped word is to a known one. Not for other layers; they call nearest_word().
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace trireme::detail {

// Characters inserted, deleted, substituted or swapped with their neighbour.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The smaller, the more alike; nothing where known can hardly be meant. Case does not count. Words
// that differ by at most a third of their letters come before words that contain one another.
std::optional<std::size_t> likeness(std::string_view word, std::string_view known);

}  // namespace trireme::detail
