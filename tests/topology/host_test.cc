// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/topology/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TemporaryFolder;

constexpr std::int64_t kGib = std::int64_t{1} << 30;

// A machine made of files.
class Tree {
 public:
  Tree& file(const std::string& path, const std::string& text) {
    testing::write_text(folder_ / path, text);
    return *this;
  }
  HostInfo read() const { return read_host(folder_.path()); }

 private:
  TemporaryFolder folder_;
};

void add_cpu(Tree& tree, int cpu, int socket, int core) {
  const std::string folder = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
  tree.file(folder + "physical_package_id", std::to_string(socket) + "\n");
  tree.file(folder + "core_id", std::to_string(core) + "\n");
}

// Two sockets of three cores with two threads each, cpu 11 offline, 7 cpus allowed.
void add_processors(Tree& tree) {
  for (int cpu = 0; cpu < 11; ++cpu) add_cpu(tree, cpu, cpu % 2, (cpu / 2) % 3);
  tree.file("sys/devices/system/cpu/cpu11/online", "0\n")
      .file("sys/devices/system/cpu/cpufreq/boost", "1\n")
      .file("sys/devices/system/cpu/online", "0-10\n")
      .file("proc/self/status", "Name:\tx\nCpus_allowed:\t7f\nCpus_allowed_list:\t0-4,7,9\n")
      .file("proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Example CPU 9000\nflags\t\t: fpu sse2 avx2 fma "
            "avx512f amx_tile\n\nprocessor\t: 1\nmodel name\t: Other\nflags\t\t: fpu\n");
}

TEST(Host, Processors) {
  Tree tree;
  add_processors(tree);
  const CpuInfo cpu = tree.read().cpu;
  EXPECT_EQ(cpu.model, "Example CPU 9000");
  EXPECT_THAT(cpu.features, ElementsAre("avx2", "fma", "avx512f", "amx_tile"));
  EXPECT_EQ(cpu.sockets, 2);
  EXPECT_EQ(cpu.physical_cores, 6);
  EXPECT_EQ(cpu.logical_cores, 11);
  EXPECT_EQ(cpu.allowed_cores, 7);
  EXPECT_EQ(cpu.quota_cores, std::nullopt);
  EXPECT_EQ(cpu.usable_cores, 7);
}

TEST(Host, ArmProcessorsHaveNumbersForNames) {
  Tree tree;
  tree.file("proc/cpuinfo",
            "processor\t: 0\nFeatures\t: fp asimd sve bf16 dcpop\nCPU implementer\t: 0x41\n"
            "CPU part\t: 0xd40\n");
  const CpuInfo cpu = tree.read().cpu;
  EXPECT_EQ(cpu.model, "implementer 0x41 part 0xd40");
  EXPECT_THAT(cpu.features, ElementsAre("asimd", "sve", "bf16"));
}

TEST(Host, NumaNodes) {
  Tree tree;
  const std::string base = "sys/devices/system/node/";
  tree.file(base + "node10/cpulist", "6-8\n")
      .file(base + "node10/meminfo", "Node 10 MemTotal:  3145728 kB\nNode 10 MemFree: 5 kB\n")
      .file(base + "node2/cpulist", "0,3\n")
      .file(base + "node2/meminfo", "Node 2 MemTotal:  1048576 kB\n")
      .file(base + "online", "2,10\n");
  const std::vector<NumaNode> nodes = tree.read().numa_nodes;
  ASSERT_EQ(nodes.size(), 2U);
  EXPECT_EQ(nodes[0].id, 2);
  EXPECT_EQ(nodes[0].logical_cores, 2);
  EXPECT_EQ(nodes[0].memory_bytes, kGib);
  EXPECT_EQ(nodes[1].id, 10);
  EXPECT_EQ(nodes[1].logical_cores, 3);
  EXPECT_EQ(nodes[1].memory_bytes, 3 * kGib);
}

