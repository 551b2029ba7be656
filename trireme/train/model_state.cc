// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <ATen/ops/zeros.h>
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

ModelState::ModelState(const TrainConfig& config, Group& group, std::optional<std::uint64_t> seed)
    : model_(initialized_model(config.model, seed)),
      sharded_(*model_, group,
               {.stage = static_cast<int>(config.parallel.shard),
                .dtype = config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat,
                .micro_batches = config.batch.micro_batches,
                .bucket_bytes = config.parallel.bucket_bytes,
                .units = model_->blocks(),
                .prefetch = static_cast<int>(config.parallel.prefetch),
                .gather_budget_bytes = config.parallel.gather_budget_bytes}),
      optimizer_(optim::make_optimizer(config.optimizer, sharded_.space())) {
  model_->set_recompute(config.compute.recompute_mode());
  if (config.parallel.shard < 3) return;
  model_->set_block_runner([this](const auto& block, const auto& inputs, const auto& f) {
    return sharded_.run(block, inputs, f);
  });
}

void load_weights(const Checkpoint& checkpoint, const std::vector<FlatEntry>& entries,
                  const at::Tensor& weights) {
  const SafetensorsFile model = checkpoint.tensors(kModelFile);
  check_tensor_count(model, checkpoint, kModelFile, entries.size());
  copy_flat(model, checkpoint, "", entries, weights);
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  const ModuleLayout& layout = sharded_.layout();
  const at::Tensor whole = at::zeros({layout.size}, at::TensorOptions().dtype(at::kFloat));
  load_weights(checkpoint, layout.entries, whole);
  if (!with_optimizer) return sharded_.set_weights(whole);
  optimizer_->set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  sharded_.set_weights(whole, optimizer_.get());
  const SafetensorsFile file = checkpoint.tensors(kOptimizerFile);
  const std::vector<optim::OptimizerState> state = optimizer_->state();
  check_tensor_count(file, checkpoint, kOptimizerFile, state.size() * layout.entries.size());
  for (const optim::OptimizerState& part : state) {
    copy_flat(file, checkpoint, part.name + ".", layout.entries, whole);
    sharded_.scatter_shard(whole, part.values);
  }
}

void ModelState::save(CheckpointWriter* writer, CheckpointState& state) {
  const std::vector<FlatEntry>& entries = sharded_.layout().entries;
  {
    const at::Tensor weights = sharded_.gather_weights();
    if (writer != nullptr) {
      std::vector<NamedView> views;
      append_views(weights, entries, "", views);
      writer->add_tensors(kModelFile, views);
    }
  }
  std::vector<NamedView> views;
  std::vector<at::Tensor> parts;  // what views look at
  for (const optim::OptimizerState& part : optimizer_->state()) {
    parts.push_back(sharded_.gather_shard(part.values));
    if (writer != nullptr) append_views(parts.back(), entries, part.name + ".", views);
  }
  state[kOptimizerStepsKey] = fmt::format("{}", optimizer_->steps());
  if (writer == nullptr) return;
  writer->add_tensors(kOptimizerFile, views);
  writer->add_file(kModelConfigFile, config_to_yaml(model_->config()));
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
