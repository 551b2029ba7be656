// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The CPU quota of this process's control group, which limits its threads as much as the affinity
// mask does: containers usually set only the quota.
#pragma once

#include <optional>
#include <string>

namespace trireme::detail {

// Cores' worth of CPU time that the control groups named in membership (the text of
// /proc/self/cgroup) and their parents allow, the smallest of them; none without a quota. root:
// where the control groups are mounted, normally /sys/fs/cgroup. Knows version 1 (cpu.cfs_quota_us)
// and 2 (cpu.max).
std::optional<double> cpu_quota(const std::string& membership, const std::string& root);

}  // namespace trireme::detail
