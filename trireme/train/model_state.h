// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelState: the weights of a run and all that an update needs, shared among its ranks, and how
// they go to and from checkpoints.
//
//   ModelState state(config, world, seed);
//   state.compute_gradients(load, losses);
//
// A rank has one chunk of the model (model_chunk.h), which is all of it, and its parameters in one
// part (trained_part.h); or, of a pipeline, a chunk for each of its stages (pipeline_steps.h). A
// checkpoint holds whole tensors, whatever the mesh, the stages and the stage of ZeRO.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/stage_layouts.h"
#include "trireme/parallel/stage_norm.h"
#include "trireme/train/model_chunk.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/pipeline_steps.h"
#include "trireme/train/state_files.h"
#include "trireme/train/step_model.h"
#include "trireme/train/train_config.h"
#include "trireme/train/trained_part.h"

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
  // missing or, without a pipeline, a surplus tensor, a missing average.
  void load(const Checkpoint& checkpoint, bool with_optimizer);
  // The same of where a run begins. Throws CheckpointError also when ranks would begin at different
  // steps.
  void load(const StartPoint& start);
  // The average of the weights in their place, and back: for evaluation. Nothing without an average
  // (config.train.average_decay 0). Collective, blocking.
  void swap_average();

  // All collective.
  void compute_gradients(const LoadBatch& load, std::span<double> losses) override;
  GradientSum finish_gradients(std::vector<double>& extras) override;
  void step(double learning_rate, double scale) override;
  void drop_gradients() override;
  StepReport report() override;
  int rank() const override { return groups_.world().rank(); }
  int size() const override { return groups_.world().size(); }
  std::string describe_workers() const override;
  std::int64_t first_step() const override { return first_step_; }
  double total(double value) override;
  Evaluation evaluate(const Evaluator& evaluator) override;
  void save(CheckpointWriter* writer, CheckpointState& state) override;
  void trace_next_step() override;
  void write_trace(const std::string& file) override;
  void finish() override { groups_.world().barrier(); }

  const ParallelGroups& groups() const { return groups_; }
  // Payload that this rank has sent so far: for gradients and weights, of it what went to other
  // copies of the model; for activations that are cut, summed or passed on.
  std::int64_t bytes_sent();
  std::int64_t bytes_sent_between_replicas();
  std::int64_t activation_bytes_sent() const;
  // Null without a pipeline.
  const PipelinePlan* pipeline_plan() const { return plan_.get(); }
  const PipelineSteps* pipeline() const { return pipeline_.get(); }

  // Of a model in one piece: it, its part, and its passes, one after the other.
  nn::TransformerImpl& model() { return chunks_.front()->model(); }
  ShardedModel& sharded() { return parts_.front()->sharded(); }
  optim::Optimizer& optimizer() { return parts_.front()->optimizer(); }
  const std::vector<std::int64_t>& micro_batches() const { return own_micro_batches_; }
  at::Tensor loss(const MicroBatch& batch);
  void backward(const at::Tensor& loss) { sharded().backward(loss); }

 private:
  void make_whole(const TrainConfig& config, std::optional<std::uint64_t> seed);
  void make_stages(const TrainConfig& config, std::optional<std::uint64_t> seed);
  std::vector<std::int64_t> find_micro_batches(const TrainConfig& config) const;
  void add_choices(ModelChunk& chunk);
  void update_router_bias();
  // Without gradient. Collective over cp and the pipeline, whose last rank has it.
  double whole_loss(const MicroBatch& batch);
  // On ranks that have the parts whole: of the model, on rank 0.
  at::Tensor gather_stages(const std::vector<at::Tensor>& wholes) const;
  bool has_wholes() const;
  std::vector<optim::OptimizerState> gather_states();
  void add_router_biases(CheckpointWriter* writer);

  const ParallelGroups groups_;
  const double micro_batches_;  // of a step
  std::unique_ptr<PipelinePlan> plan_;
  std::vector<std::unique_ptr<ModelChunk>> chunks_;
  std::vector<std::unique_ptr<TrainedPart>> parts_;
  std::vector<std::int64_t> own_micro_batches_;
  std::unique_ptr<PipelineSteps> pipeline_;
  std::unique_ptr<StageNorm> norm_;
  std::unique_ptr<StageLayouts> whole_;  // on ranks that have their parts whole
  std::string optimizer_name_;
  std::int64_t first_step_ = 0;
  std::vector<at::Tensor> chosen_LE_;  // by chunk, of a step's tokens, where routers have a bias
};

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
