// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where the ranks of a test stand: an engine, and imitated hosts. Threads of this process, some of
// which are told to have another host than others.
//
//   run_placed({"shm+gloo", {0, 0, 1}}, [](Group& world) { ... });
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/ranks.h"

namespace trireme::testing {

struct Placement {
  std::string engine;      // as WorldOptions::engine
  std::vector<int> hosts;  // by rank

  int size() const { return static_cast<int>(hosts.size()); }
  // For the options of one rank of the world.
  void adapt(WorldOptions& options) const {
    options.host_id = "host " + std::to_string(hosts[static_cast<std::size_t>(options.rank)]);
  }
};

// All on one host.
inline Placement one_host(const std::string& engine, int n) {
  return {engine, std::vector<int>(static_cast<std::size_t>(n), 0)};
}

// "gloo_3", "hosts_00122".
inline std::string placement_name(const Placement& placement) {
  if (placement.engine != "shm+gloo")
    return placement.engine + "_" + std::to_string(placement.size());
  std::string name = "hosts_";
  for (const int host : placement.hosts) name += std::to_string(host);
  return name;
}

inline std::ostream& operator<<(std::ostream& out, const Placement& placement) {
  return out << placement_name(placement);
}

inline void run_placed(const Placement& placement, const std::function<void(Group&)>& body) {
  run_threads(placement.size(), body, placement.engine,
              [&](WorldOptions& options) { placement.adapt(options); });
}

}  // namespace trireme::testing
