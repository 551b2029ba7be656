// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Files that are whole or not there: written under a temporary name beside the target, fsynced,
// renamed, folder fsynced.
#pragma once

#include <string>
#include <string_view>

namespace trireme {

// Replaces or creates path with content. Throws CheckpointError with the system's reason; path is
// then as it was.
void write_file_atomically(const std::string& path, std::string_view content);

// fsyncs a folder, so that renames inside it last. Throws CheckpointError.
void sync_folder(const std::string& path);

}  // namespace trireme
