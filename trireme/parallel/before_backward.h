// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A call in the middle of a backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace trireme {

// The tensors as they are. In a backward pass, once the gradients of all of them have arrived and
// before anything that they were computed from gets one, calls f. No copy. Undefined ones and those
// without gradient are handed through; where none has one, f is not called.
std::vector<at::Tensor> before_backward(const std::vector<at::Tensor>& tensors,
                                        std::function<void()> f);

}  // namespace trireme
