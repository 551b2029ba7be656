// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tensor parallelism: the matrices of a model cut across ranks that compute every sample together
// (Shoeybi et al. 2019, Megatron-LM), and with `sequence` the activations between them cut by
// tokens (Korthikanti et al. 2022).
//
//   const Mesh mesh({{"dp", 2}, {"tp", 2}});
//   const auto tp = world->split(mesh, "tp"), dp = world->split(mesh, "dp");
//   const auto model = [&] {
//     const nn::ParametersWithoutMemory later;            // only the own part gets memory
//     return nn::Transformer(config);
//   }();
//   const TensorParallel cut = parallelize(*model, *tp, {.sequence = true});
//   nn::initialize(*model, seed);                         // the same weights on any mesh
//   ShardedModel sharded(*model, *dp, {.parts = cut.parts()});
//
// From then on the model is called as before, by all ranks of tp with the same tokens, and gives
// the same loss on all of them. Parameters are this rank's parts, gradients those of the parts.
//
//   rank of tp            0                 1
//   token_embedding  [V/2, C]          [V/2, C]       rows [n, C] of the sum, or all of it
//   attn.q, k, v     [H/2 D, C]        [H/2 D, C]     the heads of these
//   attn.out         [C, H/2 D]        [C, H/2 D]     summed over tp; bias once
//   mlp.up           [F/2, C]          [F/2, C]
//   mlp.down         [C, F/2]          [C, F/2]       summed over tp; bias once
//   norms            whole             whole
//   experts, router  whole             whole          all tokens on each (expert/ spreads them)
//   head             [V/2, C]          [V/2, C]       cross-entropy over both parts
//
// A rank sends per block and pass, forward or backward, for N tokens: two all_reduces of N C
// elements, 2 (n-1)/n N C each; with sequence an all_gather and a reduce_scatter in the place of
// each, together the same, and in the backward pass two all_gathers more, (n-1)/n N C each, of what
// was freed instead of kept. docs/parallelism.md has the table.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trireme/nn/transformer.h"
#include "trireme/parallel/model_parts.h"
#include "trireme/parallel/tensor/tensor_plan.h"

namespace trireme {

class Group;

struct TensorParallelOptions {
  // Activations between the cut matrices, and what norms and dropout do with them, are cut by
  // tokens.
  bool sequence = false;
  // Of the rows between an exchange and the next, in an MLP and before attention's last matrix:
  // while the exchange of some goes on, others are computed (Wang et al. 2023, section 3.2). 1: one
  // after the other. It needs a core that does not compute, and exchanges no longer than products
  // (docs/parallelism.md has figures).
  int chunks = 1;
};

// What has become of the parameters. Movable. Outlives the model's last pass.
class TensorParallel {
 public:
  ~TensorParallel();
  TensorParallel(TensorParallel&&) noexcept;
  TensorParallel& operator=(TensorParallel&&) noexcept;

  Group& group() const;
  bool sequence() const;
  // The pass that begins is of so many tokens: for a part of a model without the embedding, which
  // says so otherwise.
  void begin_pass(std::int64_t rows);
  // With what ShardedModel and others sum gradients and take their norm.
  const ModelParts& parts() const;

 private:
  friend TensorParallel parallelize(torch::nn::Module& model, Group& tp, const TensorPlan& plan,
                                    const TensorParallelOptions& options);
  struct Impl;
  explicit TensorParallel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Cuts the model's layers, of a part of a model those that it has. Parameters without memory get it
// for the part that is kept; nn::initialize() gives it to the others, or nn::give_memory(). The
// model must not have been given to ShardedModel or the like yet. Collective over tp, moves no
// bytes.
//
// Throws ConfigError, before anything is cut: chunks below 1; sequence of a model with experts; a
// vocabulary's Linear with a bias; a layer that no rule of the plan
// names, a rule that names none, a rule that does not fit its layer's kind; what dim_part() does.
TensorParallel parallelize(nn::TransformerImpl& model, Group& tp,
                           const TensorParallelOptions& options = {});
// The same of any model of nn's layers. With sequence the first layer that sees a sample is an
// Embedding cut by its vocabulary.
TensorParallel parallelize(torch::nn::Module& model, Group& tp, const TensorPlan& plan,
                           const TensorParallelOptions& options = {});

}  // namespace trireme