TEST(Host, Memory) {
  Tree tree;
  tree.file("proc/meminfo",
            "MemTotal:       7340032 kB\nMemFree: 1 kB\nMemAvailable:   5242880 kB\n"
            "HugePages_Total:      13\nHugepagesize:       2048 kB\n")
      .file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
      .file("dev/shm/something", "x");
  const MemoryInfo memory = tree.read().memory;
  EXPECT_EQ(memory.total_bytes, 7 * kGib);
  EXPECT_EQ(memory.available_bytes, 5 * kGib);
  EXPECT_EQ(memory.cgroup_limit_bytes, std::nullopt);
  EXPECT_EQ(memory.transparent_huge_pages, "madvise");
  EXPECT_EQ(memory.huge_pages, 13);
  EXPECT_EQ(memory.huge_page_bytes, 2 << 20);
  EXPECT_GT(memory.shm_total_bytes, 0);
  EXPECT_GT(memory.shm_total_bytes, memory.shm_available_bytes - 1);
}

TEST(Host, LimitsOfTheProcess) {
  Tree tree;
  tree.file("proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n"
            "Max open files            20011                40000                files     \n"
            "Max locked memory         unlimited            unlimited            bytes     \n");
  EXPECT_EQ(tree.read().limits.open_files, 20011);
  EXPECT_EQ(tree.read().limits.locked_memory_bytes, std::nullopt);
  tree.file("proc/self/limits", "Max locked memory         65537       70000       bytes\n");
  EXPECT_EQ(tree.read().limits.locked_memory_bytes, 65537);
  EXPECT_EQ(tree.read().limits.open_files, 0);
}

TEST(Host, Interfaces) {
  Tree tree;
  tree.file("sys/class/net/lo/flags", "0x9\n")
      .file("sys/class/net/lo/mtu", "65536\n")
      .file("sys/class/net/eth1/flags", "0x1003\n")
      .file("sys/class/net/eth1/mtu", "9000\n")
      .file("sys/class/net/eth1/speed", "25000\n")
      .file("sys/class/net/eth0/flags", "0x1002\n")
      .file("sys/class/net/eth0/mtu", "1500\n")
      .file("sys/class/net/eth0/speed", "-1\n")
      .file("sys/class/net/bonding_masters", "bond0\n");
  const std::vector<NetworkInterface> found = tree.read().interfaces;
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].name, "eth0");
  EXPECT_FALSE(found[0].up);
  EXPECT_EQ(found[0].speed_mbit_per_s, 0);
  EXPECT_EQ(found[1].name, "eth1");
  EXPECT_TRUE(found[1].up);
  EXPECT_FALSE(found[1].loopback);
  EXPECT_EQ(found[1].mtu_bytes, 9000);
  EXPECT_EQ(found[1].speed_mbit_per_s, 25000);
  EXPECT_EQ(found[2].name, "lo");
  EXPECT_TRUE(found[2].loopback);
}

TEST(Host, CgroupVersion2TightestWins) {
  Tree tree;
  add_processors(tree);
  tree.file("proc/self/cgroup", "0::/jobs/job7/step0\n")
      .file("sys/fs/cgroup/jobs/job7/step0/cpu.max", "max 100000\n")
      .file("sys/fs/cgroup/jobs/job7/step0/memory.max", "5368709120\n")
      .file("sys/fs/cgroup/jobs/job7/step0/memory.current", "11\n")
      .file("sys/fs/cgroup/jobs/job7/cpu.max", "250000 100000\n")
      .file("sys/fs/cgroup/jobs/job7/memory.max", "3221225472\n")
      .file("sys/fs/cgroup/jobs/job7/memory.current", "1073741824\n")
      .file("sys/fs/cgroup/jobs/cpu.max", "600000 100000\n")
      .file("sys/fs/cgroup/jobs/memory.max", "max\n");
  const HostInfo host = tree.read();
  EXPECT_EQ(host.cpu.quota_cores, 2.5);
  EXPECT_EQ(host.cpu.usable_cores, 2) << "rounded down";
  EXPECT_EQ(host.memory.cgroup_limit_bytes, 3 * kGib);
  EXPECT_EQ(host.memory.cgroup_in_use_bytes, kGib);
}

