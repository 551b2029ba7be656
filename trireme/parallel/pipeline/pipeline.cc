// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/pipeline.h"

#include <c10/util/Type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/container/sequential.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/model_agreement.h"
#include "trireme/parallel/pipeline/pipeline_executor.h"
#include "trireme/parallel/pipeline/pipeline_plans.h"
#include "trireme/parallel/pipeline/stage_layers.h"

namespace trireme {
namespace {

// One line for each thing.
std::vector<std::string> describe(const PipelineOptions& options) {
  std::vector<std::string> lines{fmt::format("micro_batches {}", options.micro_batches),
                                 fmt::format("chunks {}", options.chunks),
                                 fmt::format("layers [{}]", fmt::join(options.layers, ", ")),
                                 fmt::format("an example of {} tensors", options.example.size()),
                                 fmt::format("loss_weight {}", options.loss_weight)};
  const auto* schedule = std::get_if<plan::Schedule>(&options.schedule);
  if (schedule == nullptr) {
    lines.push_back("schedule " + std::get<std::string>(options.schedule));
    return lines;
  }
  lines.push_back(fmt::format("schedule {} of {} ranks with stages on [{}]", schedule->name,
                              schedule->ranks, fmt::join(schedule->rank_of_stage, ", ")));
  for (std::size_t rank = 0; rank < schedule->of_rank.size(); ++rank) {
    for (const plan::Instruction& instruction : schedule->of_rank[rank]) {
      lines.push_back(fmt::format("{} for rank {} in the schedule", to_string(instruction), rank));
    }
  }
  return lines;
}

std::vector<std::pair<std::string, at::Tensor>> named_tensors(const torch::nn::Module& module) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& item : module.named_parameters()) tensors.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) tensors.emplace_back(item.key(), item.value());
  return tensors;
}

void check_devices(const torch::nn::Module& net) {
  for (const auto& [name, tensor] : named_tensors(net)) {
    if (!tensor.defined() || tensor.is_cpu()) continue;
    throw_error<ConfigError>(
        "{} lies on {}, and what goes from stage to stage is on the CPU: move the net there", name,
        tensor.device().str());
  }
}

// Each stage adds up its own gradients.
void check_apart(const std::map<int, std::shared_ptr<StageLayers>>& stages) {
  std::map<const c10::StorageImpl*, std::pair<int, std::string>> owners;
  for (const auto& [stage, layers] : stages) {
    for (const auto& [name, tensor] : named_tensors(*layers)) {
      if (!tensor.defined() || tensor.numel() == 0) continue;
      const auto [owner, is_new] =
          owners.try_emplace(tensor.storage().unsafeGetStorageImpl(), stage, name);
      if (is_new || owner->second.first == stage) continue;
      throw_error<ConfigError>(
          "{} of stage {} and {} of stage {} are the same memory: put their layers into one stage",
          owner->second.second, owner->second.first, name, stage);
    }
  }
}

}  // namespace

double PipelineLosses::mean() const {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

struct Pipeline::Impl {
  Impl(const torch::nn::Sequential& net, Group& group, const PipelineOptions& options);

  void cut(const torch::nn::Sequential& net, const PipelineOptions& options);
  std::map<int, Stage> make_stages();
  StageOutput compute(int stage, std::int64_t m, const std::vector<at::Tensor>& inputs);
  at::Tensor last_output(torch::nn::AnyValue value) const;
  at::Tensor checked_loss(const at::Tensor& output, std::int64_t m) const;
  // What each call is given, for as long as it runs.
  PipelineLosses run(const plan::Schedule& with, const Inputs& inputs_in, const Loss& loss_in,
                     const Take& take_in);
  const plan::Schedule& forward_of(int micro_batches);
  int rank_of_last() const { return schedule.rank_of_stage.back(); }

  std::unique_ptr<Group> group;
  double loss_weight;
  plan::Schedule schedule;
  plan::Schedule forward;  // the last one that was asked for
  std::vector<int> counts;
  std::vector<int> stages;
  std::map<int, std::shared_ptr<StageLayers>> layers;
  std::string last_name;  // of the net's last layer
  std::map<int, std::function<void(const std::function<void()>&)>> adds;
  Inputs inputs;
  Loss loss;
  Take take;
  std::optional<PipelineExecutor> executor;
};

Pipeline::Impl::Impl(const torch::nn::Sequential& net, Group& group_in,
                     const PipelineOptions& options)
    : group(group_in.duplicate("pipeline of layers")) {
  check_same_lines(*group, "pipelines", describe(options));
  check_same_model(*group, *net);
  check_devices(*net);
  schedule = training_schedule(options, group->size());
  loss_weight = options.loss_weight != 0 ? options.loss_weight : 1.0 / schedule.micro_batches;
  cut(net, options);
  executor.emplace(*group, make_stages());
}

void Pipeline::Impl::cut(const torch::nn::Sequential& net, const PipelineOptions& options) {
  const std::vector<NamedLayer> all = layers_of(net);
  counts = count_layers(options, schedule, all, *group);
  last_name = all.back().name;
  auto next = all.begin();
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    const auto end = next + counts[static_cast<std::size_t>(stage)];
    layers[stage] = std::make_shared<StageLayers>(std::vector<NamedLayer>(next, end));
    next = end;
  }
  check_apart(layers);
  broadcast_model(*group, *net.ptr());
  stages = plan::stages_of_rank(schedule.rank_of_stage, group->rank());
  std::erase_if(layers, [&](const auto& stage) {
    if (std::ranges::find(stages, stage.first) != stages.end()) return false;
    free_memory(*stage.second);
    return true;
  });
}

