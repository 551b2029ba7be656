// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model read back from a checkpoint, to evaluate or to generate with.
#pragma once

#include <functional>
#include <string>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/data/tokenizer.h"
#include "trireme/nn/transformer.h"

namespace trireme {

struct SavedModel {
  std::string path;  // of the checkpoint
  std::int64_t step = 0;
  nn::Transformer model{nullptr};  // f32
  Tokenizer tokenizer;
};

enum class SavedWeights { kLast, kAverage };

// Which of a model's layers to read.
using ChoosePart = std::function<nn::TransformerPart(const nn::ModelConfig& config)>;

// path: a checkpoint, a run folder, or a folder of checkpoints. weights: those of the checkpoint's
// step, or their moving average (train.average_decay). Throws CheckpointError, also for a
// checkpoint without an average that was asked for. part: empty: all.
SavedModel load_saved_model(const std::string& path, SavedWeights weights = SavedWeights::kLast,
                            const ChoosePart& part = {});

}  // namespace trireme
