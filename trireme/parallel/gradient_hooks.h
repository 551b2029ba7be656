// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientHooks: a call for each parameter whose gradient a backward pass has completed.
//
//   const GradientHooks hooks(parameters, [&](std::size_t index, bool by_autograd) { ... });
//   loss.backward();  // calls it once for each parameter that took part, in the pass's order
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace trireme {

class GradientHooks {
 public:
  // Called on the thread of the backward pass, after the gradient was added to parameter.grad() (or
  // by ops::DirectGradients, which leaves autograd nothing to add). by_autograd: autograd has added
  // something. What it throws ends the pass.
  using OnReady = std::function<void(std::size_t index, bool by_autograd)>;

  // parameters: leaves that require a gradient, in the dtype and on the device that they keep.
  GradientHooks(const std::vector<at::Tensor>& parameters, OnReady on_ready);
  ~GradientHooks();  // no more calls; not while a backward pass runs
  GradientHooks(const GradientHooks&) = delete;
  GradientHooks& operator=(const GradientHooks&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
