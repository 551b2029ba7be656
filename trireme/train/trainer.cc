// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/trainer.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/memory_estimate.h"
#include "trireme/train/model_state.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/run_log.h"

namespace trireme {
namespace {

// config with the model resolved against the data that it opens.
std::pair<TrainConfig, TrainData> open_resolved(TrainConfig config) {
  TrainData data = open_train_data(config);
  return {std::move(config), std::move(data)};
}

// The same, and the workers of a copy against those that there are.
std::pair<TrainConfig, TrainData> open_resolved(TrainConfig given, const Group& group) {
  auto [config, data] = open_resolved(std::move(given));
  std::int64_t& shard_ranks = config.parallel.shard_ranks;
  if (shard_ranks == kHostRanks) {
    shard_ranks = host_data_ranks(train_mesh(config.parallel, group.size()), group.hosts());
    if (group.rank() == 0) {
      log_info("parallel.shard_ranks is auto: the {} workers of each host keep a copy of the model",
               shard_ranks);
    }
  }
  return {std::move(config), std::move(data)};
}

bool due(std::int64_t step, std::int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(const TrainConfig& config, Group& group, const TrainerOptions& options)
    : Trainer(open_resolved(config, group), options,
              [&group](const TrainConfig& resolved, const StartPoint& start) {
                auto state = std::make_unique<ModelState>(
                    resolved, group, static_cast<std::uint64_t>(resolved.seed));
                state->load(start);
                return state;
              }) {}

Trainer::Trainer(const TrainConfig& config, const ServedWorker& job, const TrainerOptions& options)
    : Trainer(open_resolved(config), options,
              [&job](const TrainConfig& resolved, const StartPoint& start) {
                return std::make_unique<ServedState>(resolved, job, start);
              }) {}

Trainer::Trainer(std::pair<TrainConfig, TrainData> opened, const TrainerOptions& options,
                 const MakeState& make)
    : config_(std::move(opened.first)),
      options_(options),
      folder_(config_.out),
      data_(std::move(opened.second)),
      start_(start_point()),
      state_(make(config_, start_)),
      step_(config_, data_.train, *state_, document_separator(config_.model, data_.tokenizer)),
      evaluator_(data_.validation, config_.model.context,
                 {.micro_batch_size = config_.batch.micro_batch_size,
                  .max_micro_batches = config_.evaluation.micro_batches,
                  .separator = document_separator(config_.model, data_.tokenizer)}),
      start_step_(state_->first_step()) {
  // Who joins a job that goes on begins where the others are, not at a checkpoint.
  if (start_.resumed && start_.resumed->step() == start_step_) {
    step_.load(*start_.resumed);
    saved_step_ = start_step_;
  }
  const double limit = state_->total(options.limit_flops_per_s);
  if (is_root()) greet(limit);
  start_ = {};
}

void Trainer::greet(double limit_flops_per_s) {
  log_ = std::make_unique<RunLog>(folder_,
                                  RunLogOptions{.start_step = start_step_,
                                                .total_steps = config_.train.steps,
                                                .tokens_per_step = tokens_per_step(),
                                                .flops_per_token = config_.model.flops_per_token(),
                                                .limit_flops_per_s = limit_flops_per_s});
  if (start_.resumed && saved_step_ == start_step_) {
    log_info("resuming from {}", start_.resumed->path());
    if (start_.resumed->state_at(kNumericsKey) != numerics_fingerprint()) {
      log_warn(
          "this checkpoint was written with numerics '{}', this process has '{}': the last bits of "
          "the losses may differ",
          start_.resumed->state_at(kNumericsKey), numerics_fingerprint());
    }
  }
  log_info("{} with {} parameters, {}, {}, limit {:.0f} GFLOP/s", config_.model.family,
           config_.model.num_parameters(), config_.train.dtype, state_->describe_workers(),
           limit_flops_per_s / 1e9);
  log_info("memory: about {} for each worker",
           describe_memory(estimate_memory(
               config_, {.ranks = state_->size(), .threads = at::get_num_threads()})));
}

Trainer::~Trainer() = default;

std::int64_t Trainer::tokens_per_step() const {
  return config_.batch.micro_batches * config_.batch.micro_batch_size * config_.model.context;
}

StartPoint Trainer::start_point() const {
  StartPoint start;
  const std::vector<std::string> found =
      options_.resume ? list_checkpoints(folder_.checkpoints()) : std::vector<std::string>();
  if (!found.empty()) {
    start.resumed = Checkpoint::open(found.back());
    check_checkpoint_fits(*start.resumed, config_.model, data_.tokenizer.hash());
  } else if (!config_.train.init.empty()) {
    start.weights = Checkpoint::open(resolve_checkpoint(config_.train.init));
  }
  return start;
}

TrainResult Trainer::run() {
  const InterruptGuard interrupt;
  bool stopped = false;
  std::int64_t step = start_step_;
  while (step < config_.train.steps && !stopped) {
    const bool traced = step - start_step_ + 1 == config_.parallel.pipeline.trace_step;
    if (traced) state_->trace_next_step();
    const auto begin = std::chrono::steady_clock::now();
    const StepStats stats = step_.run(step, interrupt.signal() != 0);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    ++step;
    if (log_) log_->step(step, stats, seconds.count());
    if (traced) state_->write_trace(folder_.pipeline_trace());
    stopped = stats.stop;
    if (!stopped && due(step, config_.evaluation.every)) evaluate(step);
    if (stopped || due(step, config_.checkpoint.every)) save(step);
  }
  if (stopped) {
    if (log_) log_->interrupted(step);
    state_->finish();
    return {false, step, evaluation_};
  }
  if (saved_step_ != step) save(step);
  if (evaluated_step_ != step) evaluate(step);
  const Fields facts = log_ ? state_->facts() : Fields();
  state_->finish();
  if (log_) finish(step, facts);
  return {true, step, evaluation_};
}

void Trainer::evaluate(std::int64_t step) {
  evaluation_ = state_->evaluate(evaluator_);
  evaluated_step_ = step;
  if (log_) log_->evaluation(step, evaluation_);
}

void Trainer::save(std::int64_t step) {
  saved_step_ = step;
  CheckpointState state;
  if (!is_root()) return state_->save(nullptr, state);
  CheckpointWriter writer(folder_.checkpoints(), step);
  state_->save(&writer, state);
  step_.save(state);
  writer.add_file(kTokenizerFile, data_.tokenizer.to_json());
  state[kTokenizerHashKey] = data_.tokenizer.hash();
  state[kNumericsKey] = numerics_fingerprint();
  state[kTokensSeenKey] = fmt::format("{}", step * tokens_per_step());
  log_->checkpoint(step, writer.commit(state));
  prune_checkpoints(folder_.checkpoints(), config_.checkpoint.keep);
}

void Trainer::finish(std::int64_t step, const Fields& facts) {
  Fields fields = {{"parameters", config_.model.num_parameters()},
                   {"steps", step},
                   {"tokens_seen", step * tokens_per_step()},
                   {"skipped_non_finite", step_.guard().non_finite},
                   {"skipped_spikes", step_.guard().spikes},
                   {"workers", std::int64_t{state_->size()}},
                   {"dtype", config_.train.dtype}};
  fields.insert(fields.end(), facts.begin(), facts.end());
  log_->summary(fields, evaluation_);
  const double required = config_.evaluation.required_gain;
  const double gain = evaluation_.unigram_entropy - evaluation_.loss;
  if (required > 0 && gain < required) {
    throw_error<Error>(
        "the validation loss {:.4f} is {:.4f} nats per token below the unigram entropy {:.4f}, but "
        "evaluation.required_gain asks for {}",
        evaluation_.loss, gain, evaluation_.unigram_entropy, required);
  }
}

}  // namespace trireme
