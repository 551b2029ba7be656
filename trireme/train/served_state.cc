// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "trireme/base/log.h"
#include "trireme/comm/world.h"
#include "trireme/ops/threads.h"
#include "trireme/train/model_state.h"
#include "trireme/train/served_states.h"
#include "trireme/train/state_files.h"

namespace trireme {
namespace {

ServedOptions served_options(const TrainConfig& config, const nn::Transformer& model,
                             const ServedWorker& job, const StartPoint& start) {
  ServedOptions options;
  options.worker = job.worker;
  options.worker.codec = config.parallel.ps.codec;
  options.job.consistency = ps::Consistency::parse(config.parallel.ps.consistency);
  options.job.backups = config.parallel.ps.backups;
  options.job.range_bytes = config.parallel.ps.range_bytes;
  options.job.first_step = start.resumed ? start.resumed->step() : 0;
  options.job.settings =
      fmt::format("{} {}", settings_hash(result_settings(config)), numerics_fingerprint());
  options.optimizer = config.optimizer;
  options.workers = job.workers;
  options.micro_batches = config.batch.micro_batches;
  options.units = model->blocks();
  options.dtype = config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  return options;
}

}  // namespace

ServedState::ServedState(const TrainConfig& config, const ServedWorker& job,
                         const StartPoint& start)
    : job_(job),
      optimizer_name_(config.optimizer.name),
      consistency_(config.parallel.ps.consistency),
      model_(initialized_model(config.model, static_cast<std::uint64_t>(config.seed))),
      parameters_(*model_, served_options(config, model_, job, start)),
      alone_(join_world({})),
      average_decay_(config.train.average_decay) {
  model_->set_recompute(config.compute.recompute_mode());
  model_->set_dropout(dropout_config(config));
  model_->set_block_runner([this](const auto& block, const auto& inputs, const auto& f) {
    parameters_.wait_for_unit(block);
    return f(inputs);
  });
  if (start.resumed && !worker().came_later()) {
    parameters_.set_steps(checkpoint_number(*start.resumed, kOptimizerStepsKey));
  }
  if (rank() == 0 && !worker().came_later()) give_first_values(start);
  parameters_.pull();
  first_step_ = worker().layout().first_step + worker().clock();
  if (rank() == 0 && average_decay_ > 0) start_average(start);
}

void ServedState::start_average(const StartPoint& start) {
  average_.emplace(average_decay_, pieces());
  if (worker().came_later()) {
    return log_warn(
        "the average of the weights was lost with the worker 0 before this one: it begins anew at "
        "step {}",
        first_step_);
  }
  if (!start.resumed) return;
  average_->set_updates(
      load_average(*start.resumed, parameters_.layout(), average_decay_, average_->values()));
}

// The weights of a step lie where they belong until the next one is applied.
void ServedState::update_average() {
  if (std::exchange(average_is_due_, false)) average_->update(pieces());
}

void ServedState::give_first_values(const StartPoint& start) {
  if (!start.resumed) {
    if (start.weights) {
      load_weights(*start.weights, parameters_.layout(), parameters_.weights());
    }
    return worker().wait(worker().init());
  }
  check_optimizer(*start.resumed, optimizer_name_);
  WholeState state = zero_state(worker().layout());
  state.steps = checkpoint_number(*start.resumed, kOptimizerStepsKey);
  load_weights(*start.resumed, parameters_.layout(), state.weights);
  load_optimizer(*start.resumed, parameters_.layout(), state.optimizer);
  const std::vector<std::vector<std::byte>> bytes = range_states(worker().layout(), state);
  worker().wait(worker().init_states(bytes));
}

at::Tensor ServedState::loss(const MicroBatch& batch) {
  return parameters_.forward([&] { return loss_of(*model_, batch); });
}

GradientSum ServedState::finish_gradients(std::vector<double>& extras) {
  update_average();
  return parameters_.finish_gradients(extras);
}

void ServedState::step(double learning_rate, double scale) {
  parameters_.step(learning_rate, scale);
  average_is_due_ = average_.has_value();
}

// Who was waited for, the servers know.
StepReport ServedState::report() {
  StepReport report = parameters_.report();
  report.waited_for_rank = -1;
  if (rank() != 0) return report;
  const std::vector<double> now = worker().report().waited_for_us;
  waited_for_us_.resize(std::max(waited_for_us_.size(), now.size()));
  for (std::size_t i = 0; i < now.size(); ++i) {
    const double waited = (now[i] - std::exchange(waited_for_us_[i], now[i])) /
                          static_cast<double>(worker().num_dense_ranges());
    if (waited <= report.skew_us) continue;
    report.skew_us = waited;
    report.waited_for_rank = static_cast<int>(i);
  }
  return report;
}

std::string ServedState::describe_workers() const {
  return fmt::format("{} worker{} of {} parameter server{} ({})", job_.workers,
                     job_.workers == 1 ? "" : "s", job_.servers, job_.servers == 1 ? "" : "s",
                     consistency_);
}

Evaluation ServedState::evaluate(const Evaluator& evaluator) {
  if (rank() != 0) return {};
  update_average();
  swap_average();
  const Evaluation result = evaluator.run(
      [this](const MicroBatch& batch) { return loss(batch).item<double>(); }, *alone_);
  swap_average();
  return result;
}

void ServedState::swap_average() {
  if (!average_) return;
  average_->swap(pieces());
  parameters_.publish_weights();
}

void ServedState::save(CheckpointWriter* writer, CheckpointState& state) {
  if (writer == nullptr) return;
  const WholeState whole = gather_states(worker());
  state[kOptimizerNameKey] = optimizer_name_;
  state[kOptimizerStepsKey] = fmt::format("{}", whole.steps);
  add_weights(*writer, parameters_.layout(), whole.weights);
  add_optimizer(*writer, parameters_.layout(), whole.optimizer);
  if (average_) {
    update_average();
    state[kAverageUpdatesKey] = fmt::format("{}", average_->updates());
    add_weights(*writer, parameters_.layout(), average_->values(), kAverageFile);
  }
  writer->add_file(kModelConfigFile, config_to_yaml(model_->config()));
}

void ServedState::finish() {
  worker().wait_all();
  worker().leave();
}

Fields ServedState::facts() {
  const ps::ServerReport report = worker().report();
  Fields fields = {{"servers", std::int64_t{job_.servers}},
                   {"consistency", consistency_},
                   {"updates_of_ranges", report.updates}};
  for (std::size_t rank = 0; rank < report.waited_for_us.size(); ++rank) {
    fields.emplace_back(fmt::format("waited_for_rank_{}_us", rank), report.waited_for_us[rank]);
  }
  for (std::size_t late = 0; late < report.staleness.size(); ++late) {
    fields.emplace_back(fmt::format("staleness_{}", late), report.staleness[late]);
  }
  return fields;
}

}  // namespace trireme
