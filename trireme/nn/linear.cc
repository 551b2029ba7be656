// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/linear.h"

#include <ATen/TensorOperators.h>

#include <utility>

#include "trireme/nn/parameter_memory.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/linear.h"

namespace trireme::nn {

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out, LinearOptions options)
    : role_(options.role) {
  weight_ = register_parameter("weight", new_parameter({out, in}));
  if (options.bias) {
    bias_ = register_parameter("bias", new_parameter({out}));
  }
}

LinearImpl::LinearImpl(const at::Tensor& tied_weight)
    : role_(ParameterRole::kEmbedding), weight_(tied_weight) {}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  if (!rows_runner_) return finish(product(input(x)));
  return add_bias(rows_runner_(input(x), [this](const at::Tensor& rows) { return product(rows); }));
}

at::Tensor LinearImpl::product(const at::Tensor& input) const {
  return ops::linear(input, weight_, bias_in_product());
}

at::Tensor LinearImpl::cross_entropy(const at::Tensor& x, const at::Tensor& targets) {
  const at::Tensor rows = input(x).reshape({-1, weight_.size(1)});
  const at::Tensor targets_N = targets.reshape({-1});
  return vocabulary_.gather ? ops::linear_cross_entropy(rows, weight_, targets_N, vocabulary_)
                            : ops::linear_cross_entropy(rows, weight_, targets_N);
}

at::Tensor LinearImpl::input(const at::Tensor& x) const { return input_hook_ ? input_hook_(x) : x; }

at::Tensor LinearImpl::finish(const at::Tensor& product) const {
  return output_hook_ ? add_bias(output_hook_(product)) : product;
}

at::Tensor LinearImpl::add_bias(const at::Tensor& whole) const {
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
  weight_ = register_parameter("weight", new_parameter({rows, width}));
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
