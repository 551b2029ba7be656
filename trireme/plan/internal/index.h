// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <cstddef>

namespace trireme::plan {

// A rank, stage or micro-batch as a position in a vector.
constexpr std::size_t index(int number) { return static_cast<std::size_t>(number); }

}  // namespace trireme::plan
