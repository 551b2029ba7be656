// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What all groups of one world share, and what an engine knows about the group it works for.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trireme/comm/collective.h"
#include "trireme/comm/control_plane.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/rendezvous.h"

namespace trireme {

class GlooMesh;

// Constant after join_world(), but for what latch and control guard themselves. A world of one has
// neither control plane nor mesh.
struct WorldState {
  int rank = 0;
  std::string engine;  // as asked for: "auto", "shm", "gloo"
  std::vector<Member> members;
  FailureLatch latch;
  std::unique_ptr<ControlPlane> control;
  std::shared_ptr<GlooMesh> mesh;  // null when the world needs none

  WorldState();
  ~WorldState();
};

struct GroupScope {
  std::shared_ptr<WorldState> world;
  std::string name;
  // Equal on the ranks of one group, different for every other group of the world.
  std::uint64_t id = 0;
  int rank = 0;
  std::vector<int> world_ranks;

  int size() const { return static_cast<int>(world_ranks.size()); }
  bool has_left(int group_rank) const;
};

// Throws: both signatures, with the ranks that asked for them (ranks of the group).
[[noreturn]] void mismatch_error(const GroupScope& scope, const Signature& mine, int peer,
                                 const Signature& theirs);
// Throws: names the ranks of the group that have not arrived.
[[noreturn]] void timeout_error(const GroupScope& scope, const Signature& mine,
                                const std::vector<int>& missing);
// Throws: the peer said goodbye while this operation waits for it.
[[noreturn]] void left_error(const GroupScope& scope, const Signature& mine, int peer);

}  // namespace trireme
