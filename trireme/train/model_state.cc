// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <sstream>
#include <utility>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/nn/router_bias.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/model_agreement.h"
#include "trireme/parallel/tensor_buffer.h"
#include "trireme/plan/schedule_file.h"
#include "trireme/train/layer_times.h"
#include "trireme/train/pipeline_timeline.h"
#include "trireme/train/stage_states.h"

namespace trireme {
namespace {

// Who does what: the same on all ranks, or none gets to the end of a step.
std::vector<std::string> lines_of(const PipelinePlan& plan) {
  std::vector<std::string> lines;
  for (const nn::TransformerPart& part : plan.stages) {
    lines.push_back(fmt::format("a stage of blocks {} to {}", part.begin, part.end));
  }
  std::ostringstream text;
  plan::write_schedule(text, plan.schedule);
  std::istringstream rows(text.str());
  for (std::string row; std::getline(rows, row);) lines.push_back(row);
  return lines;
}

}  // namespace

ModelState::ModelState(const TrainConfig& config, Group& world, std::optional<std::uint64_t> seed)
    : groups_(config.parallel, world),
      micro_batches_(static_cast<double>(config.batch.micro_batches)),
      optimizer_name_(config.optimizer.name) {
  groups_.pipeline() == nullptr ? make_whole(config, seed) : make_stages(config, seed);
  for (const auto& chunk : chunks_) {
    chosen_LE_.push_back(nn::has_router_bias(chunk->model()) ? nn::no_choices(chunk->model())
                                                             : at::Tensor());
  }
  const std::vector<std::string> names = parameter_names(config.model);
  std::vector<const ModuleLayout*> layouts, wholes;
  for (const auto& part : parts_) {
    layouts.push_back(&part->sharded().layout());
    wholes.push_back(&part->whole());
  }
  norm_ = std::make_unique<StageNorm>(layouts, names, groups_.pipeline());
  if (has_wholes()) whole_ = std::make_unique<StageLayouts>(wholes, names, groups_.pipeline());
}

void ModelState::make_whole(const TrainConfig& config, std::optional<std::uint64_t> seed) {
  chunks_.push_back(std::make_unique<ModelChunk>(config, nn::TransformerPart(), groups_, seed));
  parts_.push_back(std::make_unique<TrainedPart>(*chunks_.front(), config, groups_));
  own_micro_batches_ = find_micro_batches(config);
  if (config.parallel.shard < 3) return;
  model().set_block_runner([this](const auto& block, const auto& inputs, const auto& f) {
    return sharded().run(block, inputs, f);
  });
}

void ModelState::make_stages(const TrainConfig& config, std::optional<std::uint64_t> seed) {
  plan_ = std::make_unique<PipelinePlan>(
      plan_pipeline(config, groups_.mesh().axis_size("dp"), layer_times_of_run(config, groups_)));
  check_same_lines(groups_.world(), "pipelines", lines_of(*plan_));
  const std::string head = config.model.tied() ? "token_embedding.weight" : "head.weight";
  const auto is_head = [head](const std::string& name) { return name == head; };
  const auto is_other = [head](const std::string& name) { return name != head; };
  std::vector<StageChunk> stages;
  for (std::size_t i = 0; i < plan_->stages.size(); ++i) {
    if (plan_->schedule.rank_of_stage[i] != groups_.pipeline()->rank()) continue;
    const nn::TransformerPart& part = plan_->stages[i];
    ModelChunk& chunk =
        *chunks_.emplace_back(std::make_unique<ModelChunk>(config, part, groups_, seed));
    StageChunk stage{.stage = static_cast<int>(i), .chunk = &chunk};
    stage.blocks =
        parts_.emplace_back(std::make_unique<TrainedPart>(chunk, config, groups_, is_other)).get();
    if (part.head) {
      stage.head =
          parts_.emplace_back(std::make_unique<TrainedPart>(chunk, config, groups_, is_head)).get();
    }
    stages.push_back(stage);
  }
  own_micro_batches_ = find_micro_batches(config);
  pipeline_ = std::make_unique<PipelineSteps>(config, groups_, *plan_, std::move(stages),
                                              own_micro_batches_);
}

// Ranks of ep take turns with the micro-batches; those of cp have the same.
std::vector<std::int64_t> ModelState::find_micro_batches(const TrainConfig& config) const {
  const ParallelConfig& parallel = config.parallel;
  std::vector<std::int64_t> numbers = parts_.front()->sharded().micro_batches();
  const auto coordinate = [&](const char* axis) { return groups_.mesh().coordinate(rank(), axis); };
  if (parallel.cp > 1) {
    const MicroBatchPlan plan(config.batch.micro_batches / parallel.ep,
                              groups_.mesh().axis_size("dp"));
    numbers.clear();
    for (const MicroBatchRange& round : plan.rounds(coordinate("dp"))) {
      for (std::int64_t m = round.begin; m < round.end; ++m) numbers.push_back(m);
    }
  }
  for (std::int64_t& number : numbers) number = number * parallel.ep + coordinate("ep");
  return numbers;
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  if (with_optimizer) check_optimizer(checkpoint, optimizer_name_);
  for (const auto& part : parts_) part->load(checkpoint, with_optimizer);
  for (const auto& chunk : chunks_) {
    load_router_bias(checkpoint, chunk->model(), pipeline_ != nullptr);
  }
  if (pipeline_) pipeline_->refresh_tied();
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

void ModelState::compute_gradients(const LoadBatch& load, std::span<double> losses) {
  if (!pipeline_) return compute_in_turn(*this, load, losses);
  const TimedPart part("pipeline");
  pipeline_->compute_gradients(load, losses, [this](ModelChunk& chunk) { add_choices(chunk); });
}

at::Tensor ModelState::loss(const MicroBatch& batch) {
  const at::Tensor loss = sharded().forward([&] { return chunks_.front()->loss(batch); });
  if (loss.requires_grad()) add_choices(*chunks_.front());
  return loss;
}

void ModelState::add_choices(ModelChunk& chunk) {
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    if (chunks_[i].get() == &chunk && chosen_LE_[i].defined()) {
      nn::add_choices(chunk.model(), chosen_LE_[i]);
    }
  }
}

GradientSum ModelState::finish_gradients(std::vector<double>& extras) {
  for (const auto& part : parts_) part->sharded().finish_gradients();
  groups_.losses().all_reduce(buffer_of(std::span(extras)));
  // Those who compute the same samples have the same losses, but need not have heard the same
  // signals.
  if (groups_.tensor() != nullptr) {
    groups_.tensor()->all_reduce(buffer_of(std::span(extras)), ReduceOp::kMax);
  }
  const TimedPart part("gradient norm");
  std::vector<GradientSquares> squares;
  for (const auto& one : parts_) squares.push_back(one->sharded().gradient_squares());
  return {micro_batches_, norm_->of(squares, groups_.parts()) / micro_batches_};
}

void ModelState::step(double learning_rate, double scale) {
  for (const auto& part : parts_) part->step(learning_rate, scale / micro_batches_);
  update_router_bias();
  if (pipeline_) pipeline_->refresh_tied();
}

void ModelState::update_router_bias() {
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    if (!chosen_LE_[i].defined() || chosen_LE_[i].numel() == 0) continue;
    groups_.tokens().all_reduce(buffer_of_tensor(chosen_LE_[i]));
    nn::update_router_bias(chunks_[i]->model(), chosen_LE_[i]);
    chosen_LE_[i].zero_();
  }
}

