// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// "Hosts" for tests: network namespaces whose links meet at a switch (a bridge in a namespace of
// its own), as in a rack.
//
//   NetworkNamespaces net(2);
//   if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
//   RankProcess rank(0, [&] { net.enter(1);  return connect_to(net.address(0)); });
//   net.cut(1);   // from now on host 1 hears nothing and is not heard
//
// The namespaces have no names: only file descriptors of the test and the processes in them hold
// them, so nothing is left behind however the test ends. Without root it takes the right to make
// user namespaces. Needs ip, and for pace() tc, of iproute2.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "trireme/base/file_descriptor.h"

namespace trireme::testing {

// Used by one thread.
class NetworkNamespaces {
 public:
  explicit NetworkNamespaces(int hosts) {
    if (!make_namespaces(hosts)) return;
    std::string commands =
        "ip link set lo up && ip link add bridge type bridge && "
        "ip link set bridge up";
    for (int host = 0; host < hosts; ++host) {
      commands += fmt::format(
          " && ip link add {0} type veth peer name eth0 netns /proc/self/fd/{1}"
          " && ip link set {0} master bridge && ip link set {0} up",
          port(host), host_ends_[index(host)].get());
    }
    run_in(switch_end_, commands);
    for (int host = 0; host < hosts && why_not_.empty(); ++host) {
      run_in(host_ends_[index(host)],
             fmt::format("ip link set lo up && ip link set eth0 up && ip addr add {}/24 dev eth0",
                         address(host)));
    }
  }

  // Why there are no hosts; empty when there are.
  const std::string& unavailable() const { return why_not_; }

  std::string address(int host) const { return fmt::format("10.77.0.{}", host + 1); }
  std::string name(int host) const { return fmt::format("host{}", host); }

  // Moves the calling process, which must have one thread, to the host for good. Its host name
  // changes, too.
  void enter(int host) const {
    enter_namespace(host_ends_[index(host)]);
    const std::string own_name = name(host);
    if (unshare(CLONE_NEWUTS) != 0 || sethostname(own_name.data(), own_name.size()) != 0) {
      throw std::runtime_error(fmt::format("no host name: {}", std::strerror(errno)));
    }
  }

  // The switch forgets the host's link. Neither end is told.
  void cut(int host) { command(switch_end_, fmt::format("ip link set {} nomaster", port(host))); }
  void mend(int host) {
    command(switch_end_, fmt::format("ip link set {} master bridge", port(host)));
  }

  // From now on the link carries this much in either direction, with up to 50 ms of queue. Why not,
  // where the kernel cannot.
  [[nodiscard]] std::string pace(int host, std::int64_t bits_per_s) {
    // What may leave at once: 2 ms, but at least what a segmentation offload hands down.
    const std::int64_t burst_bytes = std::max<std::int64_t>(bits_per_s / 8 / 500, 128 << 10);
    const auto shape = [&](const std::string& device) {
      return fmt::format("tc qdisc replace dev {} root tbf rate {}bit burst {} latency 50ms",
                         device, bits_per_s, burst_bytes);
    };
    const std::string out = output_of(host_ends_[index(host)], shape("eth0"));
    return out.empty() ? output_of(switch_end_, shape(port(host))) : out;
  }

  // Bytes that have left the host through its link, headers included.
  std::int64_t bytes_sent(int host) const {
    // Receive bytes, packets and six more columns, then the bytes sent.
    std::istringstream columns(
        output_of(host_ends_[index(host)], "sed -n 's/^ *eth0: *//p' /proc/self/net/dev"));
    std::int64_t value = 0;
    for (int i = 0; i < 9; ++i) columns >> value;
    return value;
  }

 private:
  static std::size_t index(int host) { return static_cast<std::size_t>(host); }
  static std::string port(int host) { return fmt::format("port{}", host); }

