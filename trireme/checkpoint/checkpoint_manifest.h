// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The text of checkpoint.json. Shared by the reader and the writer of checkpoint.h; not for users.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"

namespace trireme::checkpoint_detail {

inline constexpr std::string_view kManifestName = "checkpoint.json";
// Larger manifests are neither written nor read.
inline constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{16} << 20;

struct Manifest {
  std::int64_t step = 0;
  CheckpointState state;
  std::vector<CheckpointFile> files;
};

// Throws ConfigError when state is not UTF-8 or the text would be too large.
std::string render_manifest(const Manifest& manifest);

// path stands for the file in messages. Throws CheckpointError: not a manifest, a newer version,
// bytes that its own digest contradicts, names that are not plain file names.
Manifest parse_manifest(std::string_view text, const std::string& path);

// Whether name can be a file inside a checkpoint: no folder, nothing special, not the manifest.
bool is_plain_file_name(std::string_view name);

}  // namespace trireme::checkpoint_detail
