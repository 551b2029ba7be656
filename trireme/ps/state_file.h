// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Files of ranges' states, which make a snapshot (snapshot.h).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace trireme::ps {

// Writes the file, which must not exist, and waits until it lasts. Returns its digest. Throws
// CheckpointError.
std::string write_state_file(const std::string& path, std::span<const std::byte> state);
// Throws CheckpointError for a file that is missing, or of another digest.
std::vector<std::byte> read_state_file(const std::string& path, const std::string& digest);

}  // namespace trireme::ps
