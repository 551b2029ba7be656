// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/train_step.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/step_parts.h"

namespace trireme {

TrainStep::TrainStep(const TrainConfig& config, const TokenShards& shards, StepModel& model,
                     std::optional<TokenId> separator)
    : config_(config),
      model_(model),
      loader_(shards,
              {shards.num_tokens(), config.model.context, static_cast<std::uint64_t>(config.seed)},
              config.model.context, separator),
      guard_(config.guard) {
  // What the model was made with is not needed in a step.
  release_cached_memory();
}

MicroBatch TrainStep::load(std::int64_t step, std::int64_t micro_batch, bool with_tokens) const {
  const std::int64_t size = config_.batch.micro_batch_size;
  const std::int64_t first = (step * config_.batch.micro_batches + micro_batch) * size;
  return with_tokens ? loader_.load(first, size) : loader_.shape(first, size);
}

StepStats TrainStep::run(std::int64_t step, bool stop_requested) {
  losses_.assign(static_cast<std::size_t>(config_.batch.micro_batches) + 1, 0.0);
  losses_.back() = stop_requested ? 1.0 : 0.0;
  model_.compute_gradients(
      [&](std::int64_t m, bool with_tokens) { return load(step, m, with_tokens); },
      std::span(losses_).first(losses_.size() - 1));
  // Of the losses the sum is exact: all but one summand are zero.
  const GradientSum sum = model_.finish_gradients(losses_);

  StepStats stats;
  stats.loss = std::accumulate(losses_.begin(), losses_.end() - 1, 0.0) / sum.micro_batches;
  stats.gradient_norm = sum.norm;
  stats.learning_rate = optim::learning_rate_at(config_.schedule, step, config_.train.steps);
  stats.stop = losses_.back() > 0;
  if (sum.applied_scale) {
    // Another worker has judged this step, of which not all is known here.
    stats.verdict =
        *sum.applied_scale > 0 ? optim::StepVerdict::kApply : optim::StepVerdict::kNonFinite;
  } else {
    stats.verdict = guard_.judge(step, stats.loss, stats.gradient_norm);
  }
  stats.guard = guard_.state();
  update(stats, sum.applied_scale);
  stats.exchange = model_.report();
  return stats;
}

void TrainStep::update(const StepStats& stats, std::optional<double> applied_scale) {
  const TimedPart part("optimizer");
  if (stats.verdict != optim::StepVerdict::kApply) return model_.drop_gradients();
  const double clip = config_.train.clip_norm;
  const double scale = clip > 0 ? std::min(1.0, clip / (stats.gradient_norm + 1e-6)) : 1.0;
  model_.step(stats.learning_rate, applied_scale.value_or(scale));
}

void TrainStep::save(CheckpointState& state) const {
  state[kGuardKey] = optim::to_text(guard_.state());
}

void TrainStep::load(const Checkpoint& checkpoint) {
  if (const auto found = checkpoint.state().find(kGuardKey); found != checkpoint.state().end()) {
    guard_.set_state(optim::guard_state_from_text(found->second));
  }
}

}  // namespace trireme
