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

#include "trireme/ops/parameter_gradient.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/parallel/module_layout.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class Group;

struct FlatOptions {
  std::vector<const torch::nn::Module*> units =
      {};                       // subtrees that lie together; see make_layout()
  ParameterFilter filter = {};  // of make_layout(); the others are left alone
  // False: no buffer for gradients, and parameters without one.
  bool gradients = true;
  // With a group, the buffers lie where its collectives use them.
  Group* group = nullptr;
  // Or the buffers themselves: zeros [size] of their dtype, on the CPU, with size as make_layout()
  // has it. Undefined: new ones.
  at::Tensor data = {};
  at::Tensor grad = {};
};

// Not thread-safe. The module must not be moved or cast afterwards (.to() breaks the views;
// check_views() finds it).
class FlatParameters {
 public:
  static constexpr std::int64_t kAlignment = 64;  // elements: a cache line of bf16 is 32, of f32 16

  // Takes the parameters that require a gradient as make_layout() lays them out, casts them (and
  // those of their dtype that require none) to dtype, f32, f64, bf16 or f16, and re-points module
  // and gradients.
  // The buffers lie where the parameters do, on one device. Throws ShapeError as make_layout()
  // does.
  FlatParameters(torch::nn::Module& module, at::ScalarType dtype, const FlatOptions& options = {});

  std::int64_t size() const { return layout_.size; }  // elements including gaps
  const ModuleLayout& layout() const { return layout_; }
  const std::vector<FlatEntry>& entries() const { return layout_.entries; }
  at::Tensor data() const { return data_; }  // [size()], dtype
  // [size()]: f64 for f64, else f32. Undefined without gradients.
  at::Tensor grad() const { return grad_; }
  void zero_grad();
  // Zeros in the gaps of grad(): an exchange that works on blocks (a codec) may have put something
  // there, a NaN even, that no one else would ever clear.
  void clear_gaps();
  // loss.backward(), with the gradients of ops' operations summed in place (ops::DirectGradients).
  // loss.backward() alone gives the same sums with more passes over memory, and in bf16 each
  // gradient is rounded to bf16 before it is added. seed: what the loss's gradient is; 1 when
  // undefined. rules: of the DirectGradients.
  void backward(const at::Tensor& loss, const at::Tensor& seed = {},
                ops::DirectGradients::Rules rules = {});
  // The gradients lie in `buffer` from here on, contiguous, of the dtype and size of grad();
  // returns the tensor where they lay. Nothing is copied or cleared. Throws ShapeError.
  at::Tensor exchange_grad(const at::Tensor& buffer);
  // Where the gradient of a parameter is no longer its view of the buffer, it becomes that again: a
  // gradient that was reset (zero_grad(set_to_none)) is zeros, one that autograd laid elsewhere is
  // copied. For one entry, or for all.
  void bring_gradient_home(std::size_t entry);
  void bring_gradients_home();
  // Throws InternalError when a parameter or gradient of the module no longer lies in the buffers,
  // naming it.
  void check_views() const;
  // View of one entry of any flat tensor of size() elements, in the entry's shape.
  static at::Tensor view(const at::Tensor& flat, const FlatEntry& entry);

 private:
  ModuleLayout layout_;
  at::Tensor data_;
  at::Tensor grad_;
};

}  // namespace trireme