void ModelState::drop_gradients() {
  for (const auto& part : parts_) part->sharded().drop_gradients();
  for (const at::Tensor& chosen_LE : chosen_LE_) {
    if (chosen_LE.defined()) chosen_LE.zero_();
  }
}

StepReport ModelState::report() {
  StepReport report = parts_.front()->sharded().report();
  for (std::size_t i = 1; i < parts_.size(); ++i) {
    const StepReport& other = parts_[i]->sharded().report();
    report.communication_us += other.communication_us;
    report.exposed_us += other.exposed_us;
    report.unused.insert(report.unused.end(), other.unused.begin(), other.unused.end());
  }
  return report;
}

std::string ModelState::describe_workers() const {
  const Group& world = groups_.world();
  return groups_.mesh().axis_size("dp") == size()
             ? fmt::format("{} worker{} ({})", size(), size() == 1 ? "" : "s", world.engine())
             : fmt::format("{} workers ({}), {}{}{}", size(), world.engine(),
                           groups_.mesh().to_string(),
                           chunks_.front()->sequence() ? ", sequence" : "",
                           plan_ ? fmt::format(", {} in {} stages", plan_->schedule.name,
                                               plan_->stages.size())
                                 : "");
}

double ModelState::total(double value) {
  groups_.world().all_reduce(buffer_of(std::span(&value, 1)));
  return value;
}

Evaluation ModelState::evaluate(const Evaluator& evaluator) {
  swap_average();
  if (pipeline_) pipeline_->hold_weights(true);
  Evaluation result = evaluator.run([this](const MicroBatch& batch) { return whole_loss(batch); },
                                    groups_.samples());
  if (pipeline_) {
    pipeline_->hold_weights(false);
    groups_.pipeline()->broadcast(buffer_of(std::span(&result.loss, 1)),
                                  plan_->schedule.rank_of_stage.back());
  }
  swap_average();
  return result;
}

