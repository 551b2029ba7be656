// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardedGradients: a rank keeps its pieces of the gradients alone (stages 2 and 3).
//
// The gradients of a unit are summed in a buffer that is there from the first of them until all
// have arrived and the reduce_scatter has made this rank's piece of them. Each micro-batch's pieces
// are a leaf of the tree: rank r computes micro-batches r, N + r, 2 N + r ..., so that the N that
// travel together are a whole subtree, and the tree over micro-batches goes on from there.
//
//   unit 2: buffer taken | gradients | reduce_scatter -> piece, buffer free
//   unit 1:                buffer taken | ...
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/bucket_queue.h"
#include "trireme/parallel/communication_thread.h"
#include "trireme/parallel/gradient_hooks.h"
#include "trireme/parallel/gradient_tree.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/shard/buffer_pool.h"
#include "trireme/parallel/shard/gradient_store.h"

namespace trireme {

// Throws ConfigError unless ranks can compute micro_batches in this way.
void check_interleaved_micro_batches(std::int64_t micro_batches, int ranks);

class ShardedGradients final : public GradientStore {
 public:
  // Called on the thread of the backward pass when all gradients of a unit have arrived.
  using OnUnit = std::function<void(std::size_t unit)>;

  // layout must outlive it; its parameters have their full shape when this is made, and no
  // gradient. Throws ConfigError for micro-batches that the ranks cannot share in this way.
  ShardedGradients(const ModuleLayout& layout, Group& group, std::int64_t micro_batches,
                   OnUnit on_unit);
  ~ShardedGradients() override;

  const std::vector<std::int64_t>& micro_batches() const override { return micro_batches_; }
  void backward(const at::Tensor& loss, double weight) override;
  void finish() override;
  std::vector<at::Tensor> pieces() override;
  void clear(bool pieces_are_zeros) override;
  const StepReport& report() const override { return account_.report(); }
  std::int64_t bytes_sent() override { return thread_.group().bytes_sent(); }

 private:
  void begin_micro_batch(double weight);
  void end_micro_batch();
  void push_last_leaf();
  void on_gradient(std::size_t entry);
  // Gives the unit a buffer of zeros, and its parameters' gradients their places in it.
  void open(std::size_t unit);
  void launch(const std::vector<std::size_t>& units);
  void scatter(Group& wire, std::size_t unit, const at::Tensor& gradients, const at::Tensor& leaf);
  at::Tensor view_in(const at::Tensor& buffer, std::size_t entry) const;

  // Constant after construction.
  const ModuleLayout& layout_;
  const std::vector<ShardPiece> pieces_;
  std::vector<std::vector<std::size_t>> entries_of_;  // by unit
  std::vector<std::int64_t> micro_batches_;
  const OnUnit on_unit_;

  BufferPool pool_;
  BucketQueue queue_;  // of units
  GradientTree tree_;  // of shards
  // Of the step under way.
  std::size_t position_ = 0;  // micro-batches that have ended
  bool computing_ = false;
  std::vector<at::Tensor> open_;  // by unit: the buffer in which its gradients are summed
  at::Tensor leaf_;               // pieces of this micro-batch
  at::Tensor last_leaf_;          // of the one before, on their way
  CommunicationThread::Ticket last_ticket_ = 0;
  std::deque<CommunicationThread::Ticket> in_flight_;  // units
  at::Tensor sum_;                                     // after finish()

  StepAccount account_;
  CommunicationThread thread_;
  GradientHooks hooks_;  // last: calls into all of the above
};

}  // namespace trireme
