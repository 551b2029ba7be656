// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardGroups: the groups of a ShardPlan, for one thread that communicates.
//
//   const ShardGroups groups(all, ShardPlan(all.size(), 4), "gradients");
//   groups.scatter(wire, segment, gradients, piece);   // inside this rank's copy of the model
//   groups.add_replicas(piece);                        // over the copies
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "trireme/comm/group.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/parallel/shard/shard_plan.h"

namespace trireme {

// One thread at a time, as its groups. Where there is one copy of the model it has no groups of its
// own and uses the caller's group of all ranks, `all`.
class ShardGroups {
 public:
  // purpose: new among those of all's parts. Collective, moves no bytes.
  ShardGroups(Group& all, const ShardPlan& plan, const std::string& purpose);

  const ShardPlan& plan() const { return plan_; }
  // The ranks that hold this rank's copy of the model between them.
  Group& shard(Group& all) const { return shard_ ? *shard_ : all; }

  // piece: this rank's of the sum over the shard group of gradients, both of the segment; it may
  // lie in the gradients. Blocking, collective over the shard group. Throws CommError.
  void scatter(Group& all, const FlatSegment& segment, const at::Tensor& gradients,
               const at::Tensor& piece) const;
  // piece becomes the sum over all copies. Blocking, collective over the replica group. Throws
  // CommError.
  void add_replicas(const at::Tensor& piece) const;

  // Payload that this rank has sent through these groups, not the caller's, and that between
  // copies.
  std::int64_t bytes_sent() const;
  std::int64_t bytes_sent_between_replicas() const;

 private:
  const ShardPlan plan_;
  std::unique_ptr<Group> shard_;     // none: there is one copy
  std::unique_ptr<Group> replicas_;  // none: there is one copy
};

}  // namespace trireme
