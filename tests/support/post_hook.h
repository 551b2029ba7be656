// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A call after a node of autograd's graph has run, as after the accumulation of a gradient.
#pragma once

#include <torch/csrc/autograd/function_hook.h>

#include <functional>
#include <utility>

namespace trireme::testing {

struct PostHook final : torch::autograd::FunctionPostHook {
  using Tensors = torch::autograd::variable_list;
  explicit PostHook(std::function<void()> run) : run_(std::move(run)) {}
  Tensors operator()(const Tensors& outputs, const Tensors& /*inputs*/) override {
    run_();
    return outputs;
  }
  std::function<void()> run_;
};

}  // namespace trireme::testing
