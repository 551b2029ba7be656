// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/world_state.h"

#include "trireme/base/error.h"
#include "trireme/comm/gloo_mesh.h"

namespace trireme {
namespace {

std::string place(const GroupScope& scope, int group_rank) {
  const int rank = scope.world_ranks[static_cast<std::size_t>(group_rank)];
  return fmt::format("rank {} on {}", rank,
                     scope.world->members[static_cast<std::size_t>(rank)].host_name);
}

}  // namespace

WorldState::WorldState() = default;
WorldState::~WorldState() = default;

bool GroupScope::has_left(int group_rank) const {
  return world->control->has_left(world_ranks[static_cast<std::size_t>(group_rank)]);
}

void mismatch_error(const GroupScope& scope, const Signature& mine, int peer,
                    const Signature& theirs) {
  throw_error<CommError>(
      "group {}: ranks do not call the same operation at number {}: {} calls {}, {} calls {}",
      scope.name, mine.sequence, place(scope, scope.rank), describe(mine), place(scope, peer),
      theirs.sequence == mine.sequence
          ? describe(theirs)
          : fmt::format("{} as its number {}", describe(theirs), theirs.sequence));
}

void timeout_error(const GroupScope& scope, const Signature& mine,
                   const std::vector<int>& missing) {
  std::vector<int> ranks;
  for (const int group_rank : missing) {
    ranks.push_back(scope.world_ranks[static_cast<std::size_t>(group_rank)]);
  }
  const std::string hosts =
      ranks.size() == 1
          ? " on " + scope.world->members[static_cast<std::size_t>(ranks[0])].host_name
          : "";
  throw_error<TimeoutError>(
      "group {}: {}{} did not arrive at operation {}, {}, before its deadline (seen by rank {}); "
      "look at what they were doing, or raise the timeout",
      scope.name, detail::name_ranks(ranks), hosts, mine.sequence, describe(mine),
      scope.world->rank);
}

void left_error(const GroupScope& scope, const Signature& mine, int peer) {
  throw_error<CommError>("group {}: {} has left, and operation {}, {}, waits for it", scope.name,
                         place(scope, peer), mine.sequence, describe(mine));
}

}  // namespace trireme
