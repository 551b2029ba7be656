// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardedModel: a module that all ranks of a group train together, each of which keeps only a share
// of what training needs (ZeRO; Rajbhandari et al. 2020).
//
//   stage  a rank of N keeps              sends in a step, in elements, of P parameters
//     0    everything                     2 P (N-1)/N   all_reduce of gradients
//     1    1/N of the optimizer's state   2 P (N-1)/N   reduce_scatter of gradients, all_gather of
//                                                       weights
//     2    and of the gradients           the same, a reduce_scatter for each micro-batch
//     3    and of the weights             3 P (N-1)/N   and two all_gathers for each micro-batch
//
//   const auto world = trireme::init();
//   Net net;
//   ShardedModel sharded(*net, *world,
//                        {.stage = 2, .units = {net->first.get(), net->second.get()}});
//   const auto optimizer = optim::make_optimizer(config, sharded.space());
//   for (...) {
//     for (std::int64_t m : sharded.micro_batches())
//       sharded.backward(sharded.forward([&] { return loss(net, samples(m)); }));
//     sharded.finish_gradients();
//     sharded.step(*optimizer, learning_rate, optim::clip_scale(sharded.gradient_norm(), 1.0));
//   }
//
// A unit is a subtree of the model whose gradients (stage 2) and weights (stage 3) are there
// together: a transformer's block. In stage 3 the model lets run() compute each unit:
//
//   y = sharded.run(*net->first, x, [&](const at::Tensor& x) { return net->first(x); });
//
// Its weights are gathered before, while the unit ahead computes, and freed after; backward gathers
// them again. What autograd has saved of them needs no memory meanwhile.
//
// Hybrid: with shard_ranks S below N every S ranks side by side, those of a host say, keep a copy
// of the model between them ("N" in the table is S then), and the N/S copies add up their gradients
// (shard_plan.h). Between them a rank sends 2 (N/S - 1) / (N/S) x P/S elements a step and no
// weights, all else stays inside: for a slow network between hosts. The price is memory.
//
// Offload (ZeRO-Offload; Ren et al. 2021): a module on a GPU computes there, on weights that come
// from host memory; f32 masters, sums of gradients and the optimizer lie and work on the host. In
// all stages gradients go there unit by unit, not in buckets, while backward computes the units
// before, and are summed as without. Weights come back in step(), in stage 3 ahead of their use.
// Bytes of P parameters with AdamW, which keeps two moments:
//
//   stage   GPU, f32 or bf16   host, f32          host, bf16
//     0     4 P or 2 P         16 P               18 P
//     1     4 P or 2 P         4 P + 12 P/N       4 P + 14 P/N
//     2     4 P or 2 P         16 P/N             18 P/N
//     3     none               16 P/N             18 P/N
//
// and on the GPU f32 gradients of the unit at hand, of what belongs to no unit and of at most three
// units on their way, and in stage 3 what is gathered. docs/data_parallel.md has the rest.
//
// The result is the same, bit for bit, for every stage, number of ranks and of copies in f32:
// micro-batches are summed in one tree (micro_batch_plan.h), the norm over one row of blocks
// (flat_layout.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/parallel/model_parts.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/parallel/stage_norm.h"
#include "trireme/parallel/step_exchange.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class Group;

struct ShardOptions {
  int stage = 1;
  // Of the weights that compute: f32, or bf16 or f16 with f32 masters, which the optimizer updates.
  // Gradients are those of that dtype, summed in f32. f16, whose copies are rounded to nearest,
  // wants its loss scaled: optim/loss_scale.h.
  at::ScalarType dtype = at::kFloat;
  std::int64_t micro_batches = 0;  // of a step, over all ranks; 0: one for each rank
  std::int64_t bucket_bytes = std::int64_t{25}
                              << 20;  // stages 0 and 1: gradients that travel together
  // Subtrees of the model. None: the whole model is one unit, which is of use in stages 0 and 1.
  std::vector<const torch::nn::Module*> units = {};
  // Stage 3: units that are gathered ahead, and the most that gathered weights may take at once, 0:
  // as much as there is. What the model needs at the moment is gathered in any case.
  int prefetch = 1;
  std::int64_t gather_budget_bytes = 0;
  // Ranks that keep one copy of the model between them: a power of two that divides the group's,
  // and whose ranks should share a host. 0: all ranks. kHostRanks: the ranks of one host, of which
  // the group knows.
  int shard_ranks = 0;
  // For a module on a GPU: see above. One on the CPU then computes on weights of its own beside the
  // host's, by real copies: a trial of the same.
  bool offload = false;
  // Where the module is a part of a model that other ranks than the group's hold the rest of
  // (tensor/parallelize.h): gradients are summed and their norm is taken as they say. The ranks of
  // the group have the same part.
  ModelParts parts = {};
  // Which parameters, where others of the module are some other ShardedModel's; empty: all. Those
  // are left alone.
  ParameterFilter filter = {};
};

