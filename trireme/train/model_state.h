// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelState: the weights of a run and all that an update needs, and how they go to and from
// checkpoints.
//
// In f32 the model's flat parameters are the weights. In bf16 the weights are f32 masters, and the
// model computes in a rounded copy of them.
//
//   ModelState state(config.model, config.optimizer, at::kBFloat16, seed);
//   state.update(gradient_sum, learning_rate, scale);
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/nn/transformer.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/train/train_config.h"

namespace trireme {

class ModelState {
 public:
  // config resolved. dtype: f32 or bf16. Weights by nn::initialize(seed); without a seed they are
  // whatever memory holds, for a load() that follows.
  ModelState(const nn::ModelConfig& config, const optim::OptimizerConfig& optimizer,
             at::ScalarType dtype, std::optional<std::uint64_t> seed);

  // Weights, and optimizer state when with_optimizer. Throws CheckpointError on another shape
  // (which tensor, both shapes), a missing or a surplus tensor.
  void load(const Checkpoint& checkpoint, bool with_optimizer);
  // Adds the model's files to the writer and what load() needs beside them to state.
  void save(CheckpointWriter& writer, CheckpointState& state) const;

  // One step on gradients (f32 flat) times scale; leaves zeros in them.
  void update(const at::Tensor& gradients, double learning_rate, double scale);

  nn::Transformer& model() { return model_; }
  FlatParameters& flat() { return flat_; }
  const at::Tensor& weights() const { return weights_; }  // f32 [flat().size()]

 private:
  void load_optimizer(const Checkpoint& checkpoint);

  nn::Transformer model_;
  at::Tensor weights_;
  FlatParameters flat_;
  at::Tensor working_copy_;  // flat_.data() in bf16; undefined in f32
  std::unique_ptr<optim::Optimizer> optimizer_;
};

// File names inside a checkpoint, and keys of its state.
inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kOptimizerFile[] = "optimizer.safetensors";
inline constexpr char kTokenizerFile[] = "tokenizer.json";
inline constexpr char kModelConfigFile[] = "model.yaml";
inline constexpr char kTokenizerHashKey[] = "tokenizer_hash";
inline constexpr char kOptimizerStepsKey[] = "optimizer_steps";
inline constexpr char kTokensSeenKey[] = "tokens_seen";
inline constexpr char kNumericsKey[] = "numerics";

// A whole number of a checkpoint's state. Throws CheckpointError.
std::int64_t checkpoint_number(const Checkpoint& checkpoint, const std::string& key);

// Fills flat f32 weights from the checkpoint's model. Throws CheckpointError on another shape
// (which tensor, both shapes), a missing or a surplus tensor.
void load_weights(const Checkpoint& checkpoint, const std::vector<FlatEntry>& entries,
                  const at::Tensor& weights);

// The resolved model config that a checkpoint was written with. Throws CheckpointError.
nn::ModelConfig checkpoint_model_config(const Checkpoint& checkpoint);

// Throws CheckpointError unless the checkpoint was written by a model like config (resolved) with
// that tokenizer; names what differs, with both values.
void check_checkpoint_fits(const Checkpoint& checkpoint, const nn::ModelConfig& config,
                           const std::string& tokenizer_hash);

}  // namespace trireme
