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
    : role_(ParameterRole::kEmbedding), weight_(tied_weight) {}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  return finish(ops::linear(input(x), weight_, bias_in_product()));
}

at::Tensor LinearImpl::input(const at::Tensor& x) const { return input_hook_ ? input_hook_(x) : x; }

at::Tensor LinearImpl::finish(const at::Tensor& product) const {
  if (!output_hook_) return product;
  const at::Tensor whole = output_hook_(product);
  return bias_.defined() ? whole + bias_ : whole;
}

const at::Tensor& LinearImpl::bias_in_product() const {
  static const at::Tensor none;
  return output_hook_ ? none : bias_;
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

at::Tensor EmbeddingImpl::forward(const at::Tensor& indices, const at::Tensor& positions) {
  const at::Tensor rows = input_hook_ ? input_hook_(indices) : indices;
  if (!output_hook_) return ops::embedding(weight_, rows, positions);
  const at::Tensor whole = output_hook_(ops::embedding(weight_, rows));
  return positions.defined() ? whole + positions : whole;
}

void EmbeddingImpl::set_hooks(TensorHook input, TensorHook output) {
  input_hook_ = std::move(input);
  output_hook_ = std::move(output);
}

ParameterRole EmbeddingImpl::role(const std::string&) const { return ParameterRole::kEmbedding; }

}  // namespace trireme::nn
