// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/flat_parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

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

// What a parameter's grad() is: no view to autograd, which an optimizer's zero_grad() may detach.
at::Tensor gradient_view(const at::Tensor& flat, const FlatEntry& entry) {
  return FlatParameters::view(flat, entry).detach();
}

at::Tensor zeros_of(MemoryCategory category, std::int64_t size, const at::TensorOptions& options,
                    Group* group) {
  const MemoryScope scope(category);
  if (group != nullptr && options.device().is_cpu()) {
    return shared_zeros(*group, {size}, c10::typeMetaToScalarType(options.dtype()));
  }
  return at::zeros({size}, options);
}

// Whether it can take the place of the flat buffer.
void check_like(const at::Tensor& buffer, const at::Tensor& flat, const char* what) {
  if (!buffer.defined() || buffer.scalar_type() != flat.scalar_type() ||
      buffer.numel() != flat.numel() || !buffer.is_contiguous() ||
      buffer.device() != flat.device()) {
    throw_error<ShapeError>("{} of {} elements need a contiguous {} buffer of that size", what,
                            flat.numel(), c10::toString(flat.scalar_type()));
  }
}

at::Tensor buffer_of(const at::Tensor& given, MemoryCategory category, std::int64_t size,
                     const at::TensorOptions& options, Group* group) {
  if (!given.defined()) return zeros_of(category, size, options, group);
  if (given.dtype() != options.dtype() || given.numel() != size || !given.is_contiguous()) {
    throw_error<ShapeError>("parameters of {} elements need a contiguous {} buffer of that size",
                            size, c10::toString(c10::typeMetaToScalarType(options.dtype())));
  }
  return given;
}

void check_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf) {
    return;
  }
  throw_error<ShapeError>("parameters are kept in f32, f64, bf16 or f16, not in {}",
                          c10::toString(dtype));
}

}  // namespace

FlatParameters::FlatParameters(torch::nn::Module& module, at::ScalarType dtype,
                               const FlatOptions& options)
    : layout_(make_layout(module, options.units, options.filter)) {
  check_dtype(dtype);
  const at::NoGradGuard no_grad;
  const at::ScalarType before = layout_.parameters.front().scalar_type();
  const auto kind = layout_.parameters.front().options().dtype(dtype).requires_grad(false);
  data_ = buffer_of(options.data, MemoryCategory::kWeights, size(), kind, options.group);
  if (options.gradients) {
    grad_ = buffer_of(options.grad, MemoryCategory::kGradients, size(),
                      kind.dtype(dtype == at::kDouble ? at::kDouble : at::kFloat), options.group);
  }
  for (std::size_t i = 0; i < entries().size(); ++i) {
    at::Tensor& parameter = layout_.parameters[i];
    const at::Tensor home = view(data_, entries()[i]);
    home.copy_(parameter);
    parameter.mutable_grad().reset();
    parameter.set_data(home);
    if (grad_.defined()) parameter.mutable_grad() = gradient_view(grad_, entries()[i]);
  }
  for (at::Tensor& parameter : layout_.frozen) {
    if (parameter.scalar_type() == before) parameter.set_data(parameter.to(dtype));
  }
}

void FlatParameters::zero_grad() {
  const at::NoGradGuard no_grad;
  grad_.zero_();
}

void FlatParameters::clear_gaps() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < entries().size(); ++i) {
    const std::int64_t begin = entries()[i].offset + entries()[i].count;
    const std::int64_t end = i + 1 < entries().size() ? entries()[i + 1].offset : size();
    if (begin < end) grad_.narrow(0, begin, end - begin).zero_();
  }
}

void FlatParameters::backward(const at::Tensor& loss, const at::Tensor& seed,
                              ops::DirectGradients::Rules rules) {
  const ops::DirectGradients direct(std::move(rules));
  loss.backward(seed);
}

at::Tensor FlatParameters::exchange_grad(const at::Tensor& buffer) {
  check_like(buffer, grad_, "gradients");
  for (std::size_t i = 0; i < entries().size(); ++i) {
    layout_.parameters[i].mutable_grad() = gradient_view(buffer, entries()[i]);
  }
  return std::exchange(grad_, buffer);
}

void FlatParameters::bring_gradient_home(std::size_t entry) {
  at::Tensor& gradient = layout_.parameters[entry].mutable_grad();
  if (lies_in(gradient, grad_, entries()[entry])) return;
  const at::NoGradGuard no_grad;
  const at::Tensor home = gradient_view(grad_, entries()[entry]);
  if (gradient.defined()) {
    home.copy_(gradient);
  } else {
    home.zero_();
  }
  gradient = home;
}

void FlatParameters::bring_gradients_home() {
  for (std::size_t i = 0; i < entries().size(); ++i) bring_gradient_home(i);
}

void FlatParameters::check_views() const {
  for (std::size_t i = 0; i < entries().size(); ++i) {
    TRIREME_ASSERT(lies_in(layout_.parameters[i], data_, entries()[i]),
                   "parameter {} left the flat buffer: the module was moved or cast after "
                   "FlatParameters was made",
                   entries()[i].name);
    TRIREME_ASSERT(!grad_.defined() || lies_in(layout_.parameters[i].grad(), grad_, entries()[i]),
                   "the gradient of {} left the flat buffer: it was reset outside of "
                   "FlatParameters::zero_grad()",
                   entries()[i].name);
  }
}

at::Tensor FlatParameters::view(const at::Tensor& flat, const FlatEntry& entry) {
  return flat.narrow(0, entry.offset, entry.count).view(entry.shape);
}

}  // namespace trireme
