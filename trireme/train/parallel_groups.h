// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ParallelGroups: the mesh of a run, and the groups that a rank is in.
//
//   axis   its ranks have                              cut among them
//   pp     the same samples                            layers
//   dp     other samples                               nothing, or with ZeRO what ShardedModel cuts
//   ep     other samples                               experts
//   cp     other tokens of the same samples            nothing
//   tp     the same tokens                             matrices
//
// In this order, tp's ranks side by side: rank (((p D + d) E + e) C + c) T + t of the world. What
// has the least to send between its ranks is first.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trireme/topology/mesh.h"
#include "trireme/train/train_config.h"

namespace trireme {

class Group;

// parallel.dp is resolved: as many as the workers leave. Axes of size 1 are left out. Throws
// ConfigError where the axes do not make up the workers, with the numbers.
Mesh train_mesh(const ParallelConfig& config, int workers);

// What parallel.shard_ranks auto stands for: ranks of a host with different samples. hosts: of each
// rank of the world (Group::hosts()). Throws as host_shard_ranks().
int host_data_ranks(const Mesh& mesh, const std::vector<int>& hosts);

// Constant after construction. The world outlives it.
class ParallelGroups {
 public:
  // Collective over the world, moves no bytes. Throws as train_mesh().
  ParallelGroups(const ParallelConfig& config, Group& world);
  ~ParallelGroups();

  const Mesh& mesh() const { return mesh_; }
  Group& world() const { return world_; }
  // dp and ep: who computes which samples.
  Group& samples() const { return of(samples_); }
  // dp and cp: ranks with the same parameters, whose gradients are summed.
  Group& replicas() const { return of(replicas_); }
  // dp, ep and cp: ranks that compute other tokens, by the same layers.
  Group& tokens() const { return of(tokens_); }
  // pp, dp, ep and cp: ranks that have computed each its own share of a step's loss.
  Group& losses() const { return of(losses_); }
  // Null where the axis has one rank.
  Group* pipeline() const { return pipeline_.get(); }
  Group* context() const { return context_.get(); }
  Group* experts() const { return experts_.get(); }
  Group* tensor() const { return tensor_.get(); }
  // ep and tp: ranks that have the parameters between them.
  Group* parts() const { return parts_.get(); }

 private:
  Group& of(const std::unique_ptr<Group>& group) const { return group ? *group : world_; }

  Group& world_;
  Mesh mesh_;
  std::unique_ptr<Group> samples_, replicas_, tokens_, losses_;
  std::unique_ptr<Group> pipeline_, context_, experts_, tensor_, parts_;
};

}  // namespace trireme
