// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What machine is this? Processors, memory, limits and network of the host, as the kernel tells
// them, containers included.
//
//   const HostInfo host = this_host();
//   if (host.cpu.usable_cores < workers) log_warn("{} workers share {} cores", ...);
//   for (const auto& [what, value] : describe(host)) fmt::print("{:<16} {}\n", what, value);
//
// What the kernel does not tell is 0, empty or nothing, and describe() says "unknown".
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

struct CpuInfo {
  std::string model;
  std::vector<std::string> features;  // vector and matrix units only: "avx2", "amx_bf16", "sve"
  int sockets = 0;
  int physical_cores = 0;
  int logical_cores = 0;  // online
  int allowed_cores = 0;  // of these, what this process may run on (taskset, cpuset)
  // Processor time that the cgroup grants, in cores; nothing where it sets no limit.
  std::optional<double> quota_cores;
  // What threads are worth starting for: the allowed ones, or the quota rounded down where that is
  // less (a thread above the quota makes all of them wait when the period's time is used up).
  int usable_cores = 0;
};

struct NumaNode {
  int id = 0;
  int logical_cores = 0;
  std::int64_t memory_bytes = 0;
};

struct MemoryInfo {
  std::int64_t total_bytes = 0;
  std::int64_t available_bytes = 0;
  std::optional<std::int64_t> cgroup_limit_bytes;   // the tightest up to the root
  std::optional<std::int64_t> cgroup_in_use_bytes;  // by the group that sets it
  std::string transparent_huge_pages;               // "always", "madvise", "never"
  std::int64_t huge_pages = 0;                      // reserved, of huge_page_bytes each
  std::int64_t huge_page_bytes = 0;
  std::int64_t shm_total_bytes = 0;  // /dev/shm
  std::int64_t shm_available_bytes = 0;
};

struct NetworkInterface {
  std::string name;
  bool up = false;
  bool loopback = false;
  int mtu_bytes = 0;
  std::int64_t speed_mbit_per_s = 0;   // 0: virtual, or not told
  std::vector<std::string> addresses;  // IPv4, then IPv6
};

// A limit of this process; nothing means unlimited.
struct Limits {
  std::optional<std::int64_t> open_files;
  std::optional<std::int64_t> locked_memory_bytes;
};

struct HostInfo {
  std::string name;
  std::string kernel;   // release
  std::string boot_id;  // equal in two processes only if they run on the same booted machine
  CpuInfo cpu;
  std::vector<NumaNode> numa_nodes;
  MemoryInfo memory;
  Limits limits;
  std::vector<NetworkInterface> interfaces;  // by name
};

// Reads proc, sys and dev/shm below root. Reads only; files that are missing leave their fields
// unknown. Addresses are not in files and stay empty.
HostInfo read_host(const std::filesystem::path& root);

// read_host("/") with the addresses of the interfaces.
HostInfo this_host();

// this_host().cpu.usable_cores, without reading the rest.
int usable_cores();

// One pair per line to print: what, and its value in words.
std::vector<std::pair<std::string, std::string>> describe(const HostInfo& host);

}  // namespace trireme
