// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Whole models whose backward passes come in two halves (ops/split_backward.h), as two stages of a
// pipeline and as one.

#include "trireme/ops/split_backward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/operation.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using ops::DirectGradients;
using ops::SplitBackward;
using testing::formula_tokens;
using testing::Tensors;

struct Form {
  std::string name;
  nn::ModelConfig config;
  nn::Recompute recompute = nn::Recompute::kNone;
  bool cut = true;     // before the second block: two stages
  bool direct = true;  // gradients in f32, added in place; else as autograd does it
};

std::vector<Form> forms() {
  auto mixtral = testing::mixtral_config();
  mixtral.experts.first_dense = 1;
  mixtral.resolve(0);
  std::vector<Form> all;
  for (const bool cut : {true, false}) {
    for (const auto recompute :
         {nn::Recompute::kNone, nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
      all.push_back({"gpt2", testing::small_model_config("gpt2"), recompute, cut});
      all.push_back({"llama", testing::small_model_config("llama"), recompute, cut});
      all.push_back({"experts", mixtral, recompute, cut});
    }
    all.push_back({"deepseek", testing::deepseek_config(), nn::Recompute::kNone, cut});
    all.push_back({"gpt2", testing::small_model_config("gpt2"), nn::Recompute::kNone, cut, false});
    all.push_back(
        {"llama", testing::small_model_config("llama"), nn::Recompute::kBlocks, cut, false});
  }
  return all;
}

nn::Transformer model_of(const Form& form, at::ScalarType dtype) {
  nn::Transformer model(form.config);
  nn::initialize(*model, 7);
  model->to(dtype);
  model->set_recompute(form.recompute);
  const at::NoGradGuard no_grad;
  std::uint64_t number = 0;
  for (at::Tensor& each : model->parameters()) {
    const at::Tensor values = testing::normal(each.sizes(), 100 + number++);
    each.add_(values / 4);
    if (form.direct) each.mutable_grad() = values.to(dtype == at::kDouble ? dtype : at::kFloat);
  }
  return model;
}

// The stages' graphs: roots of each but the last, inputs of each but the first, and the loss.
struct Stages {
  Tensors outputs, inputs;
  at::Tensor loss;
};

Stages run_forward(nn::Transformer& model, const Form& form) {
  Stages stages;
  model->set_block_runner(
      [&](const torch::nn::Module& block, const Tensors& given, const nn::BlockComputation& f) {
        if (!form.cut || &block != model->blocks()[1]) return f(given);
        for (const at::Tensor& each : given) {
          stages.outputs.push_back(each);
          stages.inputs.push_back(each.detach().requires_grad_());
        }
        return f(stages.inputs);
      });
  stages.loss = model->loss(formula_tokens(3, 11, 37), formula_tokens(3, 11, 37, 1));
  model->set_block_runner({});
  return stages;
}

std::unique_ptr<DirectGradients> guard(const Form& form) {
  return form.direct ? std::make_unique<DirectGradients>() : nullptr;
}

Tensors gradients_of(nn::Transformer& model) {
  Tensors gradients;
  for (const at::Tensor& each : model->parameters()) {
    gradients.push_back(each.grad().defined() ? each.grad().clone() : torch::zeros({1}));
  }
  return gradients;
}

Tensors plain_gradients(const Form& form, at::ScalarType dtype) {
  nn::Transformer model = model_of(form, dtype);
  const Stages stages = run_forward(model, form);
  const auto direct = guard(form);
  stages.loss.backward();
  Tensors handed;
  for (const at::Tensor& each : stages.inputs) handed.push_back(each.grad());
  if (form.cut) torch::autograd::backward(stages.outputs, handed);
  return gradients_of(model);
}

SplitBackward::Edges edges_of(const Tensors& roots) {
  SplitBackward::Edges edges;
  for (const at::Tensor& root : roots) {
    edges.push_back(torch::autograd::impl::gradient_edge(root));
  }
  return edges;
}

// The parameters whose gradients the first halves may touch.
bool is_head(const nn::Transformer& model, const std::string& name) {
  return name.find("head") != std::string::npos ||
         (model->config().tied() && name == "token_embedding.weight");
}

void expect_untouched(nn::Transformer& model, const Tensors& before) {
  const Tensors now = gradients_of(model);
  std::size_t i = 0;
  for (const auto& item : model->named_parameters()) {
    EXPECT_TRUE(now[i].equal(before[i]) || is_head(model, item.key())) << item.key();
    ++i;
  }
}

Tensors split_gradients(const Form& form, at::ScalarType dtype) {
  nn::Transformer model = model_of(form, dtype);
  const Tensors before = gradients_of(model);
  Stages stages = run_forward(model, form);
  const auto direct = guard(form);
  SplitBackward second, first;
  const at::Tensor one = torch::ones({}, stages.loss.options().requires_grad(false));
  Tensors handed = second.backward_inputs(edges_of({stages.loss}), {one}, stages.inputs);
  if (form.cut) {
    const auto edges = edges_of(stages.outputs);
    stages = {};
    first.backward_inputs(edges, std::move(handed), {});
  }
  expect_untouched(model, before);
  second.backward_weights();
  if (form.cut) first.backward_weights();
  EXPECT_EQ(first.kept_bytes() + second.kept_bytes(), 0);
  return gradients_of(model);
}

TEST(SplitBackwardOfModels, HasTheBitsOfThePlainPass) {
  for (const Form& form : forms()) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const Tensors plain = plain_gradients(form, dtype), split = split_gradients(form, dtype);
      ASSERT_EQ(split.size(), plain.size());
      for (std::size_t i = 0; i < plain.size(); ++i) {
        EXPECT_TRUE(split[i].equal(plain[i]))
            << form.name << " in " << dtype << ", recompute " << static_cast<int>(form.recompute)
            << (form.cut ? ", cut" : "") << (form.direct ? ", direct" : "") << ", parameter " << i
            << " by " << (split[i] - plain[i]).abs().max().item<double>();
      }
    }
  }
}

}  // namespace
}  // namespace trireme
