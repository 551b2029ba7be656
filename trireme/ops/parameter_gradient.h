// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Gradients of parameters, added where they belong while they are computed.
//
// Autograd hands the gradient of a matrix over as a tensor and adds it to param.grad() afterwards:
// three more passes over memory, and in a bf16 model a gradient rounded to bf16. While a
// DirectGradients lives, the operations of ops/ add theirs straight to param.grad(), in f32, in the
// matrix product itself.
//
//   const ops::DirectGradients direct;
//   loss.backward();
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <functional>

namespace trireme::ops {

class DeferredGradients;

// Applies to backward passes that this thread starts while it lives, on whatever threads LibTorch
// runs them. Only parameters (leaves) that require a gradient and whose grad() is a contiguous f32
// tensor of their shape, on their device, take part; LibTorch lets a bf16 parameter have one. Every
// other gradient takes the usual way. Hooks after a parameter's accumulation still run; those of
// Tensor::register_hook(), before it, get nothing to see. Do not use torch::autograd::grad()
// meanwhile: it wants gradients returned.
//
// Rules say more about parameters that they know and leave others alone; each may be missing. May
// nest: the rules of all apply, the innermost first.
class DirectGradients {
 public:
  // Rows of a matrix's gradient that are summed elsewhere: row r at sums[place[r]].
  struct RowHome {
    at::Tensor sums;   // f32 [R, C], contiguous
    at::Tensor place;  // i64 [V], contiguous; -1: none
  };
  struct Rules {
    // Gives a parameter without a gradient the tensor in which it is to be summed, by setting its
    // grad(), when the first of it comes: for gradients whose memory is there only while it is
    // needed.
    std::function<void(const at::Tensor& parameter)> home = {};
    // Something is about to be added to grad().
    std::function<void(const at::Tensor& parameter)> before_addition = {};
    // Gradients of an embedding()'s rows are about to be added: to where, or, null, to grad(). The
    // home lives until the pass (or DeferredGradients::run()) has ended. Rows that have no place
    // there are an Error.
    std::function<const RowHome*(const at::Tensor& parameter)> row_home = {};
  };

  DirectGradients();
  explicit DirectGradients(Rules rules);
  ~DirectGradients();
  DirectGradients(const DirectGradients&) = delete;
  DirectGradients& operator=(const DirectGradients&) = delete;

 private:
  c10::DebugInfoGuard guard_;
};

namespace detail {

// Called by every backward(). Throws Error when autograd wants a graph of the backward pass itself
// (create_graph): it would take our gradients for constants.
void check_first_derivative();

// Where to add the gradient of this parameter, f32; undefined when it must be returned.
at::Tensor direct_gradient(const at::Tensor& parameter);

// The rules' row_home for a parameter whose gradient is added directly; null where there is none.
const DirectGradients::RowHome* row_home(const at::Tensor& parameter);

// A gradient of parameter's shape for a kernel to add to in f32, and what backward() returns after
// it has: nothing where it was added directly or recorded (deferred_gradients.h), else the sum in
// the parameter's dtype. Such a kernel adds what it has summed once to each element.
class GradientSum {
 public:
  explicit GradientSum(const at::Tensor& parameter);
  float* data() { return sum_.data_ptr<float>(); }
  at::Tensor finish();

 private:
  at::Tensor parameter_;
  DeferredGradients* recording_;  // null: none
  at::Tensor sum_;
  bool direct_ = false;
};

// The gradients that follow are computed now or recorded, and are as backward() returns them: not
// defined where they were added directly or recorded. Tensors that they take keep their values.

// Of a matrix [M, K], from the gradients of its outputs [N, M] and its inputs [N, K], contiguous.
at::Tensor matrix_gradient(const at::Tensor& parameter, const at::Tensor& y_grad,
                           const at::Tensor& x);
// The same computed now, whatever records.
at::Tensor matrix_gradient_now(const at::Tensor& parameter, const at::Tensor& y_grad,
                               const at::Tensor& x);
// Of a bias [N]: the sums of the columns of gradient_rows [M, N].
at::Tensor bias_gradient(const at::Tensor& parameter, const at::Tensor& gradient_rows);

}  // namespace detail
}  // namespace trireme::ops
