// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/host.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>
#include <system_error>

#include "trireme/topology/cgroup.h"
#include "trireme/topology/kernel_files.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// The units that decide how fast training is, as the kernel names them.
constexpr std::array<std::string_view, 15> kFeatures = {
    "avx2",        "fma",         "f16c",        "avx512f",  "avx512bw",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "asimd",       "asimdhp",     "sve",         "sve2",     "bf16"};

std::optional<std::int64_t> kib_field(const std::map<std::string, std::string>& fields,
                                      const std::string& name) {
  const auto found = fields.find(name);
  if (found == fields.end()) return std::nullopt;
  const std::vector<std::string> words = detail::split_words(found->second);
  if (words.size() != 2 || words[1] != "kB") return std::nullopt;
  const auto kib = detail::parse_integer(words[0]);
  if (!kib) return std::nullopt;
  return *kib * 1024;
}

int count_of(const std::string& cpu_list) {
  const auto cpus = detail::parse_cpu_list(cpu_list);
  return cpus ? static_cast<int>(cpus->size()) : 0;
}

std::string field(const std::map<std::string, std::string>& fields, const std::string& name) {
  const auto found = fields.find(name);
  return found == fields.end() ? std::string() : found->second;
}

// Folders of a folder, whose names start with prefix and go on in a number; by number.
std::vector<std::pair<int, fs::path>> numbered_folders(const fs::path& parent,
                                                       std::string_view prefix) {
  std::vector<std::pair<int, fs::path>> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    const auto number = detail::parse_integer(std::string_view(name).substr(prefix.size()));
    if (number) found.emplace_back(static_cast<int>(*number), entry.path());
  }
  std::ranges::sort(found);
  return found;
}

// ARM kernels give numbers instead of a name.
std::string cpu_model(const std::map<std::string, std::string>& cpuinfo) {
  std::string name = field(cpuinfo, "model name");
  const std::string part = field(cpuinfo, "CPU part");
  if (!name.empty() || part.empty()) return name;
  return fmt::format("implementer {} part {}", field(cpuinfo, "CPU implementer"), part);
}

void count_cores(CpuInfo& cpu, const fs::path& root) {
  std::set<std::int64_t> sockets;
  std::set<std::pair<std::int64_t, std::int64_t>> cores;
  for (const auto& [number, folder] : numbered_folders(root / "sys/devices/system/cpu", "cpu")) {
    const auto socket =
        detail::parse_integer(detail::read_line(folder / "topology/physical_package_id"));
    const auto core = detail::parse_integer(detail::read_line(folder / "topology/core_id"));
    if (!socket || !core) continue;  // offline
    sockets.insert(*socket);
    cores.emplace(*socket, *core);
  }
  cpu.sockets = static_cast<int>(sockets.size());
  cpu.physical_cores = static_cast<int>(cores.size());
  cpu.logical_cores = count_of(detail::read_line(root / "sys/devices/system/cpu/online"));
}

CpuInfo read_cpu(const fs::path& root, const detail::CgroupLimits& limits) {
  const auto cpuinfo = detail::read_fields(root / "proc/cpuinfo");
  CpuInfo cpu;
  cpu.model = cpu_model(cpuinfo);
  const std::string flags = field(cpuinfo, cpuinfo.contains("flags") ? "flags" : "Features");
  for (const std::string& flag : detail::split_words(flags)) {
    if (std::ranges::find(kFeatures, flag) != kFeatures.end()) cpu.features.push_back(flag);
  }
  count_cores(cpu, root);
  cpu.allowed_cores =
      count_of(field(detail::read_fields(root / "proc/self/status"), "Cpus_allowed_list"));
  cpu.quota_cores = limits.quota_cores;
  cpu.usable_cores = cpu.allowed_cores > 0 ? cpu.allowed_cores : cpu.logical_cores;
  if (cpu.quota_cores) {
    cpu.usable_cores =
        std::clamp(static_cast<int>(std::floor(*cpu.quota_cores)), 1, cpu.usable_cores);
  }
  return cpu;
}

std::vector<NumaNode> read_numa_nodes(const fs::path& root) {
  std::vector<NumaNode> nodes;
  for (const auto& [id, folder] : numbered_folders(root / "sys/devices/system/node", "node")) {
    NumaNode node;
    node.id = id;
    node.logical_cores = count_of(detail::read_line(folder / "cpulist"));
    // Here the names are "Node 0 MemTotal".
    const auto fields = detail::read_fields(folder / "meminfo");
    node.memory_bytes = kib_field(fields, fmt::format("Node {} MemTotal", id)).value_or(0);
    nodes.push_back(node);
  }
  return nodes;
}

