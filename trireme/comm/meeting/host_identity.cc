// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/host_identity.h"

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace trireme {
namespace {

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A namespace is named by the inode behind its /proc entry.
std::string namespace_id(const char* path) {
  struct stat status {};
  return stat(path, &status) == 0 ? fmt::format("{}:{}", status.st_dev, status.st_ino) : "?";
}

}  // namespace

std::string host_identity() {
  const char* given = std::getenv("TRIREME_HOST_ID");
  if (given != nullptr && *given != '\0') return given;
  return fmt::format("{}/{}", process_space(), namespace_id("/proc/self/ns/net"));
}

std::string process_space() {
  return fmt::format("{}/{}", first_line("/proc/sys/kernel/random/boot_id"),
                     namespace_id("/proc/self/ns/pid"));
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "?";
}

}  // namespace trireme
