// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/step_parts.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/train/served_tensors.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

std::vector<std::int64_t> own_micro_batches(const ServedOptions& options) {
  check_served_micro_batches(options.job.consistency, options.micro_batches, options.workers);
  std::vector<std::int64_t> numbers;
  const MicroBatchPlan plan(options.micro_batches, options.workers);
  for (const MicroBatchRange& round : plan.rounds(options.worker.rank)) {
    for (std::int64_t m = round.begin; m < round.end; ++m) numbers.push_back(m);
  }
  return numbers;
}

std::vector<FlatSegment> ranges_of(const ps::Worker& worker) {
  std::vector<FlatSegment> ranges;
  for (std::size_t i = 0; i < worker.num_dense_ranges(); ++i) {
    ranges.push_back(worker.dense_range(i));
  }
  return ranges;
}

const ModuleLayout& checked(const ModuleLayout& layout) {
  const at::Tensor& first = layout.parameters.front();
  if (first.scalar_type() == at::kFloat && first.device().is_cpu()) return layout;
  throw_error<ConfigError>(
      "the module's parameters are {} on {}: parameter servers keep f32, for workers on the CPU",
      c10::toString(first.scalar_type()), first.device().str());
}

}  // namespace

void check_served_micro_batches(const ps::Consistency& consistency, std::int64_t micro_batches,
                                int workers) {
  const MicroBatchPlan plan(micro_batches, workers);
  if (!consistency.sums || workers == 1) return;
  if (std::has_single_bit(static_cast<std::uint64_t>(micro_batches / workers))) return;
  std::vector<std::int64_t> fitting;
  for (const std::int64_t ranks : MicroBatchPlan::fitting_ranks(micro_batches)) {
    if (ranks == 1 || std::has_single_bit(static_cast<std::uint64_t>(micro_batches / ranks))) {
      fitting.push_back(ranks);
    }
  }
  throw_error<ConfigError>(
      "{} micro-batches for {} workers are {} for each, but with parameter servers and consistency "
      "sync it is a power of two: {} micro-batches go with {} workers",
      micro_batches, workers, micro_batches / workers, micro_batches, fmt::join(fitting, " or "));
}

ps::JobLayout served_layout(const ModuleLayout& module, const ServedOptions& options) {
  ps::JobLayout job = options.job;
  job.two_phases = job.consistency.sums;
  job.dense = dense_layout(module, options.optimizer);
  for (optim::OptimizerParameter& parameter : job.dense.parameters) {
    parameter.decays |= options.all_decay;
  }
  job.validate();
  return job;
}

ServedParameters::ServedParameters(torch::nn::Module& module, const ServedOptions& options)
    : micro_batches_(own_micro_batches(options)),
      worker_(std::make_unique<ps::Worker>(
          options.worker, served_layout(checked(make_layout(module, options.units)), options))),
      flat_(std::make_unique<FlatParameters>(lay_into(*worker_, module, options.units))),
      units_(options.units),
      counted_bytes_(flat_->size() * static_cast<std::int64_t>(sizeof(float))),
      queue_(flat_->entries(), trireme::ranges_of(*worker_)),
      tree_(flat_->size()),
      under_way_(worker_->num_dense_ranges(), 0) {
  process_memory().add(MemoryCategory::kWeights, counted_bytes_);
  process_memory().add(MemoryCategory::kGradients, counted_bytes_);
  for (const FlatSegment& unit : layout().units) {
    std::vector<std::size_t>& ranges = ranges_of_.emplace_back();
    for (std::size_t i = 0; i < worker_->num_dense_ranges(); ++i) {
      const FlatSegment range = worker_->dense_range(i);
      if (range.begin < unit.end && range.end > unit.begin) ranges.push_back(i);
    }
  }
  hooks_ = std::make_unique<GradientHooks>(layout().parameters,
                                           [this](std::size_t entry, bool) { on_gradient(entry); });
}

ServedParameters::~ServedParameters() {
  hooks_.reset();
  // The module's parameters and gradients lie in the worker's memory, which goes.
  const at::NoGradGuard no_grad;
  for (at::Tensor parameter : layout().parameters) {
    parameter.set_data(parameter.detach().clone());
    parameter.mutable_grad().reset();
  }
  process_memory().remove(MemoryCategory::kWeights, counted_bytes_);
  process_memory().remove(MemoryCategory::kGradients, counted_bytes_);
}

