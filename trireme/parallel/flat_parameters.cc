// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/flat_parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include <unordered_set>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

std::int64_t align(std::int64_t elements) {
  constexpr std::int64_t kUnit = FlatParameters::kAlignment;
  return (elements + kUnit - 1) / kUnit * kUnit;
}

// Whether tensor is the view of entry in flat.
bool lies_in(const at::Tensor& tensor, const at::Tensor& flat, const FlatEntry& entry) {
  if (!tensor.defined() || tensor.scalar_type() != flat.scalar_type() ||
      tensor.sizes() != at::IntArrayRef(entry.shape) || !tensor.is_contiguous()) {
    return false;
  }
  const auto* begin = static_cast<const char*>(flat.data_ptr());
  const auto offset_bytes = entry.offset * static_cast<std::int64_t>(flat.element_size());
  return tensor.numel() == 0 || tensor.data_ptr() == begin + offset_bytes;
}

at::Tensor zeros_of(MemoryCategory category, std::int64_t size, const at::TensorOptions& options) {
  const MemoryScope scope(category);
  return at::zeros({size}, options);
}

}  // namespace

FlatParameters::FlatParameters(torch::nn::Module& module, at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    throw_error<ShapeError>("parameters are kept in f32 or bf16, not in {}", c10::toString(dtype));
  }
  const at::NoGradGuard no_grad;
  std::unordered_set<const c10::TensorImpl*> seen;
  std::int64_t offset = 0;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& parameter = item.value();
    if (!seen.insert(parameter.unsafeGetTensorImpl()).second) {
      continue;
    }
    entries_.push_back({item.key(), parameter.sizes().vec(), offset, parameter.numel()});
    parameters_.push_back(parameter);
    offset += align(parameter.numel());
  }
  if (offset == 0) {
    throw_error<ShapeError>("the module has no parameters to train");
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (parameters_[i].device() != parameters_[0].device()) {
      throw_error<ShapeError>("parameters lie on one device: {} is on {}, {} on {}",
                              entries_[0].name, parameters_[0].device().str(), entries_[i].name,
                              parameters_[i].device().str());
    }
  }
  const auto options = parameters_.front().options().dtype(dtype).requires_grad(false);
  data_ = zeros_of(MemoryCategory::kWeights, offset, options);
  grad_ = zeros_of(MemoryCategory::kGradients, offset, options.dtype(at::kFloat));
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const at::Tensor home = view(data_, entries_[i]);
    home.copy_(parameters_[i]);
    parameters_[i].mutable_grad().reset();
    parameters_[i].set_data(home);
    parameters_[i].mutable_grad() = view(grad_, entries_[i]);
  }
}

std::int64_t FlatParameters::size() const { return data_.numel(); }

void FlatParameters::zero_grad() {
  const at::NoGradGuard no_grad;
  grad_.zero_();
}

void FlatParameters::backward(const at::Tensor& loss) {
  const ops::DirectGradients direct;
  loss.backward();
}

at::Tensor FlatParameters::exchange_grad(const at::Tensor& buffer) {
  if (!buffer.defined() || buffer.scalar_type() != at::kFloat || buffer.numel() != size() ||
      !buffer.is_contiguous() || buffer.device() != grad_.device()) {
    throw_error<ShapeError>("gradients of {} elements need a contiguous f32 buffer of that size",
                            size());
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    parameters_[i].mutable_grad() = view(buffer, entries_[i]);
  }
  return std::exchange(grad_, buffer);
}

void FlatParameters::check_views() const {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    TRIREME_ASSERT(lies_in(parameters_[i], data_, entries_[i]),
                   "parameter {} left the flat buffer: the module was moved or cast after "
                   "FlatParameters was made",
                   entries_[i].name);
    TRIREME_ASSERT(lies_in(parameters_[i].grad(), grad_, entries_[i]),
                   "the gradient of {} left the flat buffer: it was reset outside of "
                   "FlatParameters::zero_grad()",
                   entries_[i].name);
  }
}

at::Tensor FlatParameters::view(const at::Tensor& flat, const FlatEntry& entry) {
  return flat.narrow(0, entry.offset, entry.count).view(entry.shape);
}

}  // namespace trireme
