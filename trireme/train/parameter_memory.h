// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a rank keeps of the parameters that it has, in all or of one stage of a pipeline: weights,
// their sums of gradients, the optimizer's state. Counted from shapes, as the ledger counts it.
#pragma once

#include <cstdint>

#include "trireme/nn/transformer.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/optimizer.h"
#include "trireme/train/train_config.h"

namespace trireme {

struct JobShape {
  int ranks = 1;
  int threads = 1;      // of each rank
  int local_ranks = 1;  // that share this host's memory, and a copy with shard_ranks auto
};

// Parameters that lie in one flat buffer: a TrainedPart's.
struct OwnedParameters {
  std::int64_t begin = 0, end = 0;  // blocks
  int matrices = 0;                 // of [vocabulary, width]
  bool positions = false;           // learned ones
  bool final_norm = false;
};

// Of a model in one piece; and of a stage, without the head's matrix, which has a part of its own.
OwnedParameters whole_model(const nn::ModelConfig& config);
OwnedParameters blocks_of_stage(const nn::ModelConfig& config, const nn::TransformerPart& part);
inline constexpr OwnedParameters kHeadMatrix{.matrices = 1};

// Elements of the flat buffers: each parameter begins at a multiple of their alignment, each unit
// at a block.
struct FlatElements {
  std::int64_t rest = 0;       // what belongs to no block of the model
  std::int64_t block = 0;      // of the largest block of the model
  std::int64_t blocks = 0;     // of all
  std::int64_t experts = 0;    // of them, of experts
  optim::StateElements kinds;  // of all of it; gaps count as vectors
  std::int64_t all() const { return rest + blocks; }
};

FlatElements flat_elements(const TrainConfig& config, const OwnedParameters& owned);

// kWeights, kGradients and kOptimizer of them, and in kWorkspace what is kept beside them while
// gradients are summed and weights gathered: with ZeRO, and with experts on several ranks.
MemorySplit parameter_memory(const TrainConfig& config, const JobShape& job,
                             const OwnedParameters& owned);

}  // namespace trireme
