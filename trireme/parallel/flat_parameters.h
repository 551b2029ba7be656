// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// FlatParameters: all parameters of a module in one buffer, all gradients in another.
//
// The module's parameters become views into the buffers; gradients are accumulated in place by
// autograd, so communication and optimizer work on few large arrays and copy nothing.
//
//   FlatParameters flat(*model, at::kBFloat16);  // after all .to(); the model now computes in bf16
//   flat.zero_grad();
//   flat.backward(loss);
//   flat.grad();                                 // f32 [flat.size()]
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "trireme/optim/flat_layout.h"

namespace torch::nn {
class Module;
}

namespace trireme {

// Not thread-safe. The module must not be moved or cast afterwards (.to() breaks the views;
// check_views() finds it).
class FlatParameters {
 public:
  static constexpr std::int64_t kAlignment = 64;  // elements: a cache line of bf16 is 32, of f32 16

  // Takes the parameters in registration order, tied ones once, casts to dtype (f32 or bf16) and
  // re-points module and gradients. The buffers lie where the parameters do, on one device. Throws
  // ShapeError for a module without parameters, or with some on another device.
  FlatParameters(torch::nn::Module& module, at::ScalarType dtype);

  std::int64_t size() const;  // elements including gaps
  const std::vector<FlatEntry>& entries() const { return entries_; }
  at::Tensor data() const { return data_; }  // [size()], dtype
  at::Tensor grad() const { return grad_; }  // [size()], f32 whatever the dtype
  void zero_grad();
  // loss.backward(), with the gradients of ops' operations summed in place (ops::DirectGradients).
  // loss.backward() alone gives the same sums with more passes over memory, and in bf16 each
  // gradient is rounded to bf16 before it is added.
  void backward(const at::Tensor& loss);
  // The gradients lie in `buffer` from here on, f32 [size()] contiguous; returns the tensor where
  // they lay. Nothing is copied or cleared. Throws ShapeError.
  at::Tensor exchange_grad(const at::Tensor& buffer);
  // Throws InternalError when a parameter or gradient of the module no longer lies in the buffers,
  // naming it.
  void check_views() const;
  // View of one entry of any flat tensor of size() elements, in the entry's shape.
  static at::Tensor view(const at::Tensor& flat, const FlatEntry& entry);

 private:
  std::vector<FlatEntry> entries_;
  std::vector<at::Tensor> parameters_;
  at::Tensor data_;
  at::Tensor grad_;
};

}  // namespace trireme
