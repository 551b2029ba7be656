// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/train_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "trireme/base/error.h"
#include "trireme/ops/flat_sums.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/step_parts.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

TrainStep::TrainStep(const TrainConfig& config, const TokenShards& shards, Group& group,
                     ModelState& state, std::optional<TokenId> separator)
    : config_(config),
      group_(group),
      state_(state),
      loader_(shards,
              {shards.num_tokens(), config.model.context, static_cast<std::uint64_t>(config.seed)},
              config.model.context, separator),
      plan_(config.batch.micro_batches, group.size()),
      tree_(state.flat().size(), &group) {
  // What the model was made with, its first gradients among it, is not needed in a step.
  state.flat().exchange_grad(tree_.buffer());
  tree_.give_back(state.flat().grad());
  release_cached_memory();
  state.model()->set_recompute(config.compute.recompute_mode());
}

// What the operations do not time themselves is "other": autograd's additions of gradients.
double TrainStep::compute_gradient(const MicroBatch& batch) {
  // The tree keeps what backward sums in, and that lies where the group's all_reduce uses it.
  state_.flat().exchange_grad(tree_.buffer());
  at::Tensor loss;
  {
    const TimedPart part("other forward");
    loss = state_.model()->loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
  }
  {
    const TimedPart part("other backward");
    state_.flat().backward(loss);
  }
  const TimedPart part("sum gradients");
  tree_.push(state_.flat().grad());
  return loss.item<double>();
}

double TrainStep::compute_micro_batch(std::int64_t step, std::int64_t micro_batch) {
  const std::int64_t size = config_.batch.micro_batch_size;
  const std::int64_t first = (step * config_.batch.micro_batches + micro_batch) * size;
  return compute_gradient(loader_.load(first, size));
}

// The rounds from the last to the first, each added to what follows it: the top of the tree.
at::Tensor TrainStep::sum_gradients(std::int64_t step) {
  std::vector<MicroBatchRange> rounds = plan_.rounds(group_.rank());
  std::reverse(rounds.begin(), rounds.end());
  at::Tensor total;
  for (const MicroBatchRange& round : rounds) {
    for (std::int64_t m = round.begin; m < round.end; ++m) {
      losses_[static_cast<std::size_t>(m)] = compute_micro_batch(step, m);
    }
    const TimedPart part("sum gradients");
    at::Tensor sum = tree_.take();
    group_.all_reduce(buffer_of_tensor(sum));
    if (total.defined()) {
      ops::add_and_clear(sum, total);
      tree_.give_back(std::move(total));
    }
    total = std::move(sum);
  }
  return total;
}

StepStats TrainStep::run(std::int64_t step, bool stop_requested) {
  losses_.assign(static_cast<std::size_t>(plan_.num_micro_batches()) + 1, 0.0);
  losses_.back() = stop_requested ? 1.0 : 0.0;
  at::Tensor sum = sum_gradients(step);
  group_.all_reduce(buffer_of(std::span(losses_)));  // exact: all but one summand are zero

  const auto micro_batches = static_cast<double>(plan_.num_micro_batches());
  StepStats stats;
  stats.loss = std::accumulate(losses_.begin(), losses_.end() - 1, 0.0) / micro_batches;
  {
    const TimedPart part("gradient norm");
    stats.gradient_norm = optim::global_norm(sum) / micro_batches;
  }
  stats.learning_rate = optim::learning_rate_at(config_.schedule, step, config_.train.steps);
  stats.stop = losses_.back() > 0;
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
    state_.update(sum, stats.learning_rate, scale / micro_batches);
  }
  tree_.give_back(std::move(sum));
  return stats;
}

}  // namespace trireme
