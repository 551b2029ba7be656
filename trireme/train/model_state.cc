// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/nn/parameter_role.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using NamedView = std::pair<std::string, TensorView>;

// All of the flat buffer is this rank's.
optim::OptimizerSpace optimizer_space(const torch::nn::Module& model, const FlatParameters& flat) {
  optim::OptimizerSpace space;
  std::unordered_map<std::string, nn::ParameterRole> roles;
  for (const nn::RoledParameter& parameter : nn::parameters_with_roles(model)) {
    roles.emplace(parameter.name, parameter.role);
  }
  for (const FlatEntry& entry : flat.entries()) {
    const nn::ParameterRole role = roles.at(entry.name);
    space.parameters.push_back({entry, nn::decays(role), nn::is_hidden_matrix(role)});
  }
  space.segments = {{0, flat.size()}};
  return space;
}

// One tensor of the optimizer's file: of a parameter, in its shape where it has as many elements.
struct StateTensor {
  std::string name;
  FlatEntry entry;  // its offset is that in values
  at::Tensor values;
};

// Of a part of the state: "first_moment.<name of the parameter>" for each of its parameters.
void append_tensors(const optim::OptimizerState& state, const std::vector<FlatEntry>& entries,
                    std::vector<StateTensor>& tensors) {
  if (!state.parameter.empty()) {
    const FlatEntry whole{state.parameter, state.values.sizes().vec(), 0, state.values.numel()};
    tensors.push_back({state.name + "." + state.parameter, whole, state.values});
    return;
  }
  for (const FlatEntry& entry : entries) {
    for (const ShardPiece& piece : state.pieces) {
      if (entry.offset < piece.begin || entry.offset >= piece.end) continue;
      FlatEntry here = entry;
      here.offset += piece.local_begin - piece.begin;
      tensors.push_back({state.name + "." + entry.name, here, state.values});
    }
  }
}

std::vector<StateTensor> tensors_of(const std::vector<optim::OptimizerState>& states,
                                    const std::vector<FlatEntry>& entries) {
  std::vector<StateTensor> tensors;
  for (const optim::OptimizerState& state : states) append_tensors(state, entries, tensors);
  return tensors;
}

NamedView view_of_entry(const std::string& name, const FlatEntry& entry, const at::Tensor& flat) {
  const std::span<const float> part(flat.data_ptr<float>() + entry.offset,
                                    static_cast<std::size_t>(entry.count));
  return {name, TensorView{DType::kF32, entry.shape, std::as_bytes(part)}};
}

void copy_tensor(const SafetensorsFile& file, const Checkpoint& checkpoint, const std::string& name,
                 const FlatEntry& entry, float* flat) {
  const TensorView& tensor = file.at(name);
  if (tensor.dtype != DType::kF32 || tensor.shape != entry.shape) {
    throw_error<CheckpointError>(
        "{}: tensor '{}' is {} [{}], but this model's is f32 [{}]: it belongs to another model",
        checkpoint.path(), name, dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "),
        fmt::join(entry.shape, ", "));
  }
  std::memcpy(flat + entry.offset, tensor.bytes.data(), tensor.bytes.size());
}

void check_tensor_count(const SafetensorsFile& file, const Checkpoint& checkpoint,
                        const char* file_name, std::size_t expected) {
  if (file.tensors().size() != expected) {
    throw_error<CheckpointError>(
        "{}: {} holds {} tensors, this model has {}: it belongs to another model",
        checkpoint.path(), file_name, file.tensors().size(), expected);
  }
}

nn::Transformer initialized_model(const nn::ModelConfig& config,
                                  std::optional<std::uint64_t> seed) {
  const MemoryScope scope(MemoryCategory::kWeights);
  nn::Transformer model(config);
  if (seed) nn::initialize(*model, *seed);
  return model;
}

}  // namespace

ModelState::ModelState(const nn::ModelConfig& config, const optim::OptimizerConfig& optimizer,
                       at::ScalarType dtype, std::optional<std::uint64_t> seed)
    : model_(initialized_model(config, seed)),
      weights_(FlatParameters(*model_, at::kFloat).data()),
      flat_(*model_, dtype),
      optimizer_(optim::make_optimizer(optimizer, optimizer_space(*model_, flat_))) {
  if (dtype == at::kFloat) {
    weights_ = flat_.data();
  } else {
    working_copy_ = flat_.data();
  }
}

void load_weights(const Checkpoint& checkpoint, const std::vector<FlatEntry>& entries,
                  const at::Tensor& weights) {
  const SafetensorsFile model = checkpoint.tensors(kModelFile);
  check_tensor_count(model, checkpoint, kModelFile, entries.size());
  for (const FlatEntry& entry : entries) {
    copy_tensor(model, checkpoint, entry.name, entry, weights.data_ptr<float>());
  }
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  load_weights(checkpoint, flat_.entries(), weights_);
  if (working_copy_.defined()) working_copy_.copy_(weights_);
  if (with_optimizer) load_optimizer(checkpoint);
}

void ModelState::load_optimizer(const Checkpoint& checkpoint) {
  const std::vector<optim::OptimizerState> states = optimizer_->state();
  const std::vector<StateTensor> tensors = tensors_of(states, flat_.entries());
  const SafetensorsFile file = checkpoint.tensors(kOptimizerFile);
  check_tensor_count(file, checkpoint, kOptimizerFile, tensors.size());
  for (const StateTensor& tensor : tensors) {
    copy_tensor(file, checkpoint, tensor.name, tensor.entry, tensor.values.data_ptr<float>());
  }
  optimizer_->set_state(states);
  optimizer_->set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  const optim::PieceUpdate all{.weights = weights_, .working_copy = working_copy_};
  optimizer_->round({&all, 1});
}

void ModelState::save(CheckpointWriter& writer, CheckpointState& state) const {
  std::vector<NamedView> model, moments;
  for (const FlatEntry& entry : flat_.entries()) {
    model.push_back(view_of_entry(entry.name, entry, weights_));
  }
  writer.add_tensors(kModelFile, model);
  const std::vector<StateTensor> tensors = tensors_of(optimizer_->state(), flat_.entries());
  for (const StateTensor& tensor : tensors) {
    moments.push_back(view_of_entry(tensor.name, tensor.entry, tensor.values));
  }
  writer.add_tensors(kOptimizerFile, moments);
  writer.add_file(kModelConfigFile, config_to_yaml(model_->config()));
  state[kOptimizerStepsKey] = fmt::format("{}", optimizer_->steps());
}

void ModelState::update(const at::Tensor& gradients, double learning_rate, double scale) {
  const optim::PieceUpdate all{
      .weights = weights_, .gradients = gradients, .working_copy = working_copy_};
  optimizer_->step({.pieces = {&all, 1},
                    .learning_rate = learning_rate,
                    .gradient_scale = scale,
                    .clear_gradients = true});
}

std::int64_t checkpoint_number(const Checkpoint& checkpoint, const std::string& key) {
  const std::string& text = checkpoint.state_at(key);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw_error<CheckpointError>("{}: state '{}' is '{}', not a number", checkpoint.path(), key,
                                 text);
  }
  return value;
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
