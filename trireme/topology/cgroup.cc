// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/cgroup.h"

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/topology/kernel_files.h"

namespace trireme::detail {
namespace {

namespace fs = std::filesystem;

// Without a limit version 1 shows the largest number of pages that fits 63 bits, in bytes. No
// machine has a quarter of that.
constexpr std::int64_t kNoLimitBytes = std::int64_t{1} << 61;

void tighten_cores(CgroupLimits& limits, std::optional<std::int64_t> quota_us,
                   std::optional<std::int64_t> period_us) {
  if (!quota_us || !period_us || *quota_us <= 0 || *period_us <= 0) return;
  const double cores = static_cast<double>(*quota_us) / static_cast<double>(*period_us);
  limits.quota_cores = std::min(limits.quota_cores.value_or(cores), cores);
}

void tighten_memory(CgroupLimits& limits, std::optional<std::int64_t> bytes,
                    std::optional<std::int64_t> in_use) {
  if (!bytes || *bytes >= kNoLimitBytes) return;
  if (limits.memory_bytes && *limits.memory_bytes <= *bytes) return;
  limits.memory_bytes = bytes;
  limits.memory_in_use_bytes = in_use;
}

std::optional<std::int64_t> read_integer(const fs::path& path) {
  return parse_integer(read_line(path));
}

// cpu.max holds "quota period" or "max period"; memory.max a number or "max".
void read_version_2(CgroupLimits& limits, const fs::path& group) {
  const std::vector<std::string> quota = split_words(read_line(group / "cpu.max"));
  if (quota.size() == 2) {
    tighten_cores(limits, parse_integer(quota[0]), parse_integer(quota[1]));
  }
  tighten_memory(limits, read_integer(group / "memory.max"),
                 read_integer(group / "memory.current"));
}

void read_version_1_cpu(CgroupLimits& limits, const fs::path& group) {
  tighten_cores(limits, read_integer(group / "cpu.cfs_quota_us"),
                read_integer(group / "cpu.cfs_period_us"));
}

void read_version_1_memory(CgroupLimits& limits, const fs::path& group) {
  tighten_memory(limits, read_integer(group / "memory.limit_in_bytes"),
                 read_integer(group / "memory.usage_in_bytes"));
}

using Reader = void (*)(CgroupLimits&, const fs::path&);

// The group and every one above it. In a container the path may be the host's and lead nowhere; the
// mount point itself, which comes last, is then the container's own group.
void walk_up(CgroupLimits& limits, const fs::path& mount, fs::path group, Reader read) {
  for (; group.has_relative_path(); group = group.parent_path()) {
    read(limits, mount / group.relative_path());
  }
  read(limits, mount);
}

bool names(std::string_view controllers, std::string_view wanted) {
  while (!controllers.empty()) {
    const std::size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == wanted) return true;
    controllers =
        comma == std::string_view::npos ? std::string_view() : controllers.substr(comma + 1);
  }
  return false;
}

}  // namespace

CgroupLimits read_cgroup_limits(const fs::path& root) {
  CgroupLimits limits;
  const fs::path mounts = root / "sys/fs/cgroup";
  const std::string text = read_file(root / "proc/self/cgroup");
  for (const std::string_view line : split_lines(text)) {  // "4:memory:/path", "0::/path"
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const fs::path group(line.substr(second + 1));
    if (controllers.empty()) walk_up(limits, mounts, group, read_version_2);
    if (names(controllers, "cpu")) walk_up(limits, mounts / "cpu", group, read_version_1_cpu);
    if (names(controllers, "memory")) {
      walk_up(limits, mounts / "memory", group, read_version_1_memory);
    }
  }
  return limits;
}

}  // namespace trireme::detail
