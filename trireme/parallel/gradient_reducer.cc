// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_reducer.h"

#include <ATen/ops/full_like.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/parallel/micro_batch_plan.h"

namespace trireme {
namespace {

std::int64_t elements_of(std::int64_t bytes, const at::Tensor& gradients) {
  return std::max<std::int64_t>(1, bytes / static_cast<std::int64_t>(gradients.element_size()));
}

}  // namespace

GradientReducer::GradientReducer(FlatParameters& flat, Group& group, const ReducerOptions& options,
                                 Exchange exchange)
    : flat_(flat),
      exchange_(std::move(exchange)),
      queue_(flat.entries(), make_buckets(flat.entries(), flat.size(),
                                          elements_of(options.bucket_bytes, flat.grad()))),
      tree_(flat.size(), &group, flat.grad().scalar_type()),
      account_(names_of(flat.entries())),
      thread_(group.duplicate("gradients")),
      hooks_(flat.layout().parameters, [this](std::size_t entry) { on_gradient(entry); }) {
  const MicroBatchPlan plan(options.micro_batches > 0 ? options.micro_batches : group.size(),
                            group.size());
  std::vector<MicroBatchRange> rounds = plan.rounds(group.rank());
  // The last round first: each is added to what follows it, which is the top of the tree.
  std::reverse(rounds.begin(), rounds.end());
  for (const MicroBatchRange& round : rounds) {
    for (std::int64_t m = round.begin; m < round.end; ++m) {
      micro_batches_.push_back(m);
      ends_round_.push_back(m + 1 == round.end);
    }
  }
}

void GradientReducer::backward(const at::Tensor& loss, double weight) {
  begin_micro_batch(weight);
  flat_.backward(loss, weight == 1 ? at::Tensor() : at::full_like(loss, weight));
  end_micro_batch();
}

void GradientReducer::begin_micro_batch(double weight) {
  if (computing_ || position_ == micro_batches_.size()) {
    throw_error<Error>(
        "a step has {} backward pass{} on each rank, and this is one more before "
        "finish_gradients(): call it after each step, or ask for more micro-batches",
        micro_batches_.size(), micro_batches_.size() == 1 ? "" : "es");
  }
  if (position_ > 0) flat_.exchange_grad(tree_.buffer());
  flat_.bring_gradients_home();
  account_.add_weight(weight);
  computing_ = true;
  if (ends_round_[position_]) queue_.begin();
}

void GradientReducer::on_gradient(std::size_t entry) {
  if (!computing_ && micro_batches_.size() > 1) {
    throw_error<Error>(
        "loss.backward() adds to gradients whose step has {} micro-batches on each rank: call "
        "backward(loss) of the replica instead",
        micro_batches_.size());
  }
  if (!computing_) begin_micro_batch(1);
  flat_.bring_gradient_home(entry);
  account_.saw(entry);
  if (!ends_round_[position_]) return;
  if (queue_.has_arrived(entry)) {
    throw_error<Error>(
        "the gradient of {} is already on its way: a second backward pass began before "
        "finish_gradients()",
        flat_.entries()[entry].name);
  }
  launch(queue_.arrive(entry));
}

void GradientReducer::launch(const std::vector<std::size_t>& buckets) {
  for (const std::size_t bucket : buckets) {
    const FlatSegment& range = queue_.buckets()[bucket];
    const at::Tensor sum = tree_.fold(flat_.grad(), range.begin, range.end);
    thread_.post([this, bucket, sum](Group& group) { exchange_(group, bucket, sum); });
  }
}

void GradientReducer::end_micro_batch() {
  if (ends_round_[position_]) {
    launch(queue_.finish());
    rounds_.push_back(tree_.take(flat_.grad()));
  } else {
    tree_.push(flat_.grad());
  }
  ++position_;
  computing_ = false;
}

void GradientReducer::finish() {
  if (computing_) end_micro_batch();
  while (position_ < micro_batches_.size()) {
    begin_micro_batch(0);
    end_micro_batch();
  }
  account_.close(thread_);
  position_ = 0;
  lay_sum_into_gradients();
  if (account_.steps() == 1) {
    queue_.set_order(roots_order(thread_.group(), queue_.completion_order()));
  }
}

void GradientReducer::lay_sum_into_gradients() {
  for (std::size_t i = 1; i < rounds_.size(); ++i) {
    add_gradients(rounds_[i], rounds_[i - 1]);
    tree_.give_back(std::move(rounds_[i - 1]));
  }
  flat_.exchange_grad(rounds_.back());
  rounds_.clear();
}

}  // namespace trireme