// "always [madvise] never" -> "madvise".
std::string chosen_word(const std::string& words) {
  const std::size_t open = words.find('[');
  const std::size_t close = words.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  return words.substr(open + 1, close - open - 1);
}

MemoryInfo read_memory(const fs::path& root, const detail::CgroupLimits& limits) {
  const auto meminfo = detail::read_fields(root / "proc/meminfo");
  MemoryInfo memory;
  memory.total_bytes = kib_field(meminfo, "MemTotal").value_or(0);
  memory.available_bytes = kib_field(meminfo, "MemAvailable").value_or(0);
  memory.cgroup_limit_bytes = limits.memory_bytes;
  memory.cgroup_in_use_bytes = limits.memory_in_use_bytes;
  memory.transparent_huge_pages =
      chosen_word(detail::read_line(root / "sys/kernel/mm/transparent_hugepage/enabled"));
  memory.huge_pages = detail::parse_integer(field(meminfo, "HugePages_Total")).value_or(0);
  memory.huge_page_bytes = kib_field(meminfo, "Hugepagesize").value_or(0);
  struct statvfs shm {};
  if (statvfs((root / "dev/shm").c_str(), &shm) == 0) {
    memory.shm_total_bytes = static_cast<std::int64_t>(shm.f_blocks * shm.f_frsize);
    memory.shm_available_bytes = static_cast<std::int64_t>(shm.f_bavail * shm.f_frsize);
  }
  return memory;
}

// "Max open files            20000                20000                files": the name ends at two
// spaces, the soft limit follows.
Limits read_limits(const fs::path& root) {
  const std::string text = detail::read_file(root / "proc/self/limits");
  const auto soft = [&](std::string_view name) -> std::optional<std::int64_t> {
    for (const std::string_view line : detail::split_lines(text)) {
      if (!line.starts_with(name)) continue;
      const std::vector<std::string> values = detail::split_words(line.substr(name.size()));
      return values.empty() ? std::nullopt : detail::parse_integer(values.front());
    }
    return 0;
  };
  return {soft("Max open files "), soft("Max locked memory ")};
}

std::vector<NetworkInterface> read_interfaces(const fs::path& root) {
  std::vector<NetworkInterface> interfaces;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(root / "sys/class/net", error)) {
    if (!entry.is_directory(error)) continue;  // bonding_masters is a file
    const fs::path& folder = entry.path();
    NetworkInterface found;
    found.name = folder.filename().string();
    const std::string flags = detail::read_line(folder / "flags");  // hexadecimal, "0x1003"
    const unsigned long bits = std::strtoul(flags.c_str(), nullptr, 16);
    found.up = (bits & IFF_UP) != 0;
    found.loopback = (bits & IFF_LOOPBACK) != 0;
    found.mtu_bytes =
        static_cast<int>(detail::parse_integer(detail::read_line(folder / "mtu")).value_or(0));
    const auto speed = detail::parse_integer(detail::read_line(folder / "speed"));
    found.speed_mbit_per_s = std::max<std::int64_t>(0, speed.value_or(0));  // -1: not known
    interfaces.push_back(found);
  }
  std::ranges::sort(interfaces, {}, &NetworkInterface::name);
  return interfaces;
}

std::string address_text(const sockaddr& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.sa_family == AF_INET) {
    const auto& ip4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &ip4.sin_addr, text, sizeof text);
  } else if (address.sa_family == AF_INET6) {
    const auto& ip6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &ip6.sin6_addr, text, sizeof text);
  }
  return text;
}

// By IPv4, then IPv6.
void add_addresses(std::vector<NetworkInterface>& interfaces) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != family) continue;
      const auto found = std::ranges::find(interfaces, entry->ifa_name, &NetworkInterface::name);
      if (found != interfaces.end()) found->addresses.push_back(address_text(*entry->ifa_addr));
    }
  }
  freeifaddrs(list);
}

}  // namespace

HostInfo read_host(const fs::path& root) {
  const detail::CgroupLimits limits = detail::read_cgroup_limits(root);
  HostInfo host;
  host.name = detail::read_line(root / "proc/sys/kernel/hostname");
  host.kernel = detail::read_line(root / "proc/sys/kernel/osrelease");
  host.boot_id = detail::read_line(root / "proc/sys/kernel/random/boot_id");
  host.cpu = read_cpu(root, limits);
  host.numa_nodes = read_numa_nodes(root);
  host.memory = read_memory(root, limits);
  host.limits = read_limits(root);
  host.interfaces = read_interfaces(root);
  return host;
}

int usable_cores() {
  const fs::path root = "/";
  return std::max(1, read_cpu(root, detail::read_cgroup_limits(root)).usable_cores);
}

HostInfo this_host() {
  HostInfo host = read_host("/");
  add_addresses(host.interfaces);
  return host;
}

}  // namespace trireme
