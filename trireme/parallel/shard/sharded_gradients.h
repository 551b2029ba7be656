// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardedGradients: gradients that leave unit by unit, while backward computes the units before.
//
// The gradients of a unit are summed in a buffer that is there from the first of them until all
// have arrived and the reduce_scatter has made this rank's piece of them (stages 2 and 3). Where a
// device computes, the buffer lies there, and they are copied to host memory before. Each
// micro-batch's pieces are a leaf of the tree: of N ranks r computes micro-batches r, N + r,
// 2 N + r ..., so that the N that travel together are a whole subtree, and the tree over
// micro-batches goes on from there.
//
// With several copies of the model the N ranks are a shard group, which computes micro-batches side
// by side in rounds (ShardPlan::rounds), and in a round's last micro-batch the sum over all of them
// goes on between the copies, unit by unit too: once in a round, whatever the number of its
// micro-batches.
//
//   unit 2: buffer taken | gradients | reduce_scatter -> piece, buffer free
//   unit 1:                buffer taken | ...
//
// Stages 0 and 1, where a device computes: a leaf is all gradients of a micro-batch, in host
// memory, and ranks are treated as if each kept a copy of the model, so that nothing is sent but in
// a round's last micro-batch: all_reduce (stage 0), or reduce_scatter inside the shard group and
// all_reduce between copies (stage 1).
//
//   unit 2: device's buffer taken | gradients | copy -> leaf, buffer free | into the tree, reduced
//
// With a device the communication thread also adds leaves, while the next one is computed; on the
// host, which computes, the thread of the backward pass does, by the pool of threads.
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
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/shard/gradient_store.h"
#include "trireme/parallel/shard/shard_groups.h"

namespace trireme {

struct ShardedGradientsOptions {
  int stage = 2;                   // 0 and 1 with a link alone
  std::int64_t micro_batches = 0;  // of a step, over all ranks; 0: one for each rank
  // Called on the thread of the backward pass when all gradients of a unit have arrived.
  std::function<void(std::size_t unit)> on_unit = {};
  DeviceLink* link = nullptr;  // to the device that computes; null: the host does
};

class ShardedGradients final : public GradientStore {
 public:
  // layout and link must outlive it; the layout's parameters have their full shape when this is
  // made, and no gradient. Throws ConfigError as ShardPlan::rounds() does.
  ShardedGradients(const ModuleLayout& layout, Group& group, const ShardPlan& plan,
                   ShardedGradientsOptions options);
  ~ShardedGradients() override;

  const std::vector<std::int64_t>& micro_batches() const override { return micro_batches_; }
  void backward(const at::Tensor& loss, double weight) override;
  void add(double weight, const std::function<void()>& f) override;
  void finish() override;
  std::vector<at::Tensor> pieces() override;
  void clear(bool pieces_are_zeros) override;
  const StepReport& report() const override { return account_.report(); }
  std::int64_t bytes_sent() override { return thread_.group().bytes_sent() + groups_.bytes_sent(); }
  std::int64_t bytes_sent_between_replicas() override {
    return groups_.bytes_sent_between_replicas();
  }

 private:
  // A unit's gradients of a micro-batch, on their way.
  struct Parcel {
    std::size_t unit = 0;
    at::Tensor computed;  // where backward has summed them
    at::Tensor host;      // where they can be sent from; the same without a link
    DevicePoint copied;
    at::Tensor leaf;
    bool ends_round = false;
  };

  void begin_micro_batch(double weight);
  void end_micro_batch();
  bool ends_round() const { return ends_round_[position_]; }
  // Takes the last leaf into the tree, or out of it as a round's sum, once its pieces have arrived.
  void settle_last_leaf();
  void on_gradient(std::size_t entry);
  // Gives the unit a buffer of zeros, and its parameters' gradients their places in it.
  void open(std::size_t unit);
  void launch(const std::vector<std::size_t>& units);
  Parcel pack(std::size_t unit);
  // On the communication thread.
  void deliver(Group& wire, const Parcel& parcel);
  void end_round_of(Group& wire, const Parcel& parcel);
  at::Tensor sum_of_rounds();
  at::Tensor view_in(const at::Tensor& buffer, std::size_t entry) const;
  // Whether a leaf is what this rank has computed, and its copy from the device lands there.
  bool leaf_is_own() const { return options_.link != nullptr && leaf_plan_.shard_ranks() == 1; }
  at::Tensor piece_of(const at::Tensor& leaf, std::size_t unit) const;

  // Constant after construction.
  const ModuleLayout& layout_;
  const ShardedGradientsOptions options_;
  const ShardPlan leaf_plan_;                  // among whose shard groups a leaf is spread
  const std::vector<ShardPiece> leaf_pieces_;  // by unit
  const std::vector<ShardPiece> pieces_;       // that pieces() returns: inside of leaf_pieces_
  std::vector<std::vector<std::size_t>> entries_of_;  // by unit
  const EntryOf entry_of_;
  std::vector<std::int64_t> micro_batches_;
  std::vector<bool> ends_round_;  // by position in micro_batches_
  const ShardGroups groups_;      // of the communication thread

  BufferPool pool_;       // where the model computes
  BufferPool host_pool_;  // with a link, where gradients are sent from
  BucketQueue queue_;     // of units
  GradientTree tree_;     // of leaves
  // Of the step under way.
  std::size_t position_ = 0;  // micro-batches that have ended
  bool computing_ = false;
  std::vector<at::Tensor> open_;  // by unit: the buffer in which its gradients are summed
  at::Tensor leaf_;               // pieces of this micro-batch
  at::Tensor last_leaf_;          // of the one before, on their way
  bool last_ended_round_ = false;
  CommunicationThread::Ticket last_ticket_ = 0;
  std::vector<at::Tensor> rounds_;                     // sums of pieces
  std::deque<CommunicationThread::Ticket> in_flight_;  // units
  at::Tensor sum_;                                     // after finish()

  StepAccount account_;
  CommunicationThread thread_;
  GradientHooks hooks_;  // last: calls into all of the above
};

}  // namespace trireme
