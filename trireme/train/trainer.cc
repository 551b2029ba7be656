// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/trainer.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <span>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/memory_estimate.h"
#include "trireme/train/run_log.h"

namespace trireme {
namespace {

// config with the model resolved against the data that it opens, and the workers of a copy against
// those that there are.
std::pair<TrainConfig, TrainData> open_resolved(TrainConfig config, const Group& group) {
  TrainData data = open_train_data(config);
  std::int64_t& shard_ranks = config.parallel.shard_ranks;
  if (shard_ranks == kHostRanks) {
    shard_ranks = host_shard_ranks(group.hosts());
    if (group.rank() == 0) {
      log_info("parallel.shard_ranks is auto: the {} workers of each host keep a copy of the model",
               shard_ranks);
    }
  }
  return {std::move(config), std::move(data)};
}

std::int64_t agreed_by_root(std::int64_t value, Group& group) {
  group.broadcast(buffer_of(std::span(&value, 1)), 0);
  return value;
}

double sum_over_ranks(double value, Group& group) {
  group.all_reduce(buffer_of(std::span(&value, 1)));
  return value;
}

bool due(std::int64_t step, std::int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(const TrainConfig& config, Group& group, const TrainerOptions& options)
    : Trainer(open_resolved(config, group), group, options) {}

Trainer::Trainer(std::pair<TrainConfig, TrainData> opened, Group& group,
                 const TrainerOptions& options)
    : config_(std::move(opened.first)),
      group_(group),
      options_(options),
      folder_(config_.out),
      data_(std::move(opened.second)),
      state_(config_, group_, static_cast<std::uint64_t>(config_.seed)),
      step_(config_, data_.train, group_, state_,
            document_separator(config_.model, data_.tokenizer)),
      evaluator_(data_.validation, config_.model.context,
                 {.micro_batch_size = config_.batch.micro_batch_size,
                  .max_micro_batches = config_.evaluation.micro_batches,
                  .separator = document_separator(config_.model, data_.tokenizer)}) {
  restore();
  const double limit = sum_over_ranks(options.limit_flops_per_s, group_);
  if (!is_root()) return;
  log_ = std::make_unique<RunLog>(folder_,
                                  RunLogOptions{.start_step = start_step_,
                                                .total_steps = config_.train.steps,
                                                .tokens_per_step = tokens_per_step(),
                                                .flops_per_token = config_.model.flops_per_token(),
                                                .limit_flops_per_s = limit});
  log_info("{} with {} parameters, {}, {} worker{} ({}), limit {:.0f} GFLOP/s",
           config_.model.family, config_.model.num_parameters(), config_.train.dtype, group_.size(),
           group_.size() == 1 ? "" : "s", group_.engine(), limit / 1e9);
  log_info("memory: about {} for each worker",
           describe_memory(estimate_memory(
               config_, {.ranks = group_.size(), .threads = at::get_num_threads()})));
}

Trainer::~Trainer() = default;

std::int64_t Trainer::tokens_per_step() const {
  return config_.batch.micro_batches * config_.batch.micro_batch_size * config_.model.context;
}

void Trainer::restore() {
  const std::vector<std::string> found =
      options_.resume ? list_checkpoints(folder_.checkpoints()) : std::vector<std::string>();
  if (found.empty()) {
    agree_on_step(-1);
    if (!config_.train.init.empty()) {
      state_.load(Checkpoint::open(resolve_checkpoint(config_.train.init)), false);
    }
    return;
  }
  const Checkpoint checkpoint = Checkpoint::open(found.back());
  agree_on_step(checkpoint.step());
  check_checkpoint_fits(checkpoint, config_.model, data_.tokenizer.hash());
  state_.load(checkpoint, true);
  step_.load(checkpoint);
  start_step_ = saved_step_ = checkpoint.step();
  if (!is_root()) return;
  log_info("resuming from {}", checkpoint.path());
  if (checkpoint.state_at(kNumericsKey) != numerics_fingerprint()) {
    log_warn(
        "this checkpoint was written with numerics '{}', this process has '{}': the last bits of "
        "the losses may differ",
        checkpoint.state_at(kNumericsKey), numerics_fingerprint());
  }
}

void Trainer::agree_on_step(std::int64_t step) {
  const std::int64_t roots = agreed_by_root(step, group_);
  if (roots == step) return;
  throw_error<CheckpointError>(
      "rank {} finds its newest checkpoint at step {}, rank 0 at step {} (-1: none): '{}' must be "
      "on "
      "storage that all hosts share",
      group_.rank(), step, roots, folder_.checkpoints());
}

TrainResult Trainer::run() {
  const InterruptGuard interrupt;
  bool stopped = false;
  std::int64_t step = start_step_;
  while (step < config_.train.steps && !stopped) {
    const auto begin = std::chrono::steady_clock::now();
    const StepStats stats = step_.run(step, interrupt.signal() != 0);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    ++step;
    if (log_) log_->step(step, stats, seconds.count());
    stopped = stats.stop;
    if (!stopped && due(step, config_.evaluation.every)) evaluate(step);
    if (stopped || due(step, config_.checkpoint.every)) save(step);
  }
  if (stopped) {
    if (log_) log_->interrupted(step);
    group_.barrier();
    return {false, step, evaluation_};
  }
  if (saved_step_ != step) save(step);
  if (evaluated_step_ != step) evaluate(step);
  group_.barrier();
  if (log_) finish(step);
  return {true, step, evaluation_};
}

void Trainer::evaluate(std::int64_t step) {
  state_.swap_average();
  evaluation_ = evaluator_.run(
      [this](const MicroBatch& batch) {
        return state_.sharded().forward([&] {
          return state_.model()->loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
        });
      },
      group_);
  state_.swap_average();
  evaluated_step_ = step;
  if (log_) log_->evaluation(step, evaluation_);
}

void Trainer::save(std::int64_t step) {
  saved_step_ = step;
  CheckpointState state;
  if (!is_root()) return state_.save(nullptr, state);
  CheckpointWriter writer(folder_.checkpoints(), step);
  state_.save(&writer, state);
  step_.save(state);
  writer.add_file(kTokenizerFile, data_.tokenizer.to_json());
  state[kTokenizerHashKey] = data_.tokenizer.hash();
  state[kNumericsKey] = numerics_fingerprint();
  state[kTokensSeenKey] = fmt::format("{}", step * tokens_per_step());
  log_->checkpoint(step, writer.commit(state));
  prune_checkpoints(folder_.checkpoints(), config_.checkpoint.keep);
}

void Trainer::finish(std::int64_t step) {
  log_->summary({{"parameters", config_.model.num_parameters()},
                 {"steps", step},
                 {"tokens_seen", step * tokens_per_step()},
                 {"skipped_non_finite", step_.guard().non_finite},
                 {"skipped_spikes", step_.guard().spikes},
                 {"workers", std::int64_t{group_.size()}},
                 {"dtype", config_.train.dtype}},
                evaluation_);
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
