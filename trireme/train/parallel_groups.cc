// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/parallel_groups.h"

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/shard/shard_plan.h"

namespace trireme {

Mesh train_mesh(const ParallelConfig& config, int workers) {
  const auto tp = static_cast<int>(config.tp), dp = static_cast<int>(config.dp);
  if (tp == 1 && dp != 0 && dp != workers) {
    throw_error<ConfigError>(
        "parallel.dp is {}, but there are {} workers: start {} workers, or leave parallel.dp out",
        dp, workers, dp);
  }
  if (workers % tp != 0) {
    throw_error<ConfigError>(
        "parallel.tp is {}, but there are {} workers: start a multiple of {} of them", tp, workers,
        tp);
  }
  if (dp != 0 && dp * tp != workers) {
    throw_error<ConfigError>(
        "parallel.dp is {} and parallel.tp {}, but there are {} workers: start {} workers, or "
        "leave parallel.dp out",
        dp, tp, workers, dp * tp);
  }
  std::vector<Axis> axes;
  if (workers > tp) axes.push_back({"dp", workers / tp});
  if (tp > 1) axes.push_back({"tp", tp});
  return Mesh(std::move(axes));
}

int host_data_ranks(const Mesh& mesh, const std::vector<int>& hosts) {
  // Hosts are numbered by the lowest of these ranks, some may have none.
  std::vector<int> seen, of_data;
  for (const int rank : mesh.group_ranks(0, "dp")) {
    const int host = hosts[static_cast<std::size_t>(rank)];
    const auto found = std::ranges::find(seen, host);
    of_data.push_back(static_cast<int>(found - seen.begin()));
    if (found == seen.end()) seen.push_back(host);
  }
  return host_shard_ranks(of_data);
}

ParallelGroups::ParallelGroups(const ParallelConfig& config, Group& world)
    : world_(world), mesh_(train_mesh(config, world.size())) {
  if (mesh_.axis_size("tp") == 1) return;
  data_ = world.split(mesh_, "dp");
  tensor_ = world.split(mesh_, "tp");
}

ParallelGroups::~ParallelGroups() = default;

}  // namespace trireme
