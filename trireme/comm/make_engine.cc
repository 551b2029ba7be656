// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <cstddef>
#include <set>
#include <string>

#include "trireme/base/check.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/nccl/nccl_mesh.h"

namespace trireme {
namespace {

enum class Placement { kOneHost, kHostEach, kMixed };

Placement placement_of(const GroupScope& scope) {
  std::set<std::string> hosts;
  for (int rank = 0; rank < scope.size(); ++rank) hosts.insert(scope.member(rank).host_id);
  if (hosts.size() == 1) return Placement::kOneHost;
  return hosts.size() == static_cast<std::size_t>(scope.size()) ? Placement::kHostEach
                                                                : Placement::kMixed;
}

}  // namespace

std::unique_ptr<Engine> make_engine(const GroupScope& scope) {
  const std::string& asked = scope.world->engine;
  if (scope.size() == 1) return make_self_engine(make_host_memory());
  const EngineFactory between = asked.ends_with("mpi") ? make_mpi_engine : make_gloo_engine;
  if (asked == "gloo" || asked == "mpi") return between(scope);
  switch (placement_of(scope)) {
    case Placement::kOneHost:
      return make_shm_engine(scope);
    case Placement::kHostEach:
      return between(scope);
    case Placement::kMixed:
      break;
  }
  TRIREME_ASSERT(asked != "shm", "shm was asked for and its ranks were found on several hosts");
  return make_hierarchical_engine(scope, between);
}

std::unique_ptr<Engine> make_device_engine(const GroupScope& scope) {
  if (scope.world->nccl == nullptr) return nullptr;
  if (scope.size() == 1) return make_self_engine(scope.world->nccl->make_memory());
  return make_nccl_engine(scope);
}

}  // namespace trireme