// Movable. Not thread-safe. All ranks of the group make one alike and call its functions in the
// same order.
class ShardedModel {
 public:
  // As Replica's: the module becomes rank 0's on all ranks, must not be changed afterwards, and
  // outlives this, as does the group. Collective, blocking. Throws ConfigError: a stage that is not
  // 0 to 3; shard_ranks as ShardPlan and host_shard_ranks() do, and in stage 0; micro_batches that
  // the ranks cannot share (stages 2 and 3: ShardPlan::rounds()); a budget that the largest unit
  // exceeds; models that differ; parameters on another device than the CPU without offload, or on
  // one that DeviceLink refuses. ShapeError as make_layout() does. CommError.
  //
  // On a GPU everything is to run on the stream that is current now, and ranks that are threads of
  // one process need a GPU each, since LibTorch has one thread for backward passes on it.
  ShardedModel(torch::nn::Module& module, Group& group, const ShardOptions& options);
  ~ShardedModel();
  ShardedModel(ShardedModel&&) noexcept;
  ShardedModel& operator=(ShardedModel&&) noexcept;

  const ModuleLayout& layout() const;
  // What an optimizer works on. Entries of two dims and more decay, and are hidden matrices unless
  // an embedding owns them; the caller may say better (a head is none).
  optim::OptimizerSpace space() const;
  // This rank's weights (masters), gradients and working copies, as the space has them.
  const std::vector<optim::PieceUpdate>& pieces() const;
  // Which elements these are.
  const std::vector<ShardPiece>& shard() const;

  // The numbers of this rank's micro-batches of a step, in the order of its calls of backward().
  const std::vector<std::int64_t>& micro_batches() const;
  // Calls f, which may use all parameters that belong to no unit, and units by way of run(). With
  // gradients enabled, backward() of what it returns must follow before the next forward(). All
  // ranks call it (stage 3 gathers).
  at::Tensor forward(const std::function<at::Tensor()>& f);
  // f(inputs), where f uses the parameters of the unit. Inside of forward(). Gradient: as f's.
  // Throws ConfigError for a module that is no unit.
  using Computation = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;
  std::vector<at::Tensor> run(const torch::nn::Module& unit, const std::vector<at::Tensor>& inputs,
                              const Computation& f);
  at::Tensor run(const torch::nn::Module& unit, const at::Tensor& input,
                 const std::function<at::Tensor(const at::Tensor&)>& f);
  // As Replica::backward().
  void backward(const at::Tensor& loss, double weight = 1);
  // In its place, for micro-batches whose gradients do not come by one pass from a loss, as in a
  // pipeline: f adds those of the next to grad(), weighted already, by passes of autograd or
  // directly (ops::DirectGradients). Without forward(): in stage 3 weights are held. May nest,
  // where f's gradients are of several ShardedModels. Throws as backward().
  void add(double weight, const std::function<void()>& f);
  // Stage 3: all weights are gathered and stay until false is said, so that they travel once for
  // many micro-batches. Other stages: nothing. Collective, blocking.
  void hold_weights(bool held);
  // Ends the step's gradients: pieces() hold the sum over all micro-batches, by weight. Blocking,
  // collective. Throws CommError.
  void finish_gradients();
  // Of that sum, over all parts of the model, the same on all ranks. Collective, blocking: 8 bytes
  // for each 4096 elements.
  double gradient_norm();
  // What that norm is made of, for whoever puts it together from several ShardedModels: of this
  // one's gradients, by all ranks that share it. Collective, blocking.
  GradientSquares gradient_squares();
  // One update of the weights with gradients times scale, and the weights are those of all ranks
  // again. Gradients become zeros. Collective, blocking.
  void step(optim::Optimizer& optimizer, double learning_rate, double scale = 1);
  // Instead of step(): gradients become zeros, weights stay (a step that is skipped).
  void drop_gradients();

  // Whole f32 buffers [layout().size], by way of rank 0, for checkpoints. Collective, blocking.
  // shard: f32 [shard_size], the pieces one after the other, as OptimizerState has them; undefined
  // on other ranks than 0.
  at::Tensor gather_shard(const at::Tensor& shard);
  at::Tensor gather_weights();
  // The pieces of a whole buffer that every rank has: into this rank's shard, or its weights (and
  // what computes). set_weights: collective, blocking; optimizer: rounds the working copies as its
  // last step did, may be null.
  void scatter_shard(const at::Tensor& whole, const at::Tensor& shard) const;
  void set_weights(const at::Tensor& whole, const optim::Optimizer* optimizer = nullptr);
  // After the weights of pieces() were changed otherwise, as by WeightAverage::swap(): what
  // computes is theirs again, on all ranks. Collective, blocking. optimizer: as above.
  void publish_weights(const optim::Optimizer* optimizer = nullptr);

  const StepReport& report() const;
  // Payload that this rank has sent so far, and the part of it between copies of the model: of
  // gradients alone.
  std::int64_t bytes_sent();
  std::int64_t bytes_sent_between_replicas();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
