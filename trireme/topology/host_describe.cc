// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The words for a HostInfo.

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "trireme/topology/host.h"

namespace trireme {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

std::string or_unknown(const std::string& text) { return text.empty() ? "unknown" : text; }

std::string gib(std::int64_t bytes) {
  return bytes > 0 ? fmt::format("{:.1f} GiB", static_cast<double>(bytes) / kGib) : "unknown";
}

// Of a limit: nothing is no limit, 0 is not told.
std::string limit(const std::optional<std::int64_t>& value, std::string_view unit) {
  if (!value) return "unlimited";
  return *value > 0 ? fmt::format("{}{}", *value, unit) : "unknown";
}

std::string processor(const CpuInfo& cpu) {
  std::string text = or_unknown(cpu.model);
  if (!cpu.features.empty()) text += fmt::format(" ({})", fmt::join(cpu.features, " "));
  return text;
}

std::string cores(const CpuInfo& cpu) {
  std::string text = fmt::format("{} usable of {} logical", cpu.usable_cores, cpu.logical_cores);
  if (cpu.physical_cores > 0) {
    text += fmt::format(", {} physical on {} socket{}", cpu.physical_cores, cpu.sockets,
                        cpu.sockets == 1 ? "" : "s");
  }
  if (cpu.allowed_cores < cpu.logical_cores) text += fmt::format(", {} allowed", cpu.allowed_cores);
  if (cpu.quota_cores) text += fmt::format(", quota of {:.2f}", *cpu.quota_cores);
  return text;
}

std::string numa(const std::vector<NumaNode>& nodes) {
  std::vector<std::string> parts;
  parts.reserve(nodes.size());
  for (const NumaNode& node : nodes) {
    parts.push_back(
        fmt::format("node {}: {} cores, {}", node.id, node.logical_cores, gib(node.memory_bytes)));
  }
  return or_unknown(fmt::format("{}", fmt::join(parts, "; ")));
}

std::string memory(const MemoryInfo& memory) {
  std::string text =
      fmt::format("{} available of {}", gib(memory.available_bytes), gib(memory.total_bytes));
  if (memory.cgroup_limit_bytes) {
    text += fmt::format(", limited to {}", gib(*memory.cgroup_limit_bytes));
    if (memory.cgroup_in_use_bytes) {
      text += fmt::format(" of which {} in use", gib(*memory.cgroup_in_use_bytes));
    }
  }
  return text;
}

std::string huge_pages(const MemoryInfo& memory) {
  std::string text = "transparent: " + or_unknown(memory.transparent_huge_pages);
  if (memory.huge_page_bytes > 0) {
    text +=
        fmt::format(", reserved: {} of {} KiB", memory.huge_pages, memory.huge_page_bytes / 1024);
  }
  return text;
}

std::string interface(const NetworkInterface& interface) {
  std::string text = interface.up ? "up" : "down";
  if (!interface.addresses.empty())
    text += fmt::format(", {}", fmt::join(interface.addresses, " "));
  if (interface.speed_mbit_per_s > 0) {
    text += fmt::format(", {} Mbit/s", interface.speed_mbit_per_s);
  } else if (!interface.loopback) {
    text += ", speed unknown";
  }
  return text + fmt::format(", MTU {}", interface.mtu_bytes);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> describe(const HostInfo& host) {
  std::vector<std::pair<std::string, std::string>> lines = {
      {"host", or_unknown(host.name)},
      {"kernel", or_unknown(host.kernel)},
      {"boot id", or_unknown(host.boot_id)},
      {"processor", processor(host.cpu)},
      {"cores", cores(host.cpu)},
      {"NUMA", numa(host.numa_nodes)},
      {"memory", memory(host.memory)},
      {"huge pages", huge_pages(host.memory)},
      {"/dev/shm", fmt::format("{} available of {}", gib(host.memory.shm_available_bytes),
                               gib(host.memory.shm_total_bytes))},
      {"open files", limit(host.limits.open_files, "")},
      {"locked memory", limit(host.limits.locked_memory_bytes, " bytes")},
  };
  for (const NetworkInterface& found : host.interfaces) {
    lines.emplace_back("network " + found.name, interface(found));
  }
  return lines;
}

}  // namespace trireme