double ModelState::whole_loss(const MicroBatch& batch) {
  double share = pipeline_ ? pipeline_->loss(batch) : loss(batch).item<double>();
  if (groups_.context() != nullptr) {
    groups_.context()->all_reduce(buffer_of(std::span(&share, 1)));
  }
  return share;
}

std::int64_t ModelState::bytes_sent() {
  std::int64_t bytes = 0;
  for (const auto& part : parts_) bytes += part->sharded().bytes_sent();
  return bytes;
}

std::int64_t ModelState::bytes_sent_between_replicas() {
  std::int64_t bytes = 0;
  for (const auto& part : parts_) bytes += part->sharded().bytes_sent_between_replicas();
  return bytes;
}

std::int64_t ModelState::activation_bytes_sent() const {
  std::int64_t bytes = pipeline_ ? pipeline_->bytes_sent() : 0;
  for (const auto& chunk : chunks_) bytes += chunk->activation_bytes_sent();
  return bytes;
}

void ModelState::swap_average() {
  for (const auto& part : parts_) part->swap_average();
  if (pipeline_ && parts_.front()->has_average()) pipeline_->refresh_tied();
}

void ModelState::trace_next_step() {
  if (pipeline_) pipeline_->align_next();
}

void ModelState::write_trace(const std::string& file) {
  if (!pipeline_) return;
  const std::vector<plan::TraceSpan> spans =
      gather_timeline(plan_->schedule, pipeline_->last_run(), *groups_.pipeline());
  if (rank() == 0) write_timeline(file, spans, plan_->report);
}

// Rank 0 of the replicas and of the parts.
bool ModelState::has_wholes() const {
  return groups_.replicas().rank() == 0 &&
         (groups_.parts() == nullptr || groups_.parts()->rank() == 0);
}

at::Tensor ModelState::gather_stages(const std::vector<at::Tensor>& wholes) const {
  return whole_ ? whole_->gather(wholes) : at::Tensor();
}

void ModelState::save(CheckpointWriter* writer, CheckpointState& state) {
  std::vector<at::Tensor> wholes;
  for (const auto& part : parts_) wholes.push_back(part->gather_weights());
  at::Tensor whole = gather_stages(wholes);
  if (writer != nullptr) add_weights(*writer, whole_->layout(), whole);
  const std::vector<optim::OptimizerState> states = gather_states();
  if (parts_.front()->has_average()) {
    state[kAverageUpdatesKey] = fmt::format("{}", parts_.front()->average_updates());
    wholes.clear();
    for (const auto& part : parts_) wholes.push_back(part->gather_average());
    whole = gather_stages(wholes);
    if (writer != nullptr) add_weights(*writer, whole_->layout(), whole, kAverageFile);
  }
  state[kOptimizerNameKey] = optimizer_name_;
  state[kOptimizerStepsKey] = fmt::format("{}", parts_.front()->optimizer().steps());
  add_router_biases(writer);
  if (writer == nullptr) return;
  add_optimizer(*writer, whole_->layout(), states);
  writer->add_file(kModelConfigFile, config_to_yaml(chunks_.front()->model().config()));
}

std::vector<optim::OptimizerState> ModelState::gather_states() {
  std::vector<std::vector<optim::OptimizerState>> states;
  for (const auto& part : parts_) states.push_back(part->gather_state());
  if (!pipeline_) return states.front();
  if (!whole_) return {};
  std::vector<const ModuleLayout*> wholes;
  for (const auto& part : parts_) wholes.push_back(&part->whole());
  return join_stage_states(states, wholes, *whole_, *groups_.pipeline());
}

void ModelState::add_router_biases(CheckpointWriter* writer) {
  if (!pipeline_) {
    if (writer != nullptr) add_router_bias(*writer, model());
    return;
  }
  if (!whole_ || !nn::has_router_bias(model())) return;
  std::vector<ModuleLayout> layouts;
  std::vector<const ModuleLayout*> own;
  std::vector<at::Tensor> values;
  layouts.reserve(chunks_.size());
  for (const auto& chunk : chunks_) {
    own.push_back(&layouts.emplace_back(buffer_layout(chunk->model())));
    values.push_back(buffer_values(chunk->model()));
  }
  const StageLayouts all(own, buffer_names(model().config()), groups_.pipeline());
  const at::Tensor whole = all.gather(values);
  if (writer != nullptr) add_weights(*writer, all.layout(), whole, kRouterBiasFile);
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
