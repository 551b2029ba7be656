// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/before_backward.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstddef>
#include <utility>

namespace trireme {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  explicit Call(std::function<void()> f_in) : f(std::move(f_in)) {}
  std::function<void()> f;
};

struct BeforeBackward : torch::autograd::Function<BeforeBackward> {
  static variable_list forward(AutogradContext* context, std::function<void()> f,
                               at::TensorList tensors) {
    context->saved_data["call"] = at::IValue::make_capsule(c10::make_intrusive<Call>(std::move(f)));
    context->set_materialize_grads(false);
    variable_list outputs;
    // Not view_as(): what is a view to autograd could not be written in place by what follows.
    for (const at::Tensor& tensor : tensors) outputs.push_back(tensor.detach());
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["call"].toCapsule();
    static_cast<Call&>(*capsule).f();
    variable_list result(1);  // of f
    result.insert(result.end(), gradients.begin(), gradients.end());
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> before_backward(const std::vector<at::Tensor>& tensors,
                                        std::function<void()> f) {
  std::vector<at::Tensor> result = tensors;
  std::vector<std::size_t> places;
  variable_list with_gradient;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].defined() || !tensors[i].requires_grad()) continue;
    places.push_back(i);
    with_gradient.push_back(tensors[i]);
  }
  if (with_gradient.empty() || !at::GradMode::is_enabled()) return result;
  const variable_list outputs = BeforeBackward::apply(std::move(f), at::TensorList(with_gradient));
  for (std::size_t i = 0; i < places.size(); ++i) result[places[i]] = outputs[i];
  return result;
}

}  // namespace trireme
