// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A backward pass in two halves, of any graph: the gradients of its inputs, and later those of its
// parameters (zero-bubble pipelines: an earlier stage waits for the former only).
//
//   ops::SplitBackward pass;
//   const auto edge = torch::autograd::impl::gradient_edge(y);
//   const auto x_grad = pass.backward_inputs({edge}, {y_grad}, {x})[0];
//   send(x_grad);
//   pass.backward_weights();  // adds to grad() of the parameters
//
// How. A node of LibTorch's operations between outputs and inputs that leads to parameters too is
// run twice: for the inputs, when the engine skips what only parameters need and keeps the
// gradients that came to the node; and from those for the parameters, cut off from the inputs. Any
// other node (a custom function, such as those of ops/) is run once, in the first half; there the
// operations of ops/ record their parameters' gradients (deferred_gradients.h), and what any of
// them hands on to where no input is, is kept for the second half. Nodes that lead to parameters
// only wait for the second half as they are, unless a parameter of a custom function is among them.
// Where no output leads to an input, the whole graph runs in the first half, and what it would add
// to grad() is kept.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "trireme/ops/deferred_gradients.h"

namespace trireme::ops {

// One pass through one graph, which nothing else may go through afterwards. Several may be in
// flight, and be finished in any order; one that is destroyed earlier forgets its second half.
class SplitBackward {
 public:
  using Edges = std::vector<torch::autograd::Edge>;

  SplitBackward() = default;
  SplitBackward(const SplitBackward&) = delete;
  SplitBackward& operator=(const SplitBackward&) = delete;

  // The gradients of inputs, in their order, undefined where nothing leads there; an input that is
  // a leaf gets none in its grad().
  //   roots: gradient_edge() of the outputs, which may be gone.
  //   gradients: of the outputs, their shapes and dtypes; undefined: none.
  //   inputs: tensors of the graph, leaves or not; what lies behind those that are not is for the
  //     second half.
  // No leaf's grad() is changed, but of linear_cross_entropy()'s matrix under DirectGradients.
  // Checkpointed segments are computed again here, and split themselves. Blocking. Hooks of tensors
  // on the way may run in both halves. Errors: Error for lists that do not fit or a second call;
  // what the graph throws, after which nothing is left for the second half.
  std::vector<at::Tensor> backward_inputs(const Edges& roots, std::vector<at::Tensor> gradients,
                                          const std::vector<at::Tensor>& inputs);

  // The rest: adds to grad() of every other leaf, as one backward pass would have, in the same
  // bits, under the DirectGradients of this time (unless a parameter is used more than twice, whose
  // sum may be added in another order). Hooks of the accumulation run here, once; those of
  // Tensor::register_hook() on parameters of ops/ may get nothing to see. The graph's tensors are
  // freed. Blocking. Errors: Error without backward_inputs() or a second time; what the graph
  // throws. Nothing is left in any case.
  void backward_weights();

  // Memory held for the second half, each piece once: by what is recorded, and gradients within the
  // graph. What LibTorch's nodes saved comes on top.
  std::int64_t kept_bytes() const;

  // The same as backward_inputs(), of a graph within a node of this one that is being run. Its
  // second half becomes part of this one's. Called on any thread.
  std::vector<at::Tensor> backward_inputs_within(const Edges& roots,
                                                 std::vector<at::Tensor> gradients,
                                                 const std::vector<at::Tensor>& inputs);

 private:
  enum class State { kNew, kHalf, kDone };
  // A leaf's gradient that waits; undefined: what there is was recorded or added.
  struct Accumulation {
    at::Tensor leaf;
    at::Tensor gradient;
  };

  std::vector<at::Tensor> run_first_half(const Edges& roots,
                                         const std::vector<at::Tensor>& gradients,
                                         const std::vector<at::Tensor>& inputs);
  void run_second_half();
  std::vector<at::Tensor> kept() const;
  void clear();

  State state_ = State::kNew;
  DeferredGradients recorded_;
  // Where the second half begins in the graph, and with what.
  Edges roots_;
  std::vector<at::Tensor> gradients_;
  std::vector<Accumulation> accumulations_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<SplitBackward>> within_;  // guarded by mutex_ in the first half
};

namespace detail {

// The pass whose first half runs this node; null: none.
SplitBackward* split_under_way();

}  // namespace detail
}  // namespace trireme::ops
