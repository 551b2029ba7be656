// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/nn/router_bias.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/tensor_buffer.h"

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

// Of an elementwise part of the state, whole, on rank 0 of the data group.
at::Tensor gather_state(ShardedModel& model, const optim::OptimizerState& part) {
  const std::vector<ShardPiece>& shard = model.shard();
  const at::Tensor own = at::zeros({shard_size(shard)}, at::TensorOptions().dtype(at::kFloat));
  copy_common(part.values, part.pieces, own, shard);
  return model.gather_shard(own);
}

nn::Transformer model_without_memory(const nn::ModelConfig& config) {
  const nn::ParametersWithoutMemory later;
  return nn::Transformer(config);
}

// Of a step, as the ranks that sum gradients count them: each rank of cp computes its tokens' share
// of a micro-batch, and each rank of ep has its own.
std::int64_t passes_of(const TrainConfig& config) {
  return config.batch.micro_batches * config.parallel.cp / config.parallel.ep;
}

}  // namespace

nn::Transformer initialized_model(const nn::ModelConfig& config,
                                  std::optional<std::uint64_t> seed) {
  const MemoryScope scope(MemoryCategory::kWeights);
  nn::Transformer model(config);
  if (seed) nn::initialize(*model, *seed);
  return model;
}

at::Tensor loss_of(nn::TransformerImpl& model, const MicroBatch& batch) {
  model.set_first_sample(at::GradMode::is_enabled() ? batch.first_sample : -1);
  return model.loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
}

nn::DropoutConfig dropout_config(const TrainConfig& config) {
  return {.share = config.train.dropout, .seed = static_cast<std::uint64_t>(config.seed)};
}

ModelState::ModelState(const TrainConfig& config, Group& world, std::optional<std::uint64_t> seed)
    : groups_(config.parallel, world),
      micro_batches_(static_cast<double>(config.batch.micro_batches)),
      model_(model_without_memory(config.model)),
      cuts_(cut_model(*model_, config, groups_, seed)),
      sharded_(*model_, groups_.replicas(),
               {.stage = static_cast<int>(config.parallel.shard),
                .dtype = config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat,
                .micro_batches = passes_of(config),
                .bucket_bytes = config.parallel.bucket_bytes,
                .units = model_->blocks(),
                .prefetch = static_cast<int>(config.parallel.prefetch),
                .gather_budget_bytes = config.parallel.gather_budget_bytes,
                .shard_ranks = static_cast<int>(config.parallel.shard_ranks),
                .parts = model_parts()}),
      own_micro_batches_(own_micro_batches(config.parallel)),
      whole_(sharded_.layout(), groups_.parts()),
      optimizer_(optim::make_optimizer(config.optimizer, sharded_.space())),
      optimizer_name_(config.optimizer.name),
      average_decay_(config.train.average_decay) {
  if (average_decay_ > 0) average_.emplace(average_decay_, sharded_.pieces());
  model_->set_recompute(config.compute.recompute_mode());
  model_->set_dropout(dropout_config(config));
  if (nn::has_router_bias(*model_)) chosen_LE_ = nn::no_choices(*model_);
  if (config.parallel.shard < 3) return;
  model_->set_block_runner([this](const auto& block, const auto& inputs, const auto& f) {
    return sharded_.run(block, inputs, f);
  });
}

// Gives the model, or this rank's part of it, memory and initial values.
ModelState::Cuts ModelState::cut_model(nn::TransformerImpl& model, const TrainConfig& config,
                                       const ParallelGroups& groups,
                                       std::optional<std::uint64_t> seed) {
  const MemoryScope scope(MemoryCategory::kWeights);
  const ParallelConfig& parallel = config.parallel;
  Cuts cuts;
  if (groups.experts() != nullptr) {
    cuts.experts.emplace(expert_parallel(model, *groups.experts()));
  }
  if (groups.tensor() != nullptr) {
    cuts.tensor.emplace(parallelize(
        model, *groups.tensor(),
        {.sequence = parallel.sequence, .chunks = static_cast<int>(parallel.tp_chunks)}));
  }
  if (groups.context() != nullptr) {
    cuts.context.emplace(
        context_parallel(model, *groups.context(), {.method = parallel.cp_method}));
  }
  nn::give_memory(model);
  if (seed) nn::initialize(model, *seed);
  return cuts;
}