// A container without a cgroup namespace: the path is the host's, the mount is its own group.
TEST(Host, CgroupOfAContainer) {
  Tree tree;
  tree.file("proc/self/cgroup", "0::/docker/abc\n")
      .file("sys/fs/cgroup/cpu.max", "150000 100000\n")
      .file("sys/fs/cgroup/memory.max", "2147483648\n");
  const HostInfo host = tree.read();
  EXPECT_EQ(host.cpu.quota_cores, 1.5);
  EXPECT_EQ(host.memory.cgroup_limit_bytes, 2 * kGib);
  EXPECT_EQ(host.memory.cgroup_in_use_bytes, std::nullopt);
}

TEST(Host, CgroupVersion1) {
  Tree tree;
  add_processors(tree);
  tree.file("proc/self/cgroup",
            "9:name=systemd:/\n5:cpuset:/other\n4:memory:/api/x\n2:cpu,cpuacct:/api\n0::/\n")
      .file("sys/fs/cgroup/memory/api/x/memory.limit_in_bytes", "4294967296\n")
      .file("sys/fs/cgroup/memory/api/x/memory.usage_in_bytes", "1073741824\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
      .file("sys/fs/cgroup/cpu/api/cpu.cfs_quota_us", "50000\n")
      .file("sys/fs/cgroup/cpu/api/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const HostInfo host = tree.read();
  EXPECT_EQ(host.cpu.quota_cores, 0.5);
  EXPECT_EQ(host.cpu.usable_cores, 1);
  EXPECT_EQ(host.memory.cgroup_limit_bytes, 4 * kGib);
  EXPECT_EQ(host.memory.cgroup_in_use_bytes, kGib);
}

TEST(Host, NoLimitInVersion1IsNoLimit) {
  Tree tree;
  tree.file("proc/self/cgroup", "4:memory:/\n2:cpu:/\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(tree.read().memory.cgroup_limit_bytes, std::nullopt);
  EXPECT_EQ(tree.read().cpu.quota_cores, std::nullopt);
}

TEST(Host, DamagedFilesLeaveFieldsUnknown) {
  Tree tree;
  tree.file("proc/cpuinfo", std::string("\0\xff:::\n:\n", 8))
      .file("proc/meminfo", "MemTotal: many kB\nMemAvailable: 5 MB\nHugepagesize:\n")
      .file("proc/self/status", "Cpus_allowed_list:\t5-1\n")
      .file("proc/self/cgroup", "nonsense\n0:\n::\n4:memory:\n")
      .file("proc/self/limits", "Max open files \nMax locked memory")
      .file("sys/devices/system/cpu/online", "0-99999999999\n")
      .file("sys/devices/system/cpu/cpu0/topology/core_id", "zero\n")
      .file("sys/kernel/mm/transparent_hugepage/enabled", "]always[\n")
      .file("sys/fs/cgroup/cpu.max", "100 0\n")
      .file("sys/class/net/eth0/mtu", "");
  const HostInfo host = tree.read();
  EXPECT_EQ(host.cpu.model, "");
  EXPECT_EQ(host.cpu.logical_cores, 0);
  EXPECT_EQ(host.cpu.allowed_cores, 0);
  EXPECT_EQ(host.cpu.physical_cores, 0);
  EXPECT_EQ(host.cpu.quota_cores, std::nullopt);
  EXPECT_EQ(host.memory.total_bytes, 0);
  EXPECT_EQ(host.memory.available_bytes, 0);
  EXPECT_EQ(host.memory.transparent_huge_pages, "");
  EXPECT_FALSE(describe(host).empty());
}

TEST(Host, AnEmptyMachineIsUnknown) {
  const HostInfo host = Tree().read();
  EXPECT_EQ(host.name, "");
  EXPECT_THAT(host.interfaces, IsEmpty());
  EXPECT_THAT(host.numa_nodes, IsEmpty());
  const auto lines = describe(host);
  const std::map<std::string, std::string> by_name(lines.begin(), lines.end());
  EXPECT_EQ(by_name.at("processor"), "unknown");
  EXPECT_EQ(by_name.at("NUMA"), "unknown");
  EXPECT_EQ(by_name.at("open files"), "unknown");
}

TEST(Host, InWords) {
  HostInfo host;
  host.name = "n1";
  host.cpu = {"Example", {"avx2", "fma"}, 2, 6, 12, 7, 2.5, 3};
  host.numa_nodes = {{0, 5, kGib}, {1, 7, 2 * kGib}};
  host.memory.total_bytes = 7 * kGib;
  host.memory.available_bytes = 5 * kGib;
  host.memory.cgroup_limit_bytes = 3 * kGib;
  host.memory.cgroup_in_use_bytes = kGib;
  host.limits.open_files = 1024;
  host.interfaces = {{"eth0", true, false, 1500, 10000, {"192.0.2.7", "2001:db8::7"}}};
  const auto lines = describe(host);
  const std::map<std::string, std::string> by_name(lines.begin(), lines.end());
  EXPECT_EQ(by_name.at("host"), "n1");
  EXPECT_EQ(by_name.at("processor"), "Example (avx2 fma)");
  EXPECT_EQ(by_name.at("cores"),
            "3 usable of 12 logical, 6 physical on 2 sockets, 7 allowed, quota of 2.50");
  EXPECT_EQ(by_name.at("NUMA"), "node 0: 5 cores, 1.0 GiB; node 1: 7 cores, 2.0 GiB");
  EXPECT_EQ(by_name.at("memory"),
            "5.0 GiB available of 7.0 GiB, limited to 3.0 GiB of which 1.0 GiB in use");
  EXPECT_EQ(by_name.at("open files"), "1024");
  EXPECT_EQ(by_name.at("locked memory"), "unlimited");
  EXPECT_EQ(by_name.at("network eth0"), "up, 192.0.2.7 2001:db8::7, 10000 Mbit/s, MTU 1500");
}

// Against what the C library says about the machine that runs the test.
TEST(Host, ThisHost) {
  const HostInfo host = this_host();
  char name[256] = "";
  ASSERT_EQ(gethostname(name, sizeof name), 0);
  EXPECT_EQ(host.name, name);
  EXPECT_EQ(host.cpu.logical_cores, sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  // Files may list cpus that are allowed but not there.
  EXPECT_GE(host.cpu.allowed_cores, CPU_COUNT(&allowed));
  EXPECT_GE(host.cpu.usable_cores, 1);
  EXPECT_LE(host.cpu.usable_cores, host.cpu.logical_cores);
  EXPECT_EQ(host.memory.total_bytes, sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
  EXPECT_THAT(host.boot_id, ::testing::MatchesRegex("[0-9a-f-]{36}"));
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_cur == RLIM_INFINITY) {
    EXPECT_EQ(host.limits.open_files, std::nullopt);
  } else {
    EXPECT_EQ(host.limits.open_files, static_cast<std::int64_t>(files.rlim_cur));
  }
  const auto loopback = std::ranges::find_if(host.interfaces, &NetworkInterface::loopback);
  ASSERT_NE(loopback, host.interfaces.end());
  if (loopback->up) {
    EXPECT_THAT(loopback->addresses, ::testing::Contains("127.0.0.1"));
  }
}

TEST(Host, UsableCoresFollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_GE(usable_cores(), 1);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

}  // namespace
}  // namespace trireme
