// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/stage_memory.h"

#include <algorithm>

#include "trireme/train/activation_sizes.h"

namespace trireme {
namespace {

using enum MemoryCategory;
using nn::Recompute;

constexpr std::int64_t kF32Bytes = 4, kI64Bytes = 8;

// Of one pass of a stage. The names are those of plan::StageCosts.
class StageBytes {
 public:
  StageBytes(const TrainConfig& config, const nn::TransformerPart& part)
      : config_(config),
        part_(part),
        t_(config),
        rows_(rows_of(config)),
        recompute_(config.compute.recompute_mode()) {}

  std::int64_t activation() const {
    const std::int64_t blocks = part_.end - part_.begin;
    std::int64_t bytes = table();
    if (part_.embedding) bytes += rows_ * kI64Bytes;
    if (part_.head) bytes += head_kept();
    // Its inputs: the stream, from the second one on in two parts.
    if (recompute_ == Recompute::kBlocks) return bytes + (2 * blocks - 1) * t_.stream;
    return bytes + over_blocks([&](bool sparse) { return t_.block_kept(sparse); });
  }

  // Of each matrix, what it was multiplied with and the gradient of the product.
  std::int64_t weight_work() const {
    std::int64_t bytes = over_blocks([&](bool sparse) {
      const std::int64_t attention = t_.stream + t_.q + (t_.q + 2 * t_.kv + t_.stream);
      return attention + (sparse ? t_.mixture_kept + std::max<std::int64_t>(0, t_.mixture_gradients)
                                 : mlp_work());
    });
    const bool records_rows = part_.embedding && (!config_.model.tied() || config_.model.is_gpt2());
    if (records_rows) bytes += t_.stream + rows_ * kI64Bytes;
    return bytes;
  }

  // The stage's results; those of the last are logits and gradients, block of rows by block.
  std::int64_t forward_work() const {
    std::int64_t bytes = 2 * t_.stream;
    if (recompute_ == Recompute::kActivations) bytes = std::max(bytes, t_.hidden + t_.stream);
    if (recompute_ == Recompute::kBlocks) bytes += t_.block_kept(last_is_sparse());
    if (!part_.head) return bytes;
    return std::max(
        bytes, t_.stream + t_.gathered + t_.logits + (config_.model.tied() ? 0 : t_.head_gradient));
  }

  // The moments of the last block, which goes backward first, as memory_estimate.cc has them; a
  // gradient of the stream has come in a buffer of its own, or is made from the loss.
  std::int64_t backward_work() const {
    const bool blocks = recompute_ == Recompute::kBlocks;
    const std::int64_t last_kept = t_.block_kept(last_is_sparse());
    const std::int64_t again = blocks ? last_kept + t_.stream : 0;
    const std::int64_t mlp_kept = last_kept - t_.attention_kept();
    const std::int64_t mlp = again + 2 * t_.gathered + t_.all_rows +
                             (last_is_sparse() ? t_.mixture_gradients : t_.mlp_gradients);
    const std::int64_t attention = again - mlp_kept + (blocks ? 2 * t_.stream : 0) + t_.stream +
                                   2 * t_.gathered + 2 * t_.q + 2 * t_.kv + t_.across;
    const std::int64_t in_block = std::max<std::int64_t>({0, mlp, attention});
    if (!part_.head) return in_block;
    // By then what the head has kept is gone.
    return std::max(2 * t_.stream + t_.gathered + t_.norm_partials,
                    in_block + t_.stream - head_kept());
  }

  std::int64_t boundary() const { return part_.head ? 0 : t_.stream; }
  std::int64_t tied() const { return part_.head && config_.model.tied() ? t_.head_gradient : 0; }

 private:
  // The final norm's sum and the gradient of what it made.
  std::int64_t head_kept() const { return t_.moments + t_.stream + t_.all_rows; }

  // Rotary positions, which each pass has its own of.
  std::int64_t table() const {
    const nn::ModelConfig& c = config_.model;
    return c.is_gpt2() ? 0 : c.context * c.head_width() * kF32Bytes;
  }

  std::int64_t mlp_work() const {
    const std::int64_t before = config_.model.is_gpt2() ? 1 : 2;
    // Hidden values, or what they are computed from again.
    const std::int64_t values = recompute_ == Recompute::kActivations ? before : 1;
    return 2 * t_.stream + (values + before) * t_.hidden;
  }

  bool last_is_sparse() const { return config_.model.experts.in_layer(part_.end - 1); }

  template <class Bytes>
  std::int64_t over_blocks(const Bytes& bytes) const {
    std::int64_t sum = 0;
    for (std::int64_t layer = part_.begin; layer < part_.end; ++layer) {
      sum += bytes(config_.model.experts.in_layer(layer));
    }
    return sum;
  }

  const TrainConfig& config_;
  const nn::TransformerPart& part_;
  const TensorBytes t_;
  const std::int64_t rows_;
  const Recompute recompute_;
};

}  // namespace

MemorySplit stage_parameter_memory(const TrainConfig& config, const JobShape& job,
                                   const nn::TransformerPart& part) {
  MemorySplit memory = parameter_memory(config, job, blocks_of_stage(config.model, part));
  if (part.head) {
    const MemorySplit head = parameter_memory(config, job, kHeadMatrix);
    for (const MemoryCategory category : kMemoryCategories) memory[category] += head[category];
  }
  if (part.embedding && config.model.tied()) {
    const std::int64_t rows = LargestPart(config.model, config.parallel.tp).vocab_size;
    memory[kWeights] += rows * config.model.width * (config.train.dtype == "bf16" ? 2 : kF32Bytes);
  }
  return memory;
}

void add_stage_bytes(const TrainConfig& config, const JobShape& job,
                     const nn::TransformerPart& part, plan::StageCosts& costs) {
  const StageBytes bytes(config, part);
  costs.activation_bytes = bytes.activation();
  costs.weight_work_bytes = bytes.weight_work();
  costs.boundary_bytes = bytes.boundary();
  costs.forward_work_bytes = bytes.forward_work();
  costs.backward_work_bytes = bytes.backward_work();
  costs.tied_bytes = bytes.tied();
  costs.weight_bytes = stage_parameter_memory(config, job, part).total();
}

}  // namespace trireme
