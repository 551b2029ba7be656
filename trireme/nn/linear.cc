// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "trireme/ops/embedding.h"
#include "trireme/ops/linear.h"

namespace trireme::nn {

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out, LinearOptions options)
    : role_(options.role) {
  weight_ = register_parameter("weight", at::empty({out, in}));
  if (options.bias) {
    bias_ = register_parameter("bias", at::empty({out}));
  }
}

LinearImpl::LinearImpl(const at::Tensor& tied_weight)
    : role_(ParameterRole::kMatrix), weight_(tied_weight) {}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  const at::Tensor input = input_hook_ ? input_hook_(x) : x;
  if (!output_hook_) {
    return ops::linear(input, weight_, bias_);
  }
  const at::Tensor product = output_hook_(ops::linear(input, weight_, {}));
  return bias_.defined() ? product + bias_ : product;
}

void LinearImpl::set_hooks(TensorHook input, TensorHook output) {
  input_hook_ = std::move(input);
  output_hook_ = std::move(output);
}

ParameterRole LinearImpl::role(const std::string& parameter) const {
  return parameter == "bias" ? ParameterRole::kBias : role_;
}

EmbeddingImpl::EmbeddingImpl(std::int64_t rows, std::int64_t width) {
  weight_ = register_parameter("weight", at::empty({rows, width}));
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& indices) {
  const at::Tensor rows = ops::embedding(weight_, input_hook_ ? input_hook_(indices) : indices);
  return output_hook_ ? output_hook_(rows) : rows;
}

void EmbeddingImpl::set_hooks(TensorHook input, TensorHook output) {
  input_hook_ = std::move(input);
  output_hook_ = std::move(output);
}

ParameterRole EmbeddingImpl::role(const std::string&) const { return ParameterRole::kMatrix; }

}  // namespace trireme::nn
