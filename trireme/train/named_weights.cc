// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/named_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/nn/module.h>

#include <cstring>
#include <map>
#include <sstream>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

constexpr char kFile[] = "model.safetensors";

std::string sizes_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

at::ScalarType scalar_type_of(DType dtype, const std::string& name) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong,
                                    at::kInt, at::kChar, at::kByte}) {
    if (dtype_of_tensor(type) == dtype) return type;
  }
  throw_error<CheckpointError>("{} is of a dtype that no tensor of LibTorch has here", name);
}

TensorView view_of(const at::Tensor& tensor) {
  return {.dtype = dtype_of_tensor(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()}};
}

at::Tensor tensor_of(const TensorView& view, const std::string& name) {
  at::Tensor tensor = at::empty(view.shape, scalar_type_of(view.dtype, name));
  if (!view.bytes.empty()) std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

}  // namespace

NamedTensors named_weights(const torch::nn::Module& module) {
  NamedTensors result;
  for (const auto& item : module.named_parameters()) result.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) result.emplace_back(item.key(), item.value());
  return result;
}

void assign_weights(const NamedTensors& values, const NamedTensors& to) {
  const at::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> by_name(values.begin(), values.end());
  for (const auto& [name, tensor] : to) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      throw_error<CheckpointError>("there are no weights for {}: of another model?", name);
    }
    if (found->second.sizes() != tensor.sizes()) {
      throw_error<CheckpointError>("weights for {} are {}, the model's {}: of another model?", name,
                                   sizes_of(found->second), sizes_of(tensor));
    }
  }
  if (by_name.size() != to.size()) {
    throw_error<CheckpointError>("there are {} weights for a model of {}: of another model?",
                                 by_name.size(), to.size());
  }
  for (const auto& [name, tensor] : to) tensor.copy_(by_name.at(name));
}

std::string save_named_weights(const NamedTensors& values, const std::string& folder,
                               std::int64_t step) {
  NamedTensors whole;  // keeps copies of what is not contiguous
  std::vector<std::pair<std::string, TensorView>> views;
  for (const auto& [name, tensor] : values) {
    whole.emplace_back(name, tensor.detach().contiguous());
    views.emplace_back(name, view_of(whole.back().second));
  }
  CheckpointWriter writer(folder, step);
  writer.add_tensors(kFile, views);
  return writer.commit({});
}

NamedTensors load_named_weights(const std::string& path) {
  const Checkpoint checkpoint = Checkpoint::open(resolve_checkpoint(path));
  const SafetensorsFile file = checkpoint.tensors(kFile);
  NamedTensors result;
  for (const auto& [name, view] : file.tensors()) result.emplace_back(name, tensor_of(view, name));
  return result;
}

}  // namespace trireme
