// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// WeightStore: where a sharded model's weights lie, and when they are there. Internal to
// ShardedModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "trireme/parallel/module_layout.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class DeviceLink;
class Group;

class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // This rank's weights by piece: f32 that the optimizer updates, and bf16 or f16 that computes, or
  // undefined.
  struct Piece {
    at::Tensor weights;
    at::Tensor working_copy;
  };
  virtual std::vector<Piece> pieces() = 0;
  // After an update of the pieces: what computes is that of all ranks. Collective, blocking.
  virtual void publish() = 0;

  // A forward pass begins: weights of no unit are there.
  virtual void begin_pass() = 0;
  // A unit's weights are needed, in the forward or in the backward pass.
  virtual void enter(std::size_t unit, bool backward) = 0;
  // Its forward pass is done; a backward pass will need it again, or not.
  virtual void leave(std::size_t unit, bool backward_follows) = 0;
  // Its backward pass is done.
  virtual void release(std::size_t unit) = 0;
  // Nothing needs any weights any more.
  virtual void end_pass() = 0;
  // True: all weights are there until false is said, whatever passes come meanwhile. Blocking,
  // collective where weights are away.
  virtual void hold(bool held) = 0;
};

struct WeightStoreOptions {
  at::ScalarType dtype = at::kFloat;
  bool sharded_optimizer = false;  // stage 1 and above: masters and updates of this rank's pieces
  std::vector<FlatSegment> segments;
  int prefetch = 1;
  std::int64_t gather_budget_bytes = 0;
  DeviceLink* link = nullptr;  // to the device that computes; null: the host does
};

}  // namespace trireme
