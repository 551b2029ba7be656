// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_state.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_set>
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

// The name of a tensor of the optimizer's file.
std::string state_name(const optim::OptimizerState& part, const std::string& parameter) {
  return part.name + "." + parameter;
}

std::vector<FlatEntry> entries_named(const std::vector<FlatEntry>& entries,
                                     const std::vector<std::string>& names) {
  const std::unordered_set<std::string> wanted(names.begin(), names.end());
  std::vector<FlatEntry> found;
  for (const FlatEntry& entry : entries) {
    if (wanted.contains(entry.name)) found.push_back(entry);
  }
  return found;
}

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

// Of an elementwise part of the state, whole, on rank 0.
at::Tensor gather_state(ShardedModel& model, const optim::OptimizerState& part) {
  const std::vector<ShardPiece>& shard = model.shard();
  const at::Tensor own = at::zeros({shard_size(shard)}, at::TensorOptions().dtype(at::kFloat));
  copy_common(part.values, part.pieces, own, shard);
  return model.gather_shard(own);
}

// Fills the part from the checkpoint; whole: of the layout's size, for the way.
void load_state(const SafetensorsFile& file, const Checkpoint& checkpoint,
                const ModuleLayout& layout, const at::Tensor& whole,
                const optim::OptimizerState& part) {
  if (!part.elementwise) {
    const FlatEntry entry{state_name(part, part.parameters[0]), part.values.sizes().vec(), 0,
                          part.values.numel()};
    return copy_tensor(file, checkpoint, entry.name, entry, part.values.data_ptr<float>());
  }
  for (const FlatEntry& entry : entries_named(layout.entries, part.parameters)) {
    copy_tensor(file, checkpoint, state_name(part, entry.name), entry, whole.data_ptr<float>());
  }
  for (const ShardPiece& piece : part.pieces) {
    part.values.narrow(0, piece.local_begin, piece.count())
        .copy_(whole.narrow(0, piece.begin, piece.count()));
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
                .gather_budget_bytes = config.parallel.gather_budget_bytes,
                .shard_ranks = static_cast<int>(config.parallel.shard_ranks)}),
      optimizer_(optim::make_optimizer(config.optimizer, sharded_.space())),
      optimizer_name_(config.optimizer.name),
      average_decay_(config.train.average_decay) {
  if (average_decay_ > 0) average_.emplace(average_decay_, sharded_.pieces());
  model_->set_recompute(config.compute.recompute_mode());
  if (config.parallel.shard < 3) return;
  model_->set_block_runner([this](const auto& block, const auto& inputs, const auto& f) {
    return sharded_.run(block, inputs, f);
  });
}

void load_weights(const Checkpoint& checkpoint, const std::vector<FlatEntry>& entries,
                  const at::Tensor& weights, const char* file_name) {
  const SafetensorsFile model = checkpoint.tensors(file_name);
  check_tensor_count(model, checkpoint, file_name, entries.size());
  for (const FlatEntry& entry : entries) {
    copy_tensor(model, checkpoint, entry.name, entry, weights.data_ptr<float>());
  }
}

void ModelState::check_optimizer(const Checkpoint& checkpoint) const {
  // Checkpoints of before there were others name none.
  const auto found = checkpoint.state().find(kOptimizerNameKey);
  const std::string theirs = found == checkpoint.state().end() ? "adamw" : found->second;
  if (theirs == optimizer_name_) return;
  throw_error<CheckpointError>(
      "{} was written by the optimizer {}, but optimizer.name is {}: keep the optimizer, or begin "
      "with its weights alone (train.init)",
      checkpoint.path(), theirs, optimizer_name_);
}

void ModelState::load(const Checkpoint& checkpoint, bool with_optimizer) {
  const ModuleLayout& layout = sharded_.layout();
  const at::Tensor whole = at::zeros({layout.size}, at::TensorOptions().dtype(at::kFloat));
  load_weights(checkpoint, layout.entries, whole);
  if (!with_optimizer) {
    sharded_.set_weights(whole);
    if (average_) average_.emplace(average_decay_, sharded_.pieces());
    return;
  }
  check_optimizer(checkpoint);
  optimizer_->set_steps(checkpoint_number(checkpoint, kOptimizerStepsKey));
  sharded_.set_weights(whole, optimizer_.get());
  const SafetensorsFile file = checkpoint.tensors(kOptimizerFile);
  const std::vector<optim::OptimizerState> state = optimizer_->state();
  std::size_t tensors = 0;
  for (const optim::OptimizerState& part : state) tensors += part.parameters.size();
  check_tensor_count(file, checkpoint, kOptimizerFile, tensors);
  for (const optim::OptimizerState& part : state) {
    load_state(file, checkpoint, layout, whole, part);
  }
  optimizer_->set_state(state);
  load_average(checkpoint, whole);
}

void ModelState::load_average(const Checkpoint& checkpoint, const at::Tensor& whole) {
  if (!average_) return;
  if (!checkpoint.state().contains(kAverageUpdatesKey)) {
    throw_error<CheckpointError>(
        "{} holds no average of the weights, but train.average_decay is {}: leave it at 0, or "
        "begin "
        "with these weights alone (train.init)",
        checkpoint.path(), average_decay_);
  }
  load_weights(checkpoint, sharded_.layout().entries, whole, kAverageFile);
  sharded_.scatter_shard(whole, average_->values());
  average_->set_updates(checkpoint_number(checkpoint, kAverageUpdatesKey));
}

void ModelState::step(double learning_rate, double gradient_scale) {
  sharded_.step(*optimizer_, learning_rate, gradient_scale);
  if (average_) average_->update(sharded_.pieces());
}

void ModelState::swap_average() {
  if (!average_) return;
  average_->swap(sharded_.pieces());
  sharded_.publish_weights(optimizer_.get());
}

void ModelState::save_average(CheckpointWriter* writer, CheckpointState& state) {
  if (!average_) return;
  state[kAverageUpdatesKey] = fmt::format("{}", average_->updates());
  const at::Tensor whole = sharded_.gather_shard(average_->values());
  if (writer == nullptr) return;
  std::vector<NamedView> views;
  append_views(whole, sharded_.layout().entries, "", views);
  writer->add_tensors(kAverageFile, views);
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
    if (!part.elementwise) {
      const FlatEntry entry{part.parameters[0], part.values.sizes().vec(), 0, part.values.numel()};
      append_views(part.values, {entry}, part.name + ".", views);
      parts.push_back(part.values);
      continue;
    }
    parts.push_back(gather_state(sharded_, part));
    if (writer == nullptr) continue;
    append_views(parts.back(), entries_named(entries, part.parameters), part.name + ".", views);
  }
  save_average(writer, state);
  state[kOptimizerNameKey] = optimizer_name_;
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
