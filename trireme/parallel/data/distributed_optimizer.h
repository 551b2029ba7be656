// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// DistributedOptimizer: an optimizer of torch::optim whose step() first makes the gradients the
// means over all ranks. Horovod's words; a Replica (replica.h) inside.
//
//   const auto world = trireme::init();
//   Net net;
//   trireme::DistributedOptimizer optimizer(torch::optim::Adam(net->parameters()), *net, *world);
//   for (...) {
//     optimizer.zero_grad();
//     loss(net(x), y).backward();  // gradients leave while it runs
//     optimizer.step();
//   }
//
// horovod.broadcast_parameters: the constructor does it, from rank 0. To do it again, or from
// another rank: broadcast_model() of parallel/model_agreement.h. There is nothing to broadcast of
// an optimizer's state: it starts the same everywhere and sees the same gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "trireme/parallel/data/replica.h"

namespace trireme {

// Base: a class of torch::optim, whose step() needs no closure. Not thread-safe. Movable. All ranks
// of the group make one and call its functions alike.
template <class Base>
class DistributedOptimizer {
 public:
  // base: made for the module's parameters. Everything else as Replica's constructor: collective,
  // blocking; module and group outlive it; throws ConfigError, ShapeError, CommError.
  DistributedOptimizer(Base base, torch::nn::Module& module, Group& group,
                       const ReplicaOptions& options = {})
      : base_(std::move(base)), replica_(module, group, options) {}

  void zero_grad() { base_.zero_grad(); }
  // Where a rank has several micro-batches in a step, or samples by weight: as Replica's. Otherwise
  // loss.backward() does the same.
  void backward(const at::Tensor& loss, double weight = 1) { replica_.backward(loss, weight); }
  // Waits for the gradients, then one step of the base. Collective, blocking. Throws as
  // Replica::finish_gradients() does.
  void step() {
    replica_.finish_gradients();
    base_.step();
  }

  // Learning rates, parameter groups, state.
  Base& base() { return base_; }
  Replica& replica() { return replica_; }

 private:
  Base base_;
  Replica replica_;
};

}  // namespace trireme
