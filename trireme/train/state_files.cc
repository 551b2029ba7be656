// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/state_files.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <charconv>
#include <cstring>
#include <functional>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "trireme/base/error.h"

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

// Layouts that know of no parts are whole.
nn::ParameterPart part_of(const ModuleLayout& layout, std::size_t entry) {
  return layout.parts.empty() ? nn::ParameterPart() : layout.parts[entry];
}

// The part of the file's tensor that the entry is.
void copy_tensor(const SafetensorsFile& file, const Checkpoint& checkpoint, const std::string& name,
                 const FlatEntry& entry, const nn::ParameterPart& part, const at::Tensor& flat) {
  const TensorView& tensor = file.at(name);
  std::vector<std::int64_t> shape = entry.shape;
  if (part.dim >= 0) shape[static_cast<std::size_t>(part.dim)] = part.whole;
  if (tensor.dtype != DType::kF32 || tensor.shape != shape) {
    throw_error<CheckpointError>(
        "{}: tensor '{}' is {} [{}], but this model's is f32 [{}]: it belongs to another model",
        checkpoint.path(), name, dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "),
        fmt::join(shape, ", "));
  }
  if (part.dim < 0) {
    std::memcpy(flat.data_ptr<float>() + entry.offset, tensor.bytes.data(), tensor.bytes.size());
    return;
  }
  // Runs of elements that lie side by side in both.
  const auto dim = static_cast<std::size_t>(part.dim);
  const auto product = [&](std::size_t begin, std::size_t end) {
    return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(begin),
                           shape.begin() + static_cast<std::ptrdiff_t>(end), std::int64_t{1},
                           std::multiplies<>());
  };
  const std::int64_t runs = product(0, dim), inner = product(dim + 1, shape.size());
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(float));
  for (std::int64_t run = 0; run < runs; ++run) {
    std::memcpy(flat.data_ptr<float>() + entry.offset + run * part.size * inner,
                tensor.bytes.data() + (run * part.whole + part.begin) * inner * kBytes,
                static_cast<std::size_t>(part.size * inner * kBytes));
  }
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

// Fills the part from the checkpoint; whole: of the layout's size, for the way. What is kept by
// parameter and not by element is of whole ones.
void load_part(const SafetensorsFile& file, const Checkpoint& checkpoint,
               const ModuleLayout& layout, const at::Tensor& whole,
               const optim::OptimizerState& part) {
  if (!part.elementwise) {
    const FlatEntry entry{state_name(part, part.parameters[0]), part.values.sizes().vec(), 0,
                          part.values.numel()};
    return copy_tensor(file, checkpoint, entry.name, entry, {}, part.values);
  }
  const std::unordered_set<std::string> names(part.parameters.begin(), part.parameters.end());
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    const FlatEntry& entry = layout.entries[i];
    if (!names.contains(entry.name)) continue;
    copy_tensor(file, checkpoint, state_name(part, entry.name), entry, part_of(layout, i), whole);
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

}  // namespace

void add_weights(CheckpointWriter& writer, const ModuleLayout& layout, const at::Tensor& flat,
                 const char* file_name) {
  std::vector<NamedView> views;
  append_views(flat, layout.entries, "", views);
  writer.add_tensors(file_name, views);
}

void load_weights(const Checkpoint& checkpoint, const ModuleLayout& layout,
                  const at::Tensor& weights, const char* file_name, bool stage) {
  const SafetensorsFile model = checkpoint.tensors(file_name);
  if (!stage) check_tensor_count(model, checkpoint, file_name, layout.entries.size());
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    copy_tensor(model, checkpoint, layout.entries[i].name, layout.entries[i], part_of(layout, i),
                weights);
  }
}

void add_optimizer(CheckpointWriter& writer, const ModuleLayout& layout,
                   std::span<const optim::OptimizerState> parts) {
  std::vector<NamedView> views;
  for (const optim::OptimizerState& part : parts) {
    if (part.elementwise) {
      append_views(part.values, entries_named(layout.entries, part.parameters), part.name + ".",
                   views);
      continue;
    }
    const FlatEntry entry{part.parameters[0], part.values.sizes().vec(), 0, part.values.numel()};
    append_views(part.values, {entry}, part.name + ".", views);
  }
  writer.add_tensors(kOptimizerFile, views);
}

void load_optimizer(const Checkpoint& checkpoint, const ModuleLayout& layout,
                    std::span<const optim::OptimizerState> parts, bool stage) {
  const SafetensorsFile file = checkpoint.tensors(kOptimizerFile);
  std::size_t tensors = 0;
  for (const optim::OptimizerState& part : parts) tensors += part.parameters.size();
  if (!stage) check_tensor_count(file, checkpoint, kOptimizerFile, tensors);
  const at::Tensor whole = at::zeros({layout.size}, at::TensorOptions().dtype(at::kFloat));
  for (const optim::OptimizerState& part : parts) {
    load_part(file, checkpoint, layout, whole, part);
  }
}

ModuleLayout buffer_layout(const torch::nn::Module& model) {
  ModuleLayout layout;
  for (const auto& item : model.named_buffers()) {
    layout.entries.push_back(
        {item.key(), item.value().sizes().vec(), layout.size, item.value().numel()});
    layout.size += item.value().numel();
  }
  return layout;
}

at::Tensor buffer_values(const torch::nn::Module& model) {
  std::vector<at::Tensor> flat{at::empty({0}, at::kFloat)};
  for (const at::Tensor& buffer : model.buffers()) {
    flat.push_back(buffer.to(at::kFloat).view({-1}));
  }
  return at::cat(flat);
}

void add_router_bias(CheckpointWriter& writer, const torch::nn::Module& model) {
  const ModuleLayout layout = buffer_layout(model);
  if (layout.size > 0) add_weights(writer, layout, buffer_values(model), kRouterBiasFile);
}

void load_router_bias(const Checkpoint& checkpoint, const torch::nn::Module& model, bool stage) {
  const std::vector<at::Tensor> buffers = model.buffers();
  if (buffers.empty()) return;
  const ModuleLayout layout = buffer_layout(model);
  const std::vector<FlatEntry>& entries = layout.entries;
  const at::Tensor all = at::zeros({layout.size}, at::kFloat);
  load_weights(checkpoint, layout, all, kRouterBiasFile, stage);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    at::Tensor(buffers[i])
        .copy_(all.narrow(0, entries[i].offset, entries[i].count).view(buffers[i].sizes()));
  }
}

void check_optimizer(const Checkpoint& checkpoint, const std::string& name) {
  // Checkpoints of before there were others name none.
  const auto found = checkpoint.state().find(kOptimizerNameKey);
  const std::string theirs = found == checkpoint.state().end() ? "adamw" : found->second;
  if (theirs == name) return;
  throw_error<CheckpointError>(
      "{} was written by the optimizer {}, but optimizer.name is {}: keep the optimizer, or begin "
      "with its weights alone (train.init)",
      checkpoint.path(), theirs, name);
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

std::int64_t load_average(const Checkpoint& checkpoint, const ModuleLayout& layout, double decay,
                          const at::Tensor& average, bool stage) {
  if (!checkpoint.state().contains(kAverageUpdatesKey)) {
    throw_error<CheckpointError>(
        "{} holds no average of the weights, but train.average_decay is {}: leave it at 0, or "
        "begin with these weights alone (train.init)",
        checkpoint.path(), decay);
  }
  load_weights(checkpoint, layout, average, kAverageFile, stage);
  return checkpoint_number(checkpoint, kAverageUpdatesKey);
}

}  // namespace trireme
