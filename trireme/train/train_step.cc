// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/train_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "trireme/base/error.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/step_parts.h"

namespace trireme {

TrainStep::TrainStep(const TrainConfig& config, const TokenShards& shards, Group& group,
                     ModelState& state, std::optional<TokenId> separator)
    : config_(config),
      group_(group),
      state_(state),
      loader_(shards,
              {shards.num_tokens(), config.model.context, static_cast<std::uint64_t>(config.seed)},
              config.model.context, separator) {
  // What the model was made with is not needed in a step.
  release_cached_memory();
}

// What the operations do not time themselves is "other": autograd's additions of gradients.
double TrainStep::compute_micro_batch(std::int64_t step, std::int64_t micro_batch) {
  const std::int64_t size = config_.batch.micro_batch_size;
  const std::int64_t first = (step * config_.batch.micro_batches + micro_batch) * size;
  const MicroBatch batch = loader_.load(first, size);
  at::Tensor loss;
  {
    const TimedPart part("other forward");
    loss = state_.sharded().forward([&] {
      return state_.model()->loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
    });
  }
  const TimedPart part("other backward");
  state_.sharded().backward(loss);
  return loss.item<double>();
}

StepStats TrainStep::run(std::int64_t step, bool stop_requested) {
  ShardedModel& sharded = state_.sharded();
  losses_.assign(static_cast<std::size_t>(config_.batch.micro_batches) + 1, 0.0);
  losses_.back() = stop_requested ? 1.0 : 0.0;
  for (const std::int64_t m : sharded.micro_batches()) {
    losses_[static_cast<std::size_t>(m)] = compute_micro_batch(step, m);
  }
  sharded.finish_gradients();
  group_.all_reduce(buffer_of(std::span(losses_)));  // exact: all but one summand are zero

  const auto micro_batches = static_cast<double>(config_.batch.micro_batches);
  StepStats stats;
  stats.loss = std::accumulate(losses_.begin(), losses_.end() - 1, 0.0) / micro_batches;
  {
    const TimedPart part("gradient norm");
    stats.gradient_norm = sharded.gradient_norm() / micro_batches;
  }
  stats.learning_rate = optim::learning_rate_at(config_.schedule, step, config_.train.steps);
  stats.stop = losses_.back() > 0;
  stats.exchange = sharded.report();
  if (!std::isfinite(stats.loss) || !std::isfinite(stats.gradient_norm)) {
    throw_error<Error>(
        "step {}: the loss is {} and the gradient norm {}: training has diverged; resume from the "
        "last checkpoint with a smaller schedule.learning_rate",
        step + 1, stats.loss, stats.gradient_norm);
  }
  const double clip = config_.train.clip_norm;
  const double scale = clip > 0 ? std::min(1.0, clip / (stats.gradient_norm + 1e-6)) : 1.0;
  {
    const TimedPart part("optimizer");
    sharded.step(state_.optimizer(), stats.learning_rate, scale / micro_batches);
  }
  return stats;
}

}  // namespace trireme
