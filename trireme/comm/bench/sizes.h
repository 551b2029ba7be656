// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Sizes as people write them: "4 B", "64 KiB", "256 MiB".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// "4096", "4096B", "4KiB", "64 MiB", "1GiB"; at least one byte. Throws ConfigError with the text.
std::int64_t parse_bytes(std::string_view text);

// With the largest unit that divides it: "64 MiB", "4100 B".
std::string format_bytes(std::int64_t bytes);

}  // namespace trireme
