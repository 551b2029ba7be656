// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Activation checkpointing: memory for time. A checkpointed segment of a model keeps only its
// inputs in the forward pass; in the backward pass it is computed again, this time with all that
// its gradients need (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost). One more
// forward pass of the segment is the price.
//
//   const auto outputs = ops::checkpoint([this](const auto& in) { return layers(in); }, {x_BTC});
//   loss(outputs[0]).backward();          // runs layers a second time
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace trireme::ops {

// From inputs to outputs, both times alike: the same bits from the same inputs, parameters and
// state of LibTorch's random numbers (which the second run finds as the first did, on the CPU and
// on the CUDA devices of the inputs). It may hold parameters and other segments; what it captures
// must live until the backward pass.
using Segment = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// segment(inputs), any defined tensors, at least one out. Without gradients enabled, just that.
//
// Gradient: those of the inputs are returned; those of the segment's parameters land in their .grad
// while its part of the backward pass runs, even where no input needs a gradient. Bits are those of
// segment(inputs) without a checkpoint, if neither an input nor a parameter is used both in the
// segment and outside of it more than once each way: such sums are then added in another order. A
// parameter used in several segments is accumulated, and its hooks run, once for each.
//
// Exceptions of the segment pass through both times. The backward pass throws Error when it goes
// through a segment a second time, or with create_graph, or by torch::autograd::grad (whose caller
// wants no .grad) or for some inputs only (SplitBackward may), or when the second run gives other
// shapes or dtypes than the first. Inputs changed in place in between are LibTorch's error.
std::vector<at::Tensor> checkpoint(Segment segment, const std::vector<at::Tensor>& inputs);

}  // namespace trireme::ops
