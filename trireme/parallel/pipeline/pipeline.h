// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Pipeline: a torch::nn::Sequential whose layers are spread over the ranks of a group.
//
//   const auto world = trireme::init();
//   torch::nn::Sequential net = make_net();
//   Pipeline pipeline(net, *world, {.schedule = "1f1b", .micro_batches = 8});
//   torch::optim::AdamW optimizer(pipeline.parameters());     // of this rank's layers
//   for (...) {
//     optimizer.zero_grad();
//     const PipelineLosses losses = pipeline.step(
//         [&](std::int64_t m) { return inputs(m); },                               // first stage
//         [&](const at::Tensor& y, std::int64_t m) { return loss(y, targets(m)); });  // last stage
//     optimizer.step();                                        // gradients: of losses.mean()
//   }
//
// Stages are runs of neighbouring layers; who has which, and in what order a rank computes, says
// the schedule (plan/generate_schedule.h). A world of one has all stages.
//
// Gradients are those of one rank that calls backward() for one micro-batch after the other, bit
// for bit, whatever the schedule and the ranks: each stage adds its gradients to grad() in the
// order of micro-batches, as autograd does, and a stage's inputs and their gradients travel as they
// are. That is so for layers of ops/, of torch::nn and for any others whose result depends on their
// inputs and parameters alone; a parameter that a layer uses more than twice may be an exception
// under schedules with backward passes in two parts (ops/split_backward.h). A BatchNorm
// sees the micro-batches in their order, too, so that its running means are those of one rank.
// torch::nn::Dropout draws from the random numbers of the process, which another layout draws in
// another order: results are as good, and not the same.
//
// With data parallelism each replica of the pipeline is a group of ranks ("pp"), and the ranks that
// have the same stages are another ("dp"). A Replica or ShardedModel of each stage takes its
// gradients:
//
//   Pipeline pipeline(net, *pp, {.micro_batches = 4, .loss_weight = 1});
//   std::map<int, ShardedModel> sharded;
//   for (const int stage : pipeline.stages()) {
//     auto& own = sharded.emplace(stage, ShardedModel(pipeline.module(stage), *dp,
//         {.stage = 2, .micro_batches = 4 * dp->size()})).first->second;
//     pipeline.set_add(stage, [&own](const auto& pass) { own.add(1, pass); });
//   }
//   pipeline.step(...);                       // micro-batch m is number own.micro_batches()[m]
//   for (auto& [stage, own] : sharded) own.finish_gradients(), own.step(optimizer, rate, scale);
//
// In ZeRO-3 hold_weights(true) comes before step() and hold_weights(false) after it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "trireme/plan/schedule.h"

namespace torch::nn {
class Module;
class Sequential;
}  // namespace torch::nn

namespace trireme {

class Group;

struct PipelineOptions {
  // A name of generate_schedule.h, or a schedule of as many ranks as the group has, which trains.
  // Without communication it gets it; it is verified in any case.
  std::variant<std::string, plan::Schedule> schedule = "1f1b";
  int micro_batches = 1;  // of a step
  int chunks = 1;         // stages on a rank, for interleaved
  // How many layers each stage has. Empty: as even as plan::cut_layers() makes it, by the time that
  // each layer takes on rank 0 with the example, or without one by its parameters.
  std::vector<int> layers = {};
  // Arguments of the first layer as inputs of a micro-batch will be. Each layer is run a few times,
  // forward and backward; buffers and random numbers are afterwards as before.
  std::vector<at::Tensor> example = {};
  // What a micro-batch's loss counts for in the gradients. 0: 1 / micro_batches, so that they are
  // those of the mean; 1, where whoever adds them up over replicas takes the mean.
  double loss_weight = 0;
};

struct PipelineLosses {
  std::vector<double> values;  // by micro-batch
  double mean() const;
};

// What the first layer is called with: a tensor, or one for each of its arguments.
struct LayerArguments {
  LayerArguments(at::Tensor tensor) : tensors{std::move(tensor)} {}         // NOLINT
  LayerArguments(std::vector<at::Tensor> all) : tensors(std::move(all)) {}  // NOLINT
  std::vector<at::Tensor> tensors;
};

// Movable. Not thread-safe. All ranks of the group make one and call its functions alike; functions
// that they are given are called on the thread of the call, and only where it is said. What one of
// them or a layer throws passes through, the others get a CommError with its first line and where
// it was, and the pipeline is of no more use.
class Pipeline {
 public:
  // Called with m = 0, 1, ... in this order.
  using Inputs = std::function<LayerArguments(std::int64_t micro_batch)>;
  using Loss = std::function<at::Tensor(const at::Tensor& output, std::int64_t micro_batch)>;
  using Take = std::function<void(const at::Tensor& output, std::int64_t micro_batch)>;

  // net: the same layers on all ranks, on the CPU; parameters and buffers become those of rank 0.
  // Those of other ranks' layers lose their memory, also for the caller. From layer to layer
  // travels a tensor, or a std::vector or std::tuple of up to kMostActivations (a vector: one less)
  // (stage.h), in the same dtypes and shapes for all micro-batches of a step. Collective, blocking.
  // Throws ConfigError: nets or options that differ between ranks; layers that do not add up, are
  // fewer than stages, or share a tensor with those of another stage; something on another device;
  // as generate_schedule() and verify_schedule() do; CommError.
  Pipeline(const torch::nn::Sequential& net, Group& group, const PipelineOptions& options = {});
  // In the middle of a step it ends the world by Group::abandon(), since others wait for that step.
  ~Pipeline();
  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;

  const plan::Schedule& schedule() const;
  const std::vector<int>& layers() const;  // of each stage
  const std::vector<int>& stages() const;  // this rank's, ascending
  // The layers of a stage of this rank, each by its name in the net. Throws ConfigError for another
  // rank's.
  torch::nn::Module& module(int stage) const;
  // Of this rank's stages, "3.weight".
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const;
  std::vector<at::Tensor> parameters() const;
  // Module::train() of this rank's layers.
  void train(bool on = true);

  // From here on gradients of a stage of this rank are computed within add(f): add calls f once,
  // for each micro-batch in their order, and f adds to grad().
  void set_add(int stage, std::function<void(const std::function<void()>&)> add);

  // Adds the gradients of a step to grad() of parameters() and returns the losses, on all ranks.
  // inputs: called on the rank of the first stage. loss: on that of the last; gives a scalar. The
  // last layer gives one tensor. Collective, blocking.
  //
  // Throws ShapeError: what travels changes its shape between micro-batches, or cannot travel; a
  // loss that is no scalar. Error after a step that ended with an exception. CommError as Group
  // does, with what this rank was at and whom it waited for, and of a lost rank what it was at.
  PipelineLosses step(const Inputs& inputs, const Loss& loss);
  // The losses of so many micro-batches, without gradients. Layers are in the mode that train() has
  // set. Collective, blocking. Throws as step().
  PipelineLosses evaluate(int micro_batches, const Inputs& inputs, const Loss& loss);
  // Gives the outputs of so many micro-batches to take, on the rank of the last stage, in the order
  // of micro-batches; otherwise as evaluate().
  void forward(int micro_batches, const Inputs& inputs, const Take& take);

  // Payload that this rank has sent so far to other stages.
  std::int64_t bytes_sent() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
