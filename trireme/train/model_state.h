// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelState: the weights of a run and all that an update needs, shared among its ranks
// (parallel/: shard/sharded_model.h, tensor/parallelize.h, context/context_parallel.h,
// expert/expert_parallel.h), and how they go to and from checkpoints.
//
//   ModelState state(config, world, seed);
//   state.backward(state.loss(batch));
//
// A checkpoint holds whole tensors, whatever the mesh and the stage of ZeRO.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/comm/group.h"
#include "trireme/nn/transformer.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/context/context_parallel.h"
#include "trireme/parallel/expert/expert_parallel.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/parallel/whole_layout.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/state_files.h"
#include "trireme/train/step_model.h"
#include "trireme/train/train_config.h"

namespace trireme {

// Not thread-safe. All ranks make one alike. The world outlives it.
class ModelState final : public RunState {
 public:
  // config.model resolved. Weights by nn::initialize(seed); without a seed they are whatever memory
  // holds, for a load() that follows. Collective. Throws as ShardedModel, parallelize() and
  // train_mesh() do.
  ModelState(const TrainConfig& config, Group& world, std::optional<std::uint64_t> seed);

  // Weights, and with with_optimizer the state of the optimizer and the average of the weights;
  // without, the average begins at these weights. Collective; each rank reads the checkpoint.
  // Throws CheckpointError on another optimizer, another shape (which tensor, both shapes), a
  // missing or a surplus tensor, a missing average.
  void load(const Checkpoint& checkpoint, bool with_optimizer);
  // The same of where a run begins. Throws CheckpointError also when ranks would begin at different
  // steps.
  void load(const StartPoint& start);
  // The average of the weights in their place, and back: for evaluation. Nothing without an average
  // (config.train.average_decay 0). Collective, blocking.
  void swap_average();

  // All collective.
  const std::vector<std::int64_t>& micro_batches() const override { return own_micro_batches_; }
  at::Tensor loss(const MicroBatch& batch) override;
  void backward(const at::Tensor& loss) override { sharded_.backward(loss); }
  GradientSum finish_gradients(std::vector<double>& extras) override;
  void step(double learning_rate, double scale) override;
  void drop_gradients() override;
  StepReport report() override { return sharded_.report(); }
  int rank() const override { return groups_.world().rank(); }
  int size() const override { return groups_.world().size(); }
  std::string describe_workers() const override;
  std::int64_t first_step() const override { return first_step_; }
  double total(double value) override;
  Evaluation evaluate(const Evaluator& evaluator) override;
  void save(CheckpointWriter* writer, CheckpointState& state) override;
  void finish() override { groups_.world().barrier(); }

  nn::Transformer& model() { return model_; }
  ShardedModel& sharded() { return sharded_; }
  const ParallelGroups& groups() const { return groups_; }
  // Payload that this rank has sent so far for activations that are cut or summed.
  std::int64_t activation_bytes_sent() const;
  optim::Optimizer& optimizer() { return *optimizer_; }

 private:
  void load_average(const Checkpoint& checkpoint, const at::Tensor& parts);
  void save_average(CheckpointWriter* writer, CheckpointState& state);
  // How the model is cut across ranks, if it is.
  struct Cuts {
    std::optional<ContextParallel> context;
    std::optional<ExpertParallel> experts;
    std::optional<TensorParallel> tensor;
  };
  static Cuts cut_model(nn::TransformerImpl& model, const TrainConfig& config,
                        const ParallelGroups& groups, std::optional<std::uint64_t> seed);
  ModelParts model_parts() const;
  std::vector<std::int64_t> own_micro_batches(const ParallelConfig& parallel) const;
  at::Tensor share_of_loss(const MicroBatch& batch);
  // Without gradient. Collective over cp.
  at::Tensor whole_loss(const MicroBatch& batch);
  // Of this rank's parts, whole in its copy of the model (undefined: not here): of the model, on
  // rank 0.
  at::Tensor put_together(const at::Tensor& parts) const;

  const ParallelGroups groups_;
  const double micro_batches_;  // of a step
  nn::Transformer model_;
  Cuts cuts_;
  ShardedModel sharded_;
  std::vector<std::int64_t> own_micro_batches_;
  const WholeLayout whole_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::string optimizer_name_;
  double average_decay_;
  std::int64_t first_step_ = 0;
  std::optional<optim::WeightAverage> average_;
  at::Tensor chosen_LE_;  // of a step's tokens, where routers have a bias; else undefined
};

// Weights by nn::initialize(seed), or whatever memory holds; in the ledger's weights.
nn::Transformer initialized_model(const nn::ModelConfig& config, std::optional<std::uint64_t> seed);
// The model's loss of a batch; where gradients are enabled, with dropout.
at::Tensor loss_of(nn::TransformerImpl& model, const MicroBatch& batch);
// What a run's config says of dropout.
nn::DropoutConfig dropout_config(const TrainConfig& config);

// More files of a checkpoint, and keys of its state.
inline constexpr char kTokenizerFile[] = "tokenizer.json";
inline constexpr char kModelConfigFile[] = "model.yaml";
inline constexpr char kTokenizerHashKey[] = "tokenizer_hash";
inline constexpr char kTokensSeenKey[] = "tokens_seen";
inline constexpr char kNumericsKey[] = "numerics";

// The resolved model config that a checkpoint was written with. Throws CheckpointError.
nn::ModelConfig checkpoint_model_config(const Checkpoint& checkpoint);

// Throws CheckpointError unless the checkpoint was written by a model like config (resolved) with
// that tokenizer; names what differs, with both values.
void check_checkpoint_fits(const Checkpoint& checkpoint, const nn::ModelConfig& config,
                           const std::string& tokenizer_hash);

}  // namespace trireme