std::map<int, Stage> Pipeline::Impl::make_stages() {
  std::map<int, Stage> result;
  for (const int stage : stages) {
    Stage& own = result[stage];
    own.forward = [this, stage](std::int64_t m, const std::vector<at::Tensor>& activations) {
      return compute(stage, m, activations);
    };
    own.run_pass = [this, stage](std::int64_t, StagePass pass, const std::function<void()>& f) {
      const auto add = adds.find(stage);
      if (pass == StagePass::kInputs || add == adds.end()) return f();
      add->second(f);
    };
  }
  return result;
}

StageOutput Pipeline::Impl::compute(int stage, std::int64_t m,
                                    const std::vector<at::Tensor>& activations) {
  StageLayers& own = *layers.at(stage);
  torch::nn::AnyValue value = stage == 0 ? own.run_first(inputs(m).tensors) : own.run(activations);
  if (stage + 1 < schedule.stages()) {
    return {.activations = own.pack(std::move(value))};
  }
  const at::Tensor output = last_output(std::move(value));
  if (take) {
    take(output, m);
    return {};
  }
  return {.loss = checked_loss(output, m), .weight = loss_weight};
}

at::Tensor Pipeline::Impl::last_output(torch::nn::AnyValue value) const {
  if (const at::Tensor* const tensor = value.try_get<at::Tensor>()) return *tensor;
  throw_error<ShapeError>("layer {}, the net's last, gives a {}: let it give one tensor", last_name,
                          c10::demangle(value.type_info().name()));
}

at::Tensor Pipeline::Impl::checked_loss(const at::Tensor& output, std::int64_t m) const {
  const at::Tensor value = loss(output, m);
  if (value.defined() && value.numel() == 1) return value;
  throw_error<ShapeError>("the loss of micro-batch {} is {}: give a scalar", m,
                          value.defined() ? fmt::format("[{}]", fmt::join(value.sizes(), ", "))
                                          : std::string("undefined"));
}

PipelineLosses Pipeline::Impl::run(const plan::Schedule& with, const Inputs& inputs_in,
                                   const Loss& loss_in, const Take& take_in) {
  inputs = inputs_in;
  loss = loss_in;
  take = take_in;
  PipelineLosses result{executor->run(with).losses};
  if (!take) group->broadcast(buffer_of(std::span(result.values)), rank_of_last());
  return result;
}

const plan::Schedule& Pipeline::Impl::forward_of(int micro_batches) {
  if (micro_batches < 1 || forward.micro_batches != micro_batches)
    forward = forward_schedule(schedule, micro_batches);
  return forward;
}

Pipeline::Pipeline(const torch::nn::Sequential& net, Group& group, const PipelineOptions& options)
    : impl_(std::make_unique<Impl>(net, group, options)) {}
Pipeline::~Pipeline() = default;
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;

const plan::Schedule& Pipeline::schedule() const { return impl_->schedule; }
const std::vector<int>& Pipeline::layers() const { return impl_->counts; }
const std::vector<int>& Pipeline::stages() const { return impl_->stages; }

torch::nn::Module& Pipeline::module(int stage) const {
  const auto found = impl_->layers.find(stage);
  if (found != impl_->layers.end()) return *found->second;
  throw_error<ConfigError>("rank {} of the pipeline has stages [{}], and not {}",
                           impl_->group->rank(), fmt::join(impl_->stages, ", "), stage);
}

std::vector<std::pair<std::string, at::Tensor>> Pipeline::named_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (const auto& [stage, layers] : impl_->layers) {
    for (const auto& item : layers->named_parameters()) {
      result.emplace_back(item.key(), item.value());
    }
  }
  return result;
}

std::vector<at::Tensor> Pipeline::parameters() const {
  std::vector<at::Tensor> result;
  for (auto& [name, tensor] : named_parameters()) result.push_back(tensor);
  return result;
}

void Pipeline::train(bool on) {
  for (const auto& [stage, layers] : impl_->layers) layers->train(on);
}

void Pipeline::set_add(int stage, std::function<void(const std::function<void()>&)> add) {
  module(stage);  // throws for another rank's
  impl_->adds[stage] = std::move(add);
}

PipelineLosses Pipeline::step(const Inputs& inputs, const Loss& loss) {
  return impl_->run(impl_->schedule, inputs, loss, {});
}

PipelineLosses Pipeline::evaluate(int micro_batches, const Inputs& inputs, const Loss& loss) {
  return impl_->run(impl_->forward_of(micro_batches), inputs, loss, {});
}

void Pipeline::forward(int micro_batches, const Inputs& inputs, const Take& take) {
  impl_->run(impl_->forward_of(micro_batches), inputs, {}, take);
}

std::int64_t Pipeline::bytes_sent() const { return impl_->executor->bytes_sent(); }

}  // namespace trireme
