// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientReducer: sums the gradients of a step over its micro-batches and over ranks, while the
// last backward pass still runs.
//
// A step is numbered micro-batches (micro_batch_plan.h). Each rank adds the gradients of its own in
// the tree's order and sends nothing, until the last of a round: then every bucket whose gradients
// are complete is merged and handed to the communication thread at once. What happens to it there
// is the exchange: an all_reduce, a reduce_scatter, either with a codec. Buckets leave in the order
// in which they became complete in the first step, as rank 0 saw it; the first step goes from the
// last bucket to the first.
//
//   rank 0  forward  backward ----------------|  finish
//                        bucket 3 | 2 | 1  0  ->       (communication thread)
//
// From the second step on an embedding's matrix of a bucket or more need not wait for the
// embedding: late_rows.h.
//
// What stands at the root of parallel/ is used by parallel/data and parallel/shard alike.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/bucket_queue.h"
#include "trireme/parallel/communication_thread.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/gradient_hooks.h"
#include "trireme/parallel/gradient_tree.h"
#include "trireme/parallel/late_rows.h"
#include "trireme/parallel/step_exchange.h"

namespace trireme {

// The exchange_rows of ranks whose gradients travel as they are. elements: on the CPU, contiguous.
void all_reduce_rows(Group& group, const at::Tensor& elements);

struct ReducerOptions {
  std::int64_t micro_batches = 0;  // of a step, over all ranks; 0: one for each rank
  std::int64_t bucket_bytes = std::int64_t{25} << 20;
  // Makes the sum over ranks of some elements, in place, with the bits that they would have in
  // their bucket: an all_reduce. None: no matrix leaves before all of it is there (a codec's bits
  // depend on what travels together).
  std::function<void(Group&, const at::Tensor& elements)> exchange_rows = {};
};

// Not thread-safe. All ranks make one alike.
class GradientReducer {
 public:
  // Makes the sum over ranks of a bucket's gradients [bucket.end - bucket.begin], in place. Called
  // on the communication thread, bucket after bucket.
  using Exchange = std::function<void(Group&, std::size_t bucket, const at::Tensor& gradients)>;

  // flat and the group must outlive it. Throws ConfigError as MicroBatchPlan does, or for options
  // below 0.
  GradientReducer(FlatParameters& flat, Group& group, const ReducerOptions& options,
                  Exchange exchange);
  // In the middle of a step it abandons the group, since others wait for that step.
  ~GradientReducer();

  // The numbers of this rank's micro-batches in the order in which backward() takes them.
  const std::vector<std::int64_t>& micro_batches() const { return micro_batches_; }
  const std::vector<FlatSegment>& buckets() const { return queue_.buckets(); }

  // The backward pass of the next micro-batch: weight x its gradients are added, and the weight, as
  // the loss's dtype holds it, to the step's. Blocking; in the last micro-batch of a round the
  // buckets leave. Where a rank has one micro-batch in a step, loss.backward() does the same.
  //
  // Throws Error when the step has had all its micro-batches, or for a weight that is not finite
  // and at least 0: before anything is added. What the pass throws passes through; half of it is
  // added then, so it abandons the group, and every later call throws Error with its reason. What
  // ended the communication of an earlier micro-batch is thrown as soon as it is known.
  void backward(const at::Tensor& loss, double weight = 1);
  // In its place, for gradients that do not come by one pass from a loss: f adds those of the next
  // micro-batch to grad(), by passes of autograd or directly (ops::DirectGradients), weighted
  // already. Of what is added directly, and not in a backward pass, nothing leaves before f
  // returns. Throws as backward().
  void add(double weight, const std::function<void()>& f);
  // Ends the step: micro-batches that did not come count as zero gradients of weight 0 (a rank
  // without data). Blocks until the sums are there; they lie in the flat parameters' gradients,
  // which are zeros again before the next step. Collective. Throws CommError as Group does.
  void finish();

  // Of the last step.
  const StepReport& report() const { return account_.report(); }
  // Entries that had no gradient on any rank.
  const std::vector<std::size_t>& unused() const { return account_.unused(); }
  // Payload that this rank has sent so far.
  std::int64_t bytes_sent() { return thread_.group().bytes_sent(); }

 private:
  // Gradients are not to be had any more: tells the other ranks, and keeps the reason.
  void spoil_step(const std::string& reason);
  void check_step() const;
  void run_pass(const std::function<void()>& f);
  void begin_micro_batch(double weight);
  void end_micro_batch();
  void on_gradient(std::size_t entry, bool by_autograd);
  void take_gradient(std::size_t entry, bool by_autograd);
  void launch(const std::vector<std::size_t>& buckets);
  void launch_matrix_bucket(std::size_t bucket);
  void lay_sum_into_gradients();
  // Late rows.
  void foresee(const at::Tensor& loss);
  void watch_matrix();
  void finish_matrix();
  bool holds_some_of_matrix(const FlatSegment& bucket) const;
  void agree_on_order();

  FlatParameters& flat_;
  const ReducerOptions options_;
  const Exchange exchange_;
  const EntryOf entry_of_;
  std::vector<std::int64_t> micro_batches_;
  std::vector<bool> ends_round_;  // by position in micro_batches_

  BucketQueue queue_;
  GradientTree tree_;
  // Of the step under way.
  std::size_t position_ = 0;        // micro-batches that have ended
  bool computing_ = false;          // one has begun and not ended
  std::string spoiled_;             // why there will be no sum; empty while there may
  std::vector<at::Tensor> rounds_;  // sums, on their way

  // The embedding's matrix; in the first step rank 0's only, which looks on.
  std::optional<LateRows> late_;
  std::optional<BucketQueue> foreseen_;   // first step: as if the matrix left early
  std::shared_ptr<MatrixTravel> travel_;  // of the round under way, once something of it has left
  CommunicationThread::Ticket matrix_ticket_ = 0;

  StepAccount account_;
  CommunicationThread thread_;
  GradientHooks hooks_;  // last: calls into all of the above
};

}  // namespace trireme