// What the next forward pass needs first leaves, and comes back, first.
int ServedParameters::priority_of(std::size_t range) const {
  return static_cast<int>(under_way_.size() - range);
}

// Weights

void ServedParameters::wait(std::size_t range) {
  if (under_way_[range] == 0) return;
  const Clock::time_point begin = Clock::now();
  worker_->wait(std::exchange(under_way_[range], 0));
  exposed_us_ += microseconds_since(begin);
}

void ServedParameters::wait_all() {
  const TimedPart part("wait for weights");
  for (std::size_t range = 0; range < under_way_.size(); ++range) wait(range);
}

void ServedParameters::pull() {
  wait_all();
  worker_->wait(worker_->pull());
}

at::Tensor ServedParameters::weights() {
  wait_all();
  return flat_->data();
}

at::Tensor ServedParameters::forward(const std::function<at::Tensor()>& f) {
  if (units_.empty()) {
    wait_all();
  } else {
    for (const std::size_t range : ranges_of_[0]) wait(range);
  }
  return f();
}

void ServedParameters::wait_for_unit(const torch::nn::Module& unit) {
  const auto found = std::find(units_.begin(), units_.end(), &unit);
  TRIREME_ASSERT(found != units_.end(), "a module that is no unit is waited for");
  const TimedPart part("wait for weights");
  const auto number = static_cast<std::size_t>(found - units_.begin()) + 1;
  for (const std::size_t range : ranges_of_[number]) wait(range);
}

// Gradients

void ServedParameters::begin_backward(double weight) {
  if (position_ == micro_batches_.size()) {
    throw_error<Error>("a step has {} backward passes on this worker, and this is one more",
                       micro_batches_.size());
  }
  if (!std::isfinite(weight) || weight < 0) {
    throw_error<Error>("the weight of a micro-batch is {}: give a finite one of at least 0",
                       weight);
  }
  wait_all();
  if (position_ > 0) {
    flat_->exchange_grad(tree_.buffer());
  } else if (std::exchange(has_old_gradients_, false)) {
    const TimedPart part("sum gradients");
    flat_->zero_grad();
  }
  flat_->bring_gradients_home();
  weight_ += weight;
  computing_ = true;
  if (position_ + 1 == micro_batches_.size()) queue_.begin();
}

void ServedParameters::backward(const at::Tensor& loss, double weight) {
  begin_backward(weight);
  at::Tensor seed;
  if (weight != 1) seed = at::full_like(loss.detach(), weight);
  flat_->backward(loss, seed);
  end_backward();
}

void ServedParameters::on_gradient(std::size_t entry) {
  if (!computing_) {
    throw_error<Error>("loss.backward() of a module that servers keep: call backward(loss)");
  }
  flat_->bring_gradient_home(entry);
  if (position_ + 1 == micro_batches_.size() && !queue_.has_arrived(entry)) {
    launch(queue_.arrive(entry));
  }
}

// The first range also carries the extras, which are not known yet.
void ServedParameters::launch(const std::vector<std::size_t>& ranges) {
  for (const std::size_t range : ranges) {
    const FlatSegment segment = worker_->dense_range(range);
    {
      const TimedPart part("sum gradients");
      tree_.fold(flat_->grad(), segment.begin, segment.end);
    }
    if (sums() && range > 0) push(range);
  }
}

void ServedParameters::push(std::size_t range) {
  if (under_way_.size() == 1 ||
      std::all_of(under_way_.begin(), under_way_.end(), [](ps::Timestamp t) { return t == 0; })) {
    sent_ = Clock::now();
  }
  under_way_[range] =
      worker_->push(range, {.weight = weight_,
                            .priority = priority_of(range),
                            .extras = range == 0 ? extras_ : std::vector<double>()});
}

// The sum lies where the first micro-batch's gradients were, in the worker's buffer.
void ServedParameters::end_backward() {
  computing_ = false;
  if (++position_ < micro_batches_.size()) {
    const TimedPart part("sum gradients");
    return tree_.push(flat_->grad());
  }
  launch(queue_.finish());
  at::Tensor sum = tree_.take(flat_->grad());
  TRIREME_ASSERT(sum.data_ptr<float>() == worker_->gradients().data(),
                 "a sum of gradients lies elsewhere");
  flat_->exchange_grad(sum);
  has_old_gradients_ = true;
}

