// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the control groups of this process leave it of the machine. Version 1, version 2 and the
// mixture of both; in a container or outside.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace trireme::detail {

struct CgroupLimits {
  std::optional<double> quota_cores;
  std::optional<std::int64_t> memory_bytes;
  std::optional<std::int64_t> memory_in_use_bytes;  // by the group that sets the limit
};

// Reads root/proc/self/cgroup and the groups that it names, with all above them: the tightest limit
// holds.
CgroupLimits read_cgroup_limits(const std::filesystem::path& root);

}  // namespace trireme::detail
