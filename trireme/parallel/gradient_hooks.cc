// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_hooks.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <cstdint>
#include <utility>

namespace trireme {
namespace {

using torch::autograd::variable_list;

class ReadyHook final : public torch::autograd::FunctionPostHook {
 public:
  ReadyHook(std::size_t index, std::shared_ptr<const GradientHooks::OnReady> on_ready)
      : index_(index), on_ready_(std::move(on_ready)) {}

  variable_list operator()(const variable_list& outputs, const variable_list& inputs) override {
    (*on_ready_)(index_, !inputs.empty() && inputs[0].defined());
    return outputs;
  }

 private:
  std::size_t index_;
  std::shared_ptr<const GradientHooks::OnReady> on_ready_;
};

}  // namespace

struct GradientHooks::Impl {
  // The parameter knows its accumulator weakly: it lives, with its hooks, as long as it stands
  // here.
  using Accumulator =
      decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>()));
  struct Hook {
    Accumulator accumulator;
    std::uintptr_t key = 0;
  };
  std::vector<Hook> hooks;
};

GradientHooks::GradientHooks(const std::vector<at::Tensor>& parameters, OnReady on_ready)
    : impl_(std::make_unique<Impl>()) {
  const auto shared = std::make_shared<const OnReady>(std::move(on_ready));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    auto accumulator = torch::autograd::impl::grad_accumulator(parameters[i]);
    const std::uintptr_t key = accumulator->add_post_hook(std::make_unique<ReadyHook>(i, shared));
    impl_->hooks.push_back({std::move(accumulator), key});
  }
}

GradientHooks::~GradientHooks() {
  for (const Impl::Hook& hook : impl_->hooks) hook.accumulator->del_post_hook(hook.key);
}

}  // namespace trireme