GradientSum ServedParameters::finish_gradients(std::vector<double>& extras) {
  if (position_ < micro_batches_.size()) {
    throw_error<Error>("a step has {} micro-batches on this worker, and {} have come",
                       micro_batches_.size(), position_);
  }
  if (sums()) return summed(extras);
  const TimedPart part("gradient norm");
  exposed_us_ = 0;
  return {weight_, optim::global_norm(flat_->grad()) / weight_};
}

GradientSum ServedParameters::summed(std::vector<double>& extras) {
  extras_ = extras;
  push(0);
  const TimedPart part("wait for gradients");
  exposed_us_ = 0;
  for (std::size_t range = 0; range < under_way_.size(); ++range) wait(range);
  GradientSum result;
  const std::int64_t blocks = flat_->size() / kShardBlock;
  const at::Tensor all = at::zeros({blocks}, at::kDouble);
  for (std::size_t range = 0; range < under_way_.size(); ++range) {
    const ps::SumReport& sum = worker_->sum(range);
    if (sum.committed_scale) result.applied_scale = sum.committed_scale;
    std::copy(sum.block_sums.begin(), sum.block_sums.end(),
              all.data_ptr<double>() + worker_->dense_range(range).begin / kShardBlock);
    // A worker may have been dropped between two ranges: each is the mean of those that it has.
    result.micro_batches = range == 0 ? sum.weight : std::min(result.micro_batches, sum.weight);
  }
  const ps::SumReport& first = worker_->sum(0);
  if (first.extras.size() == extras.size()) extras = first.extras;
  if (result.applied_scale) {
    result.micro_batches = weight_;
    result.norm = std::numeric_limits<double>::quiet_NaN();
  } else {
    result.norm = optim::norm_of_blocks(all) / result.micro_batches;
  }
  return result;
}

void ServedParameters::step(double learning_rate, double scale) {
  update({.learning_rate = learning_rate,
          .gradient_scale = scale,
          .weight = weight_,
          .then_pull = true});
}

void ServedParameters::drop_gradients() {
  if (sums()) return update({.skip = true, .then_pull = true});
  // Nothing is pushed in this step; what others did meanwhile comes with the next.
  end_step();
  for (std::size_t range = 0; range < under_way_.size(); ++range) {
    under_way_[range] = worker_->pull(range, priority_of(range));
  }
}

void ServedParameters::end_step() {
  worker_->end_step();
  position_ = 0;
  weight_ = 0;
}

void ServedParameters::assign(bool gives) {
  wait_all();
  if (gives) flat_->grad().copy_(flat_->data());
  has_old_gradients_ = true;
  const ps::PushOptions push{
      .then_pull = !sums(), .extras = {gives ? 1.0 : 0.0}, .empty = !gives, .assign = gives};
  for (std::size_t range = 0; range < under_way_.size(); ++range) {
    under_way_[range] = worker_->push(range, push);
  }
  wait_all();
  if (sums()) {
    const ps::SumReport& sum = worker_->sum(0);
    const bool given = sum.committed_scale || (sum.extras.size() == 1 && sum.extras[0] == 1);
    for (std::size_t range = 0; range < under_way_.size(); ++range) {
      under_way_[range] = worker_->commit(range, {.then_pull = true, .assign = true});
    }
    wait_all();
    if (!given) {
      end_step();
      throw_error<CommError>("the worker that was to give the weights is lost");
    }
  }
  end_step();
}

bool ServedParameters::exchange(std::vector<double>& extras) {
  wait_all();
  worker_->wait(worker_->push(0, {.extras = extras, .empty = true}));
  const std::vector<double>& sums = worker_->sum(0).extras;
  const bool known = sums.size() == extras.size();
  if (known) extras = sums;
  end_step();
  return known;
}

void ServedParameters::update(const ps::PushOptions& options) {
  if (!sums()) sent_ = Clock::now();
  for (std::size_t range = 0; range < under_way_.size(); ++range) {
    ps::PushOptions with_priority = options;
    with_priority.priority = priority_of(range);
    under_way_[range] =
        sums() ? worker_->commit(range, with_priority) : worker_->push(range, with_priority);
  }
  end_step();
  report_.communication_us = microseconds_since(sent_);
  report_.exposed_us = exposed_us_;
}

}  // namespace trireme
