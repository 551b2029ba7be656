// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Context parallelism: every sequence cut by tokens across ranks that train one model together, for
// sequences whose activations one rank cannot hold.
//
//   const auto cp = world->split(mesh, "cp");
//   nn::Transformer model(config);                          // the same weights on all ranks
//   ContextParallel context = context_parallel(*model, *cp, {.method = "ring"});
//   for (...) {
//     const ContextBatch own = context.cut(tokens_BT, targets_BT);      // the whole batch
//     const at::Tensor loss = model->loss(own.tokens_BT, own.targets_BT);
//     (loss * own.weight).backward();                       // gradients to be summed over cp
//   }
//
// Each rank computes everything of its own tokens (token_parts.h); only attention needs those of
// others and gets them. The model's loss() is then the mean over this rank's targets, and times
// ContextBatch::weight this rank's share of the mean over the whole batch: shares and gradients of
// all ranks, summed, are those of one rank with the whole batch. Where gradients are averaged over
// n ranks (Replica, ShardedModel, over dp and cp), multiply by n too. What loss() adds for the
// routing to experts is of the rank's own tokens, as it is of a micro-batch's.
//
//                    ring                            ulysses
//   attention of     own tokens, all heads           all tokens, 1 / n of the heads
//   what travels     keys and values, round          queries, keys, values, results, directly
//   ranks            any number                      at most as many as heads
//   choose it        few kv heads, many ranks, or    many heads and a fast all_to_all
//                    slow links that run while
//                    attention computes
//
// docs/parallelism_context.md has memory and bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "trireme/nn/transformer.h"

namespace trireme {

class Group;

struct ContextParallelOptions {
  std::string method = "ring";  // or "ulysses": ring_attention.h, ulysses_attention.h
};

// This rank's part of a batch.
struct ContextBatch {
  at::Tensor tokens_BT;
  at::Tensor targets_BT;
  at::Tensor document_starts_BT;  // in places of the whole sequence; undefined where none are given
  // Its targets over those of the batch, ops::kIgnoredTarget not counted; 0 where there are none.
  double weight = 0;
};

// Movable. Not thread-safe. Outlives the model's last pass across ranks; destroyed, it leaves the
// model as it was before.
class ContextParallel {
 public:
  ~ContextParallel();
  ContextParallel(ContextParallel&&) noexcept;
  ContextParallel& operator=(ContextParallel&&) noexcept;

  Group& group() const;

  // This rank's part of a batch that all ranks of cp have, and the model is told where its tokens
  // stand: its passes from now on have as many tokens in the same places. All i64 [B, T];
  // targets_BT and document_starts_BT (ops::document_starts()) may be undefined. No rank waits for
  // another. A pass that computes again what it forgot (nn::Recompute) comes before a cut of
  // another T. Throws ShapeError; ConfigError for fewer tokens than 2 for each rank.
  ContextBatch cut(const at::Tensor& tokens_BT, const at::Tensor& targets_BT,
                   const at::Tensor& document_starts_BT = {});

 private:
  friend ContextParallel context_parallel(nn::TransformerImpl& model, Group& cp,
                                          const ContextParallelOptions& options);
  struct Impl;
  explicit ContextParallel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The model's attention is across the ranks of cp from now on, in passes without a cache. The
// model and cp outlive what is returned. Collective over cp, moves no bytes. Throws ConfigError: an
// unknown method, fewer heads than ranks with ulysses.
ContextParallel context_parallel(nn::TransformerImpl& model, Group& cp,
                                 const ContextParallelOptions& options = {});

}  // namespace trireme