ModelParts ModelState::model_parts() const {
  return joined(cuts_.tensor ? cuts_.tensor->parts() : ModelParts(),
                cuts_.experts ? cuts_.experts->parts() : ModelParts(), groups_.parts());
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  const ModuleLayout& layout = sharded_.layout();
  const at::Tensor parts = at::zeros({layout.size}, at::TensorOptions().dtype(at::kFloat));
  load_weights(checkpoint, layout, parts);
  load_router_bias(checkpoint, *model_);
  if (!with_optimizer) {
    sharded_.set_weights(parts);
    if (average_) average_.emplace(average_decay_, sharded_.pieces());
    return;
  }
  check_optimizer(checkpoint, optimizer_name_);
  optimizer_->set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  sharded_.set_weights(parts, optimizer_.get());
  const std::vector<optim::OptimizerState> state = optimizer_->state();
  load_optimizer(checkpoint, layout, state);
  optimizer_->set_state(state);
  load_average(checkpoint, parts);
}

void ModelState::load_average(const Checkpoint& checkpoint, const at::Tensor& parts) {
  if (!average_) return;
  average_->set_updates(
      trireme::load_average(checkpoint, sharded_.layout(), average_decay_, parts));
  sharded_.scatter_shard(parts, average_->values());
}

void ModelState::load(const StartPoint& start) {
  const std::int64_t step = start.resumed ? start.resumed->step() : -1;
  std::int64_t roots = step;
  groups_.world().broadcast(buffer_of(std::span(&roots, 1)), 0);
  if (roots != step) {
    throw_error<CheckpointError>(
        "rank {} finds its newest checkpoint at step {}, rank 0 at step {} (-1: none): the run's "
        "folder must be on storage that all hosts share",
        rank(), step, roots);
  }
  if (start.resumed) load(*start.resumed, true);
  if (!start.resumed && start.weights) load(*start.weights, false);
  first_step_ = std::max<std::int64_t>(step, 0);
}

at::Tensor ModelState::loss(const MicroBatch& batch) {
  const at::Tensor loss = sharded_.forward([&] { return share_of_loss(batch); });
  if (chosen_LE_.defined() && loss.requires_grad()) nn::add_choices(*model_, chosen_LE_);
  return loss;
}

// Ranks of ep take turns with the micro-batches; those of cp have the same.
std::vector<std::int64_t> ModelState::own_micro_batches(const ParallelConfig& parallel) const {
  std::vector<std::int64_t> numbers = sharded_.micro_batches();
  const auto coordinate = [&](const char* axis) { return groups_.mesh().coordinate(rank(), axis); };
  if (parallel.cp > 1) {
    const MicroBatchPlan plan(static_cast<std::int64_t>(micro_batches_) / parallel.ep,
                              groups_.mesh().axis_size("dp"));
    numbers.clear();
    for (const MicroBatchRange& round : plan.rounds(coordinate("dp"))) {
      for (std::int64_t m = round.begin; m < round.end; ++m) numbers.push_back(m);
    }
  }
  for (std::int64_t& number : numbers) number = number * parallel.ep + coordinate("ep");
  return numbers;
}

