// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Linear and Embedding: the two layers that hold matrices, with the hooks by which tensor
// parallelism takes them over without the model knowing.
//
//   Linear up(C, F, LinearOptions{.bias = true});
//   y_NF = up(x_NC);
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "trireme/nn/layer.h"
#include "trireme/ops/loss.h"

namespace trireme::nn {

// Differentiable; empty means identity.
using TensorHook = std::function<at::Tensor(const at::Tensor&)>;

// What computes f, which makes rows of rows, one of each, of runs of x's rows, and does with x and
// with what f returns what hooks would do. Differentiable.
using RowsRunner = std::function<at::Tensor(const at::Tensor& x,
                                            const std::function<at::Tensor(const at::Tensor&)>& f)>;

struct LinearOptions {
  bool bias = false;
  ParameterRole role = ParameterRole::kMatrix;  // of the weight
};

// y = output_hook(input_hook(x) weight^T) + bias. The bias comes after the output hook, so that a
// layer whose input dim is sharded can sum its product over ranks and add the bias once.
class LinearImpl : public Layer {
 public:
  // Parameters "weight" [out, in] and, if asked for, "bias" [out], as new_parameter() makes them.
  LinearImpl(std::int64_t in, std::int64_t out, LinearOptions options);
  // A layer that computes with another layer's matrix [out, in] and registers nothing.
  explicit LinearImpl(const at::Tensor& tied_weight);

  // x: [..., in] -> [..., out], the weight's dtype. Gradient: x, weight, bias.
  at::Tensor forward(const at::Tensor& x);

  // Mean cross-entropy of the layer's outputs, as logits that never exist whole
  // (ops::linear_cross_entropy): of input_hook(x) as rows [N, in]; no output hook, no bias.
  // targets: i64, N of any shape. Gradient: x, weight.
  at::Tensor cross_entropy(const at::Tensor& x, const at::Tensor& targets);

  void set_hooks(TensorHook input, TensorHook output);
  // The outputs are part of a vocabulary of which others have the rest: cross_entropy() is over all
  // of it.
  void set_vocabulary(ops::VocabularyPart part) { vocabulary_ = std::move(part); }
  // The parts of forward(), for a module that computes several layers' products of one input, or
  // this one's together with others': forward(x) = finish(product(input(x))).
  at::Tensor input(const at::Tensor& x) const;
  // input weight^T (+ bias_in_product()).
  at::Tensor product(const at::Tensor& input) const;
  at::Tensor finish(const at::Tensor& product) const;
  // In the place of the output hook, which is set too: output_hook(product(x)) = runner(x,
  // product).
  void set_rows_runner(RowsRunner runner) { rows_runner_ = std::move(runner); }
  // What finish() does after the output hook.
  at::Tensor add_bias(const at::Tensor& whole) const;
  const at::Tensor& bias_in_product() const;  // undefined where finish() adds it
  bool has_input_hook() const { return static_cast<bool>(input_hook_); }
  bool has_output_hook() const { return static_cast<bool>(output_hook_); }
  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }  // undefined without

  ParameterRole role(const std::string& parameter) const override;

 private:
  ParameterRole role_;
  at::Tensor weight_;
  at::Tensor bias_;
  TensorHook input_hook_;
  TensorHook output_hook_;
  RowsRunner rows_runner_;
  ops::VocabularyPart vocabulary_;  // no gather: it is all here
};
TORCH_MODULE(Linear);

// Rows of a matrix by index. With hooks: output_hook(rows of weight at input_hook(indices)).
class EmbeddingImpl : public Layer {
 public:
  // Parameter "weight" [rows, width], as new_parameter() makes it.
  EmbeddingImpl(std::int64_t rows, std::int64_t width);

  // indices: i64, any shape, each in [0, rows) -> [..., width]. positions: undefined, or [T, width]
  // to add to the rows of indices [..., T] (after the output hook). Gradient: weight, positions.
  at::Tensor forward(const at::Tensor& indices, const at::Tensor& positions = {});

  void set_hooks(TensorHook input, TensorHook output);
  bool has_hooks() const { return input_hook_ || output_hook_; }
  const at::Tensor& weight() const { return weight_; }

  ParameterRole role(const std::string& parameter) const override;

 private:
  at::Tensor weight_;
  TensorHook input_hook_;
  TensorHook output_hook_;
};
TORCH_MODULE(Embedding);

}  // namespace trireme::nn
