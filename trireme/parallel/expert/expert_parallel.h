// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Expert parallelism: the experts of a model spread over ranks, each of which computes
// micro-batches of its own (Lepikhin et al. 2020, GShard; Rajbhandari et al. 2022, DeepSpeed-MoE).
// Tokens travel to their experts and back, weights stay where they are.
//
//   const Mesh mesh({{"dp", 2}, {"ep", 4}});
//   const auto ep = world->split(mesh, "ep"), dp = world->split(mesh, "dp");
//   const auto model = [&] {
//     const nn::ParametersWithoutMemory later;               // only the own experts get memory
//     return nn::Transformer(config);
//   }();
//   const ExpertParallel spread = expert_parallel(*model, *ep);
//   nn::initialize(*model, seed);                            // the same weights on any mesh
//   ShardedModel sharded(*model, *dp, {.parts = spread.parts()});
//
// Rank r of n keeps experts [E r / n, E (r + 1) / n) of each layer, rounded down, and all else. ep
// is a data axis for all else: each of its ranks has other micro-batches. So gradients of what all
// have are sums over dp and ep, as parts() says; those of experts over dp, since their tokens have
// come from all of ep already.
//
//   rank            0                       1
//   own rows        m0: e0 e1 | e2 e3       m1: e0 e1 | e2 e3
//   counts          all_to_all of numbers of rows
//   there           m0: e0 e1, m1: e0 e1    m0: e2 e3, m1: e2 e3
//   back            all_to_all the other way
//
// An expert multiplies the rows of each micro-batch by themselves, in the order of the ranks, and
// adds their parts of its gradient in f32 in that order: products have the bits that they have on
// one rank, sums are associated by ranks. What tokens choose, what is dropped and the losses of
// routing are decided where the micro-batch is, before anything travels, so that they are those of
// one rank.
//
// Weights of losses: the gradient that reaches an expert from a micro-batch is that of its rank's
// loss, as it is weighed there. With each loss a mean over its own micro-batch, and M of them in a
// step over dp and ep together, the sums are M times the mean loss's gradients: divide by M,
// whatever the layout. Every rank of ep runs as many passes as the others, forward and backward, in
// the same order, evaluation included: all are collective.
//
// A rank sends, per layer with experts and pass, forward or backward, the rows of its micro-batch
// whose experts are on others, and what becomes of those of others here: with even choices together
// 2 (n - 1) / n x N k C elements for N tokens of k choices; and once, forward, 8 bytes for each
// expert of another rank.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "trireme/nn/transformer.h"
#include "trireme/parallel/model_parts.h"

namespace trireme {

class Group;

// Where the experts are. Movable. Outlives the model's last pass.
class ExpertParallel {
 public:
  ~ExpertParallel();
  ExpertParallel(ExpertParallel&&) noexcept;
  ExpertParallel& operator=(ExpertParallel&&) noexcept;

  // With what ShardedModel and others sum gradients and take their norm.
  const ModelParts& parts() const;
  // Of tokens and counts, by this rank to others.
  std::int64_t bytes_sent() const;

 private:
  friend ExpertParallel expert_parallel(nn::TransformerImpl& model, Group& ep);
  struct Impl;
  explicit ExpertParallel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Experts [first, second) of E that rank `rank` of `ranks` keeps.
std::pair<std::int64_t, std::int64_t> experts_of_rank(std::int64_t experts, int rank, int ranks);

// Keeps this rank's experts. Where parameters have no memory these get it; nn::initialize() gives
// it to the others, or nn::give_memory(). The model must not have been given to ShardedModel or the
// like yet. ep outlives what is returned. Collective over ep, moves no bytes. Throws ConfigError,
// before anything is cut: a model without experts, more ranks than experts.
ExpertParallel expert_parallel(nn::TransformerImpl& model, Group& ep);

}  // namespace trireme
