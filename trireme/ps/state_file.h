// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Files of ranges' states, which make a snapshot (snapshot.h).
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "trireme/ps/range_storage.h"

namespace trireme::ps {

// Of files that are not whole yet. Who is killed leaves them behind.
inline constexpr std::string_view kUnfinishedSuffix = ".unfinished";

// Who gives a state, in parts of some size, as RangeStorage::export_state().
using StateParts = std::function<void(const std::function<void(Bytes)>& take)>;

// Writes the file and waits until it lasts. Returns its digest. It is whole as soon as it is there;
// the first whole one stays: who is asked again, or writes late in the place of a server that was
// lost, gets the digest of what is there. Throws CheckpointError.
std::string write_state_file(const std::string& path, const StateParts& state);
// All of it, into memory that make gives for so many bytes. Throws CheckpointError for a file that
// is missing, or of another digest.
void read_state_file(const std::string& path, const std::string& digest,
                     const std::function<std::span<std::byte>(std::size_t)>& make);

}  // namespace trireme::ps
