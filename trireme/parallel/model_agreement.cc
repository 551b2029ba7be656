// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/model_agreement.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

std::string describe(const char* kind, const std::string& name, const at::Tensor& tensor) {
  return fmt::format("{} {} {} [{}]", kind, name, c10::toString(tensor.scalar_type()),
                     fmt::join(tensor.sizes(), ", "));
}

// One line for each parameter and buffer.
std::vector<std::string> describe(const torch::nn::Module& module) {
  std::vector<std::string> lines;
  std::unordered_map<const c10::TensorImpl*, std::string> first_names;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& tensor = item.value();
    std::string line = describe("parameter", item.key(), tensor);
    const auto [first, is_new] = first_names.emplace(tensor.unsafeGetTensorImpl(), item.key());
    if (!tensor.requires_grad()) line += " without gradient";
    if (!is_new) line += " tied to " + first->second;
    lines.push_back(std::move(line));
  }
  for (const auto& item : module.named_buffers()) {
    lines.push_back(describe("buffer", item.key(), item.value()));
  }
  return lines;
}

// The root's text, on all ranks.
std::string text_of(Group& group, std::string text, int root) {
  auto size = static_cast<std::int64_t>(text.size());
  group.broadcast(buffer_of(std::span(&size, 1)), root);
  text.resize(static_cast<std::size_t>(size));
  if (size > 0) group.broadcast(Buffer{text.data(), size, DType::kU8}, root);
  return text;
}

// "" when they are the same.
std::string first_difference(const std::vector<std::string>& own, const std::string& roots_text,
                             int rank) {
  std::istringstream stream(roots_text);
  std::vector<std::string> roots;
  for (std::string line; std::getline(stream, line);) roots.push_back(line);
  const auto at = [](const std::vector<std::string>& lines, std::size_t i) {
    return i < lines.size() ? lines[i] : "nothing more";
  };
  for (std::size_t i = 0; i < std::max(own.size(), roots.size()); ++i) {
    if (at(own, i) == at(roots, i)) continue;
    return fmt::format("at place {} rank {} has {}, rank 0 has {}", i, rank, at(own, i),
                       at(roots, i));
  }
  return "";
}

std::vector<at::Tensor> with_data(std::vector<at::Tensor> tensors) {
  std::erase_if(tensors, [](const at::Tensor& tensor) { return tensor.numel() == 0; });
  return tensors;
}

// By dtype, as one operation each. What is not contiguous, or lies on a device, is sent as a copy.
void broadcast_tensors(Group& group, const std::vector<at::Tensor>& tensors, int root) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<at::ScalarType, std::vector<std::pair<at::Tensor, at::Tensor>>>> by_dtype;
  for (const at::Tensor& tensor : tensors) {
    auto same = by_dtype.begin();
    while (same != by_dtype.end() && same->first != tensor.scalar_type()) ++same;
    if (same == by_dtype.end()) same = by_dtype.insert(same, {tensor.scalar_type(), {}});
    same->second.emplace_back(tensor, tensor.detach().cpu().contiguous());
  }
  for (const auto& [dtype, pairs] : by_dtype) {
    std::vector<Buffer> buffers;
    for (const auto& [tensor, sent] : pairs) {
      // Truth values travel as the bytes that they are.
      buffers.push_back(dtype == at::kBool ? Buffer{sent.data_ptr(), sent.numel(), DType::kU8}
                                           : buffer_of_tensor(sent));
    }
    group.broadcast(std::span<const Buffer>(buffers), root);
    for (const auto& [tensor, sent] : pairs) {
      if (tensor.data_ptr() != sent.data_ptr()) tensor.copy_(sent);
    }
  }
}

}  // namespace

void check_same_model(Group& group, const torch::nn::Module& module) {
  check_same_lines(group, "models", describe(module));
}

void check_same_lines(Group& group, std::string_view what, const std::vector<std::string>& lines) {
  const std::string roots = text_of(group, fmt::format("{}", fmt::join(lines, "\n")), 0);
  const std::string difference = first_difference(lines, roots, group.rank());
  std::vector<std::int64_t> differs(static_cast<std::size_t>(group.size()));
  const std::int64_t mine = difference.empty() ? 0 : 1;
  group.all_gather(const_buffer_of(std::span(&mine, 1)), buffer_of(std::span(differs)));
  for (int rank = 0; rank < group.size(); ++rank) {
    if (differs[static_cast<std::size_t>(rank)] == 0) continue;
    throw_error<ConfigError>("the ranks' {} differ: {}; give all ranks the same", what,
                             text_of(group, difference, rank));
  }
}

void broadcast_model(Group& group, torch::nn::Module& module, int root) {
  broadcast_tensors(group, with_data(module.parameters()), root);
  broadcast_module_buffers(group, module, root);
}

void broadcast_module_buffers(Group& group, torch::nn::Module& module, int root) {
  broadcast_tensors(group, with_data(module.buffers()), root);
}

}  // namespace trireme
