// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/trained_part.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "trireme/comm/group.h"
#include "trireme/train/state_files.h"

namespace trireme {
namespace {

// Elements that both pieces have, from one to the other.
void copy_common(const at::Tensor& from, const std::vector<ShardPiece>& from_pieces,
                 const at::Tensor& to, const std::vector<ShardPiece>& to_pieces) {
  std::size_t first = 0;
  for (const ShardPiece& target : to_pieces) {
    for (std::size_t i = first; i < from_pieces.size(); ++i) {
      const ShardPiece& source = from_pieces[i];
      if (source.begin >= target.end) break;
      if (source.end <= target.end) first = i + 1;
      const std::int64_t begin = std::max(source.begin, target.begin);
      const std::int64_t count = std::min(source.end, target.end) - begin;
      if (count <= 0) continue;
      to.narrow(0, target.local_begin + begin - target.begin, count)
          .copy_(from.narrow(0, source.local_begin + begin - source.begin, count));
    }
  }
}

// Of a step, as the ranks that sum gradients count them: each rank of cp computes its tokens' share
// of a micro-batch, and each rank of ep has its own.
std::int64_t passes_of(const TrainConfig& config) {
  return config.batch.micro_batches * config.parallel.cp / config.parallel.ep;
}

ShardOptions shard_options(ModelChunk& chunk, const TrainConfig& config,
                           const ParameterFilter& filter) {
  const ParallelConfig& parallel = config.parallel;
  return {.stage = static_cast<int>(parallel.shard),
          .dtype = config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat,
          .micro_batches = passes_of(config),
          .bucket_bytes = parallel.bucket_bytes,
          .units = chunk.model().blocks(),
          .prefetch = static_cast<int>(parallel.prefetch),
          .gather_budget_bytes = parallel.gather_budget_bytes,
          .shard_ranks = static_cast<int>(parallel.shard_ranks),
          .parts = chunk.parts(filter),
          .filter = filter};
}

at::Tensor zeros_of(std::int64_t elements) {
  return at::zeros({elements}, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

TrainedPart::TrainedPart(ModelChunk& chunk, const TrainConfig& config, const ParallelGroups& groups,
                         const ParameterFilter& filter)
    : sharded_(chunk.model(), groups.replicas(), shard_options(chunk, config, filter)),
      whole_(sharded_.layout(), groups.parts()),
      optimizer_(optim::make_optimizer(config.optimizer, sharded_.space())),
      average_decay_(config.train.average_decay),
      is_stage_(config.parallel.pp > 1) {
  if (average_decay_ > 0) average_.emplace(average_decay_, sharded_.pieces());
}

void TrainedPart::load(const Checkpoint& checkpoint, bool with_optimizer) {
  const ModuleLayout& layout = sharded_.layout();
  const at::Tensor parts = zeros_of(layout.size);
  load_weights(checkpoint, layout, parts, kModelFile, is_stage_);
  if (!with_optimizer) {
    sharded_.set_weights(parts);
    if (average_) average_.emplace(average_decay_, sharded_.pieces());
    return;
  }
  optimizer_->set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  sharded_.set_weights(parts, optimizer_.get());
  const std::vector<optim::OptimizerState> state = optimizer_->state();
  load_optimizer(checkpoint, layout, state, is_stage_);
  optimizer_->set_state(state);
  if (!average_) return;
  average_->set_updates(load_average(checkpoint, layout, average_decay_, parts, is_stage_));
  sharded_.scatter_shard(parts, average_->values());
}

void TrainedPart::step(double learning_rate, double scale) {
  sharded_.step(*optimizer_, learning_rate, scale);
  if (average_) average_->update(sharded_.pieces());
}

void TrainedPart::swap_average() {
  if (!average_) return;
  average_->swap(sharded_.pieces());
  sharded_.publish_weights(optimizer_.get());
}

at::Tensor TrainedPart::put_together(const at::Tensor& parts) const {
  return parts.defined() ? whole_.gather(parts) : parts;
}

at::Tensor TrainedPart::gather_weights() { return put_together(sharded_.gather_weights()); }

at::Tensor TrainedPart::gather_average() {
  return put_together(sharded_.gather_shard(average_->values()));
}

// Whole, on rank 0 of the replicas.
at::Tensor TrainedPart::gather_elements(const optim::OptimizerState& part) {
  const std::vector<ShardPiece>& shard = sharded_.shard();
  const at::Tensor own = zeros_of(shard_size(shard));
  copy_common(part.values, part.pieces, own, shard);
  return sharded_.gather_shard(own);
}

std::vector<optim::OptimizerState> TrainedPart::gather_state() {
  std::vector<optim::OptimizerState> parts = optimizer_->state();
  for (optim::OptimizerState& part : parts) {
    if (part.elementwise) part.values = put_together(gather_elements(part));
  }
  return parts;
}

}  // namespace trireme
