// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using NamedView = std::pair<std::string, TensorView>;

constexpr char kFirstMoment[] = "first_moment.";
constexpr char kSecondMoment[] = "second_moment.";

// Matrices and embeddings decay; norm weights and biases do not.
std::vector<optim::DecayRange> decay_ranges(const std::vector<FlatEntry>& entries) {
  std::vector<optim::DecayRange> ranges;
  for (const FlatEntry& entry : entries) {
    if (entry.shape.size() >= 2) ranges.push_back({entry.offset, entry.offset + entry.count});
  }
  return ranges;
}

// One view for each entry of a flat f32 tensor.
void append_views(const at::Tensor& flat, const std::vector<FlatEntry>& entries,
                  const std::string& prefix, std::vector<NamedView>& views) {
  const float* data = flat.data_ptr<float>();
  for (const FlatEntry& entry : entries) {
    const std::span<const float> part(data + entry.offset, static_cast<std::size_t>(entry.count));
    views.emplace_back(prefix + entry.name,
                       TensorView{DType::kF32, entry.shape, std::as_bytes(part)});
  }
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

// Fills a flat f32 tensor from the tensors of that prefix.
void copy_flat(const SafetensorsFile& file, const Checkpoint& checkpoint, const std::string& prefix,
               const std::vector<FlatEntry>& entries, const at::Tensor& flat) {
  for (const FlatEntry& entry : entries) {
    copy_tensor(file, checkpoint, prefix + entry.name, entry, flat.data_ptr<float>());
  }
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

ModelState::ModelState(const nn::ModelConfig& config, const optim::AdamWConfig& optimizer,
                       at::ScalarType dtype, std::optional<std::uint64_t> seed)
    : model_(initialized_model(config, seed)),
      weights_(FlatParameters(*model_, at::kFloat).data()),
      flat_(*model_, dtype),
      optimizer_(optimizer, flat_.size(), decay_ranges(flat_.entries())) {
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
  copy_flat(model, checkpoint, "", entries, weights);
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  load_weights(checkpoint, flat_.entries(), weights_);
  if (working_copy_.defined()) working_copy_.copy_(weights_);
  if (!with_optimizer) return;
  const SafetensorsFile moments = checkpoint.tensors(kOptimizerFile);
  check_tensor_count(moments, checkpoint, kOptimizerFile, 2 * flat_.entries().size());
  copy_flat(moments, checkpoint, kFirstMoment, flat_.entries(), optimizer_.first_moment());
  copy_flat(moments, checkpoint, kSecondMoment, flat_.entries(), optimizer_.second_moment());
  optimizer_.set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  if (working_copy_.defined()) optimizer_.round(weights_, working_copy_);
}

void ModelState::save(CheckpointWriter& writer, CheckpointState& state) const {
  std::vector<NamedView> model;
  append_views(weights_, flat_.entries(), "", model);
  writer.add_tensors(kModelFile, model);
  std::vector<NamedView> moments;
  append_views(optimizer_.first_moment(), flat_.entries(), kFirstMoment, moments);
  append_views(optimizer_.second_moment(), flat_.entries(), kSecondMoment, moments);
  writer.add_tensors(kOptimizerFile, moments);
  writer.add_file(kModelConfigFile, config_to_yaml(model_->config()));
  state[kOptimizerStepsKey] = fmt::format("{}", optimizer_.steps());
}

void ModelState::update(const at::Tensor& gradients, double learning_rate, double scale) {
  optimizer_.step({.weights = weights_,
                   .gradients = gradients,
                   .learning_rate = learning_rate,
                   .gradient_scale = scale,
                   .working_copy = working_copy_,
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
