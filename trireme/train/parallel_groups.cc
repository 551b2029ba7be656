// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/parallel_groups.h"

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/shard/shard_plan.h"

namespace trireme {

Mesh train_mesh(const ParallelConfig& config, int workers) {
  const int dp = static_cast<int>(config.dp),
            others = static_cast<int>(config.ranks_of_a_replica());
  if (others == 1 && dp != 0 && dp != workers) {
    throw_error<ConfigError>(
        "parallel.dp is {}, but there are {} workers: start {} workers, or leave parallel.dp out",
        dp, workers, dp);
  }
  if (workers % others != 0) {
    throw_error<ConfigError>("for {} start a multiple of {} workers: there are {}",
                             config.axes_in_words(), others, workers);
  }
  if (dp != 0 && dp * others != workers) {
    throw_error<ConfigError>(
        "parallel.dp {} and {} need {} workers, but there are {}: start as many, or leave "
        "parallel.dp out",
        dp, config.axes_in_words(), dp * others, workers);
  }
  std::vector<Axis> axes;
  const auto add = [&](const char* name, std::int64_t size) {
    if (size > 1) axes.push_back({name, static_cast<int>(size)});
  };
  add("pp", config.pp);
  add("dp", workers / others);
  add("ep", config.ep);
  add("cp", config.cp);
  add("tp", config.tp);
  return Mesh(std::move(axes));
}

int host_data_ranks(const Mesh& mesh, const std::vector<int>& hosts) {
  // Hosts are numbered by the lowest of these ranks, some may have none.
  std::vector<int> seen, of_data;
  for (const int rank : mesh.group_ranks(0, {"dp", "cp"})) {
    const int host = hosts[static_cast<std::size_t>(rank)];
    const auto found = std::ranges::find(seen, host);
    of_data.push_back(static_cast<int>(found - seen.begin()));
    if (found == seen.end()) seen.push_back(host);
  }
  return host_shard_ranks(of_data);
}

ParallelGroups::ParallelGroups(const ParallelConfig& config, Group& world)
    : world_(world), mesh_(train_mesh(config, world.size())) {
  if (config.ranks_of_a_replica() == 1) return;
  using Axes = std::vector<std::string>;
  samples_ = world.split(mesh_, Axes{"dp", "ep"});
  replicas_ = world.split(mesh_, Axes{"dp", "cp"});
  tokens_ = world.split(mesh_, Axes{"dp", "ep", "cp"});
  if (config.pp > 1) {
    pipeline_ = world.split(mesh_, "pp");
    losses_ = world.split(mesh_, Axes{"pp", "dp", "ep", "cp"});
  } else {
    losses_ = tokens_->duplicate("losses");
  }
  if (config.cp > 1) context_ = world.split(mesh_, "cp");
  if (config.ep > 1) experts_ = world.split(mesh_, "ep");
  if (config.tp > 1) tensor_ = world.split(mesh_, "tp");
  if (config.ep * config.tp > 1) parts_ = world.split(mesh_, Axes{"ep", "tp"});
}

ParallelGroups::~ParallelGroups() = default;

}  // namespace trireme
