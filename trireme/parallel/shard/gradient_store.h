// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientStore: where a sharded model's gradients are summed. Internal to ShardedModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "trireme/parallel/step_exchange.h"

namespace trireme {

class GradientStore {
 public:
  virtual ~GradientStore() = default;

  virtual const std::vector<std::int64_t>& micro_batches() const = 0;
  virtual void backward(const at::Tensor& loss, double weight) = 0;
  // In its place, f, which adds a micro-batch's gradients to grad() by whatever passes.
  virtual void add(double weight, const std::function<void()>& f) = 0;
  // Blocks until the sums are there. Collective.
  virtual void finish() = 0;
  // This rank's pieces of the sums, in the order of the segments; valid until clear().
  virtual std::vector<at::Tensor> pieces() = 0;
  // Zeros for the next step. pieces_are_zeros: those are already.
  virtual void clear(bool pieces_are_zeros) = 0;
  virtual const StepReport& report() const = 0;
  // Payload that this rank has sent so far, and the part that went to other copies of the model.
  virtual std::int64_t bytes_sent() = 0;
  virtual std::int64_t bytes_sent_between_replicas() = 0;
};

}  // namespace trireme
