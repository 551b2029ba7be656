// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Two gradients of a language model's largest matrices, for whoever adds them up elsewhere or at
// another time than a backward pass would.
//
// Where a pipeline has a model's embedding on one rank and its head on another, and both have one
// matrix, the embedding's part of the gradient is to be added where the head's is. And the head's,
// which linear_cross_entropy() computes in the forward pass, need not wait for a backward pass.
//
//   const ops::TakenGradients taken(
//       {.loss_matrix = [&](const at::Tensor& gradient) { gradients.push_back(gradient); }});
//   loss = model->loss(inputs, targets);
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <functional>

namespace trireme::ops {

// Applies to passes that this thread starts while it lives. Each may be missing. What is taken is
// added nowhere. The innermost applies.
class TakenGradients {
 public:
  struct Takers {
    // Of linear_cross_entropy(), where it has kernels, in a forward pass that makes gradients: its
    // matrix's, for a loss whose gradient is 1, f32 [V, C], the taker's own. The matrix is a
    // constant to the graph then.
    std::function<void(const at::Tensor& gradient)> loss_matrix = {};
    // Of embedding(), where it has kernels, in the backward pass: gradients [.., C] of rows at
    // indices [..]. Returns whether it has taken them.
    std::function<bool(const at::Tensor& weight, const at::Tensor& indices,
                       const at::Tensor& gradients)>
        rows = {};
  };

  explicit TakenGradients(Takers takers);
  ~TakenGradients();
  TakenGradients(const TakenGradients&) = delete;
  TakenGradients& operator=(const TakenGradients&) = delete;

 private:
  c10::DebugInfoGuard guard_;
};

// What was taken, added as a backward pass would add it (parameter_gradient.h): factor x gradient,
// and gradients of rows. With the bits that it would have added.
void add_taken_matrix(const at::Tensor& weight, const at::Tensor& gradient, double factor);
void add_taken_rows(const at::Tensor& weight, const at::Tensor& indices,
                    const at::Tensor& gradients);

namespace detail {

// Whether take_loss_matrix() has anyone to give a gradient to.
bool takes_loss_matrix();
void take_loss_matrix(const at::Tensor& gradient);
bool take_rows(const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& gradients);

// Of embedding.cc: adds the gradients of rows; returned where they are not added directly.
at::Tensor sum_rows(const at::Tensor& weight, const at::Tensor& gradients,
                    const at::Tensor& indices);

}  // namespace detail
}  // namespace trireme::ops