  // A child makes the namespaces and holds them until this process has opened them.
  bool make_namespaces(int hosts) {
    int ready[2];
    int done[2];
    if (pipe(ready) != 0 || pipe(done) != 0) throw std::runtime_error("no pipe");
    std::fflush(nullptr);
    const pid_t maker = fork();
    if (maker == 0) {
      ::close(ready[0]);
      ::close(done[1]);
      make_and_hold(hosts, ready[1], done[0]);
    }
    ::close(ready[1]);
    ::close(done[0]);
    std::vector<int> held(index(hosts) + 2, -1);  // user, switch, hosts
    const auto bytes = static_cast<ssize_t>(held.size() * sizeof(int));
    const bool made = ::read(ready[0], held.data(), static_cast<std::size_t>(bytes)) == bytes;
    const int error = made ? 0 : held[0];
    if (made) {
      user_end_ = open_held(maker, held[0]);
      switch_end_ = open_held(maker, held[1]);
      for (int host = 0; host < hosts; ++host) {
        host_ends_.push_back(open_held(maker, held[index(host) + 2]));
      }
    }
    ::close(ready[0]);
    ::close(done[1]);
    waitpid(maker, nullptr, 0);
    if (!made) why_not_ = fmt::format("no network namespaces: {}", std::strerror(error));
    return made;
  }

  [[noreturn]] static void make_and_hold(int hosts, int ready, int done) {
    std::vector<int> held{-1};
    const auto fail = [&] {
      const int error = errno;
      if (::write(ready, &error, sizeof(error)) != sizeof(error)) _exit(2);
      _exit(1);
    };
    if (geteuid() != 0) {
      const std::string map = fmt::format("0 {} 1", geteuid());
      if (unshare(CLONE_NEWUSER) != 0) fail();
      if (!write_file("/proc/self/uid_map", map)) fail();
      held[0] = ::open("/proc/self/ns/user", O_RDONLY);
    }
    for (int i = 0; i < hosts + 1; ++i) {
      if (unshare(CLONE_NEWNET) != 0) fail();
      held.push_back(::open("/proc/self/ns/net", O_RDONLY));
      if (held.back() < 0) fail();
    }
    const std::size_t bytes = held.size() * sizeof(int);
    if (::write(ready, held.data(), bytes) != static_cast<ssize_t>(bytes)) _exit(2);
    char byte = 0;
    // Returns when the test has closed its end, or is gone.
    if (::read(done, &byte, 1) != 0) _exit(2);
    _exit(0);
  }

  static bool write_file(const char* path, const std::string& text) {
    const FileDescriptor fd(::open(path, O_WRONLY));
    return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }

  // Inherited by the commands below, which name it as /proc/self/fd/<n>.
  static FileDescriptor open_held(pid_t holder, int fd) {
    return FileDescriptor(
        fd < 0 ? -1 : ::open(fmt::format("/proc/{}/fd/{}", holder, fd).c_str(), O_RDONLY));
  }

  void enter_namespace(const FileDescriptor& end) const {
    if ((user_end_ && setns(user_end_.get(), CLONE_NEWUSER) != 0) ||
        setns(end.get(), CLONE_NEWNET) != 0) {
      throw std::runtime_error(fmt::format("cannot enter a namespace: {}", std::strerror(errno)));
    }
  }

  // What the shell command, run in the namespace, prints; empty when it succeeds silently.
  std::string output_of(const FileDescriptor& end, const std::string& text) const {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error("no pipe");
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      ::close(ends[0]);
      try {
        enter_namespace(end);
        execl("/bin/sh", "sh", "-c", text.c_str(), nullptr);
      } catch (const std::exception& error) {
        std::fputs(error.what(), stderr);
      }
      _exit(127);
    }
    ::close(ends[1]);
    std::string out;
    char chunk[512];
    for (ssize_t n = 0; (n = ::read(ends[0], chunk, sizeof(chunk))) > 0;) {
      out.append(chunk, static_cast<std::size_t>(n));
    }
    ::close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0 && out.empty()) out = fmt::format("{} failed", text);
    return out;
  }

  void run_in(const FileDescriptor& end, const std::string& text) {
    const std::string out = output_of(end, text);
    if (!out.empty()) why_not_ = fmt::format("no links between network namespaces: {}", out);
  }

  void command(const FileDescriptor& end, const std::string& text) const {
    const std::string out = output_of(end, text);
    if (!out.empty()) throw std::runtime_error(out);
  }

  std::string why_not_;
  FileDescriptor user_end_;  // none for root
  FileDescriptor switch_end_;
  std::vector<FileDescriptor> host_ends_;
};

}  // namespace trireme::testing