// The loss, or of cp's ranks those of the tokens of each, which sum up to it.
at::Tensor ModelState::share_of_loss(const MicroBatch& batch) {
  if (!cuts_.context) return loss_of(*model_, batch);
  const ContextBatch own =
      cuts_.context->cut(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
  MicroBatch part = batch;
  part.inputs_BT = own.tokens_BT;
  part.targets_BT = own.targets_BT;
  part.document_starts_BT = own.document_starts_BT;
  return loss_of(*model_, part) * own.weight;
}

GradientSum ModelState::finish_gradients(std::vector<double>& extras) {
  sharded_.finish_gradients();
  groups_.losses().all_reduce(buffer_of(std::span(extras)));
  // Those who compute the same samples have the same losses, but need not have heard the same
  // signals.
  if (groups_.tensor() != nullptr) {
    groups_.tensor()->all_reduce(buffer_of(std::span(extras)), ReduceOp::kMax);
  }
  const TimedPart part("gradient norm");
  return {micro_batches_, sharded_.gradient_norm() / micro_batches_};
}

void ModelState::step(double learning_rate, double scale) {
  sharded_.step(*optimizer_, learning_rate, scale / micro_batches_);
  if (average_) average_->update(sharded_.pieces());
  if (!chosen_LE_.defined()) return;
  groups_.losses().all_reduce(buffer_of_tensor(chosen_LE_));
  nn::update_router_bias(*model_, chosen_LE_);
  chosen_LE_.zero_();
}

void ModelState::drop_gradients() {
  sharded_.drop_gradients();
  if (chosen_LE_.defined()) chosen_LE_.zero_();
}

std::string ModelState::describe_workers() const {
  const Group& world = groups_.world();
  return groups_.mesh().axis_size("dp") == size()
             ? fmt::format("{} worker{} ({})", size(), size() == 1 ? "" : "s", world.engine())
             : fmt::format("{} workers ({}), {}{}", size(), world.engine(),
                           groups_.mesh().to_string(),
                           cuts_.tensor && cuts_.tensor->sequence() ? ", sequence" : "");
}

double ModelState::total(double value) {
  groups_.world().all_reduce(buffer_of(std::span(&value, 1)));
  return value;
}

Evaluation ModelState::evaluate(const Evaluator& evaluator) {
  swap_average();
  const Evaluation result = evaluator.run(
      [this](const MicroBatch& batch) { return whole_loss(batch); }, groups_.samples());
  swap_average();
  return result;
}

at::Tensor ModelState::whole_loss(const MicroBatch& batch) {
  const at::Tensor share = loss(batch);
  if (cuts_.context) groups_.context()->all_reduce(buffer_of_tensor(share));
  return share;
}

std::int64_t ModelState::activation_bytes_sent() const {
  return (cuts_.tensor ? cuts_.tensor->group().bytes_sent() : 0) +
         (cuts_.context ? cuts_.context->group().bytes_sent() : 0) +
         (cuts_.experts ? cuts_.experts->bytes_sent() : 0);
}

void ModelState::swap_average() {
  if (!average_) return;
  average_->swap(sharded_.pieces());
  sharded_.publish_weights(optimizer_.get());
}

void ModelState::save_average(CheckpointWriter* writer, CheckpointState& state) {
  if (!average_) return;
  state[kAverageUpdatesKey] = fmt::format("{}", average_->updates());
  const at::Tensor whole = put_together(sharded_.gather_shard(average_->values()));
  if (writer != nullptr) add_weights(*writer, whole_.layout(), whole, kAverageFile);
}

at::Tensor ModelState::put_together(const at::Tensor& parts) const {
  return parts.defined() ? whole_.gather(parts) : parts;
}

void ModelState::save(CheckpointWriter* writer, CheckpointState& state) {
  {
    const at::Tensor weights = put_together(sharded_.gather_weights());
    if (writer != nullptr) add_weights(*writer, whole_.layout(), weights);
  }
  std::vector<optim::OptimizerState> parts = optimizer_->state();
  for (optim::OptimizerState& part : parts) {
    if (part.elementwise) part.values = put_together(gather_state(sharded_, part));
  }
  save_average(writer, state);
  state[kOptimizerNameKey] = optimizer_name_;
  state[kOptimizerStepsKey] = fmt::format("{}", optimizer_->steps());
  if (writer == nullptr) return;
  add_optimizer(*writer, whole_.layout(), parts);
  add_router_bias(*writer, *model_);
  writer->add_file(kModelConfigFile, config_to_yaml(model_->config()));
}

nn::ModelConfig checkpoint_model_config(const Checkpoint& checkpoint) {
  nn::ModelConfig config;
  try {
    bind_config(ConfigTree::parse(checkpoint.file(kModelConfigFile),
                                  checkpoint.path() + "/" + kModelConfigFile, {}),
                config);
    config.resolve(0);
  } catch (const ConfigError& error) {
    throw CheckpointError(error.what());
  }
  return config;
}

void check_checkpoint_fits(const Checkpoint& checkpoint, const nn::ModelConfig& config,
                           const std::string& tokenizer_hash) {
  const Settings ours = model_settings(config);
  const Settings theirs = model_settings(checkpoint_model_config(checkpoint));
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (ours[i].second == theirs[i].second) continue;
    throw_error<CheckpointError>(
        "{} holds a model with {} {}, but the config says {}: take a checkpoint of this model, or "
        "change the config",
        checkpoint.path(), ours[i].first, theirs[i].second, ours[i].second);
  }
  if (checkpoint.state_at(kTokenizerHashKey) != tokenizer_hash) {
    throw_error<CheckpointError>(
        "{} was trained with another vocabulary (tokenizer {}, the data's is {}): set "
        "data.tokenizer "
        "to its tokenizer.json",
        checkpoint.path(), checkpoint.state_at(kTokenizerHashKey), tokenizer_hash);
  }
}

}  // namespace trireme
