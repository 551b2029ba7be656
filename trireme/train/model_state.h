// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelState: the weights of a run and all that an update needs, shared among its ranks
// (parallel/shard/sharded_model.h), and how they go to and from checkpoints.
//
//   ModelState state(config, group, seed);
//   state.sharded().backward(state.sharded().forward([&] { return state.model()->loss(...); }));
//
// A checkpoint holds whole tensors, whatever the number of ranks and the stage of ZeRO.
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
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/train/train_config.h"

namespace trireme {

// Not thread-safe. All ranks make one alike.
class ModelState {
 public:
  // config.model resolved. Weights by nn::initialize(seed); without a seed they are whatever memory
  // holds, for a load() that follows. Collective. Throws as ShardedModel does.
  ModelState(const TrainConfig& config, Group& group, std::optional<std::uint64_t> seed);

  // Weights, and with with_optimizer the state of the optimizer and the average of the weights;
  // without, the average begins at these weights. Collective; each rank reads the checkpoint.
  // Throws CheckpointError on another optimizer, another shape (which tensor, both shapes), a
  // missing or a surplus tensor, a missing average.
  void load(const Checkpoint& checkpoint, bool with_optimizer);
  // Rank 0 adds the model's files to its writer, which others leave null, and what load() needs
  // beside them to state. Collective: the shards come together on rank 0.
  void save(CheckpointWriter* writer, CheckpointState& state);

  // One update of the weights and of their average (ShardedModel::step()).
  void step(double learning_rate, double gradient_scale);
  // The average of the weights in their place, and back: for evaluation. Nothing without an average
  // (config.train.average_decay 0). Collective, blocking.
  void swap_average();

  nn::Transformer& model() { return model_; }
  ShardedModel& sharded() { return sharded_; }
  optim::Optimizer& optimizer() { return *optimizer_; }

 private:
  void load_average(const Checkpoint& checkpoint, const at::Tensor& whole);
  void save_average(CheckpointWriter* writer, CheckpointState& state);
  // Throws CheckpointError for one that another method wrote.
  void check_optimizer(const Checkpoint& checkpoint) const;

  nn::Transformer model_;
  ShardedModel sharded_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::string optimizer_name_;
  double average_decay_;
  std::optional<optim::WeightAverage> average_;
};

// File names inside a checkpoint, and keys of its state.
inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kOptimizerFile[] = "optimizer.safetensors";
inline constexpr char kAverageFile[] = "average.safetensors";
inline constexpr char kTokenizerFile[] = "tokenizer.json";
inline constexpr char kModelConfigFile[] = "model.yaml";
inline constexpr char kTokenizerHashKey[] = "tokenizer_hash";
inline constexpr char kOptimizerNameKey[] = "optimizer";
inline constexpr char kOptimizerStepsKey[] = "optimizer_steps";
inline constexpr char kAverageUpdatesKey[] = "average_updates";
inline constexpr char kTokensSeenKey[] = "tokens_seen";
inline constexpr char kNumericsKey[] = "numerics";

// A whole number of a checkpoint's state. Throws CheckpointError.
std::int64_t checkpoint_number(const Checkpoint& checkpoint, const std::string& key);

// Fills flat f32 weights from the checkpoint's model, or from another file of it with the same
// tensors (kAverageFile). Throws CheckpointError on another shape (which tensor, both shapes), a
// missing or a surplus tensor, a missing file.
void load_weights(const Checkpoint& checkpoint, const std::vector<FlatEntry>& entries,
                  const at::Tensor& weights, const char* file_name = kModelFile);

// The resolved model config that a checkpoint was written with. Throws CheckpointError.
nn::ModelConfig checkpoint_model_config(const Checkpoint& checkpoint);

// Throws CheckpointError unless the checkpoint was written by a model like config (resolved) with
// that tokenizer; names what differs, with both values.
void check_checkpoint_fits(const Checkpoint& checkpoint, const nn::ModelConfig& config,
                           const std::string& tokenizer_hash);

}  // namespace trireme
