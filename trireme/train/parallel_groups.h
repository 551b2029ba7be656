// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ParallelGroups: the mesh of a run, and the groups that a rank is in.
//
//   rank of the world     0    1    2    3    4    5    6    7
//   dp 2 x tp 4         0,0  0,1  0,2  0,3  1,0  1,1  1,2  1,3
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trireme/topology/mesh.h"
#include "trireme/train/train_config.h"

namespace trireme {

class Group;

// parallel.dp is resolved: as many as the workers leave. Axes of size 1 are left out. Throws
// ConfigError where tp does not divide the workers or dp times tp are not all of them, with the
// numbers.
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
  // Ranks with other samples than this one, whose gradients are summed.
  Group& data() const { return data_ ? *data_ : world_; }
  // Ranks that compute the same samples together; null where there is one.
  Group* tensor() const { return tensor_.get(); }

 private:
  Group& world_;
  Mesh mesh_;
  std::unique_ptr<Group> data_;
  std::unique_ptr<Group> tensor_;
};

}  // namespace trireme
