// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models that others publish figures of, by name, for benchmarks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/nn/model_config.h"

namespace trireme {

std::vector<std::string> known_model_names();

// Resolved, for samples of context tokens (learned positions: as many). Throws ConfigError with the
// names that there are.
nn::ModelConfig known_model(std::string_view name, std::int64_t context);

}  // namespace trireme
