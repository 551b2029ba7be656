// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Replica: a module that all ranks of a group train together, each on samples of its own. What
// DistributedDataParallel is in Python.
//
//   const auto world = trireme::init();
//   Net net;                                            // any torch::nn module
//   auto replica = trireme::replicate(*net, *world);    // same start everywhere
//   torch::optim::AdamW optimizer(net->parameters());
//   for (...) {
//     optimizer.zero_grad();
//     replica.backward(loss(net(x), y));                // buckets leave while backward runs
//     replica.finish_gradients();                       // the one wait: gradients are means now
//     optimizer.step();
//   }
//
// The gradients of all parameters are views of one buffer; nothing is copied. A step may have
// several micro-batches on each rank (ReplicaOptions::micro_batches): backward() once for each, and
// nothing travels before the last. With the global micro-batches that micro_batches() names the
// result is the same, bit for bit, on any number of ranks (micro_batch_plan.h).
//
// Ranks that run out of samples before others:
//
//   while (replica.any_has_data(batch != batches.end())) {
//     optimizer.zero_grad();
//     if (batch != batches.end()) replica.backward(loss(*batch), batch->size()), ++batch;
//     replica.finish_gradients();  // the mean by weight; no data weighs nothing
//     optimizer.step();
//   }
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "trireme/comm/codec/compressed_all_reduce.h"
#include "trireme/parallel/step_exchange.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class FlatParameters;
class Group;

struct ReplicaOptions {
  std::int64_t micro_batches = 0;  // of a step, over all ranks; 0: one for each rank
  std::int64_t bucket_bytes = std::int64_t{25} << 20;  // gradients that travel together, at least
  // Gradients travel encoded: bf16, int8, top-k or low rank (docs/compression.md). f32 models.
  std::optional<CompressionOptions> compression = {};
  // finish_gradients() also makes the module's buffers (running means) those of rank 0.
  bool broadcast_buffers = true;
};

// Movable. Not thread-safe. All ranks of the group make one and call its functions alike, but for
// backward() and add(), which a rank without data leaves out. Between backward() and
// finish_gradients() other operations of the group may go on: the replica has an order of its own.
class Replica {
 public:
  // The module keeps its dtype; it must not be moved, cast or get new parameters afterwards, and
  // outlives the replica, as does the group. On the CPU. Parameters and buffers become those of
  // rank 0. Collective, blocking. Throws ConfigError: models or options that differ between ranks
  // (names the first difference), micro_batches that the ranks cannot share, options below 0;
  // ShapeError as make_layout() does; CommError.
  Replica(torch::nn::Module& module, Group& group, const ReplicaOptions& options = {});
  // Leaves a plain module behind. In the middle of a step it ends the world by Group::abandon(),
  // since others wait for that step.
  ~Replica();
  Replica(Replica&&) noexcept;
  Replica& operator=(Replica&&) noexcept;

  // The numbers of this rank's micro-batches of a step, in the order of its calls of backward().
  const std::vector<std::int64_t>& micro_batches() const;
  // loss.backward(), with weight x the gradients (a mean over samples is worth their number, where
  // ranks have different numbers). Gradients are added to those that are there: zero them before
  // each step. The operations of ops/ add theirs in place. Where a rank has one micro-batch,
  // loss.backward() alone does the same. A loss's dtype may round the weight; what counts in the
  // mean is what it holds.
  //
  // Throws Error when the step has had all its micro-batches, or for a weight that is not finite
  // and at least 0: nothing was added then. What the pass itself throws passes through, and spoils
  // the step: other ranks get a CommError that names this one, and later calls here throw Error.
  void backward(const at::Tensor& loss, double weight = 1);
  // In its place, for micro-batches whose gradients do not come by one pass from a loss, as in a
  // pipeline: f adds those of the next to grad(), weighted already, by passes of autograd or
  // directly (ops::DirectGradients). Throws as backward().
  void add(double weight, const std::function<void()>& f);
  // Ends the step: gradients become the mean over all micro-batches of all ranks, by weight, the
  // same bits on all ranks. Blocks until those of all ranks are there. A parameter that no rank
  // used has no gradient then, so that optimizers leave it alone, and is named in the report.
  // Throws CommError as Group does; Error when no rank had data, on all ranks (the next step is a
  // fresh one), or when a backward pass of this step was spoiled.
  void finish_gradients();
  // Whether any rank says true. Collective, blocking, a few bytes.
  bool any_has_data(bool this_rank);

  // Of the last step.
  const StepReport& report() const;
  // Payload that this rank has sent for gradients so far, and its buckets.
  std::int64_t bytes_sent();
  std::size_t num_buckets() const;
  const FlatParameters& flat() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Replica replicate(torch::nn::Module& module, Group& group, const ReplicaOptions& options = {});

}  // namespace trireme
