// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Small nets of ten layers for pipelines, what one rank makes of them, and what a pipeline does.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/types.h>

#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/pipeline/pipeline.h"

namespace trireme::testing {

constexpr std::int64_t kNetRows = 3, kNetWidth = 6, kNetOutputs = 5;

// Distinct for each element and k, between -0.5 and 0.5.
inline at::Tensor distinct(at::IntArrayRef shape, double k) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return at::arange(count, at::kFloat).mul(0.7311).add(k * 1.37).sin().mul(0.5).reshape(shape);
}

// Two parts, places in the second, and which of its elements count.
using Parts = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

struct HalvesImpl : torch::nn::Module {
  Parts forward(const at::Tensor& x) {
    const at::Tensor second = x.narrow(1, 4, x.size(1) - 4);
    const at::Tensor places = at::arange(3, at::kLong).mul(2).add(x.size(0));
    return {x.narrow(1, 0, 4), second, places, second.detach() > -0.3};
  }
};
TORCH_MODULE(Halves);

struct SecondTimesImpl : torch::nn::Module {
  SecondTimesImpl() { weight = register_parameter("weight", at::zeros({1, 3})); }
  std::vector<at::Tensor> forward(const Parts& x) {
    const auto& [first, second, places, counts] = x;
    return {first, (second * counts).index_select(1, places) * weight};
  }
  at::Tensor weight;
};
TORCH_MODULE(SecondTimes);

struct BesideImpl : torch::nn::Module {
  at::Tensor forward(const std::vector<at::Tensor>& x) { return at::cat(x, 1); }
};
TORCH_MODULE(Beside);

struct SumOfTwoImpl : torch::nn::Module {
  at::Tensor forward(const at::Tensor& a, const at::Tensor& b) { return a + 2 * b; }
};
TORCH_MODULE(SumOfTwo);

struct IdentityLayerImpl : torch::nn::Module {
  at::Tensor forward(const at::Tensor& x) { return x; }
};
TORCH_MODULE(IdentityLayer);

// "plain", "tokens" (integers first, a frozen layer, one without parameters), "several" (inputs,
// outputs), "images" (a BatchNorm). Parameters are the same each time.
inline torch::nn::Sequential make_net(const std::string& kind) {
  using namespace torch::nn;  // NOLINT
  Sequential net;
  const auto relu = [] { return ReLU(ReLUOptions().inplace(true)); };
  if (kind == "plain") {
    net = Sequential(Linear(kNetWidth, 13), relu(), Linear(13, 11), Tanh(), Linear(11, 9), relu(),
                     LayerNorm(LayerNormOptions({9})), Linear(9, 7), IdentityLayer(),
                     Linear(7, kNetOutputs));
  } else if (kind == "tokens") {
    net = Sequential(Embedding(17, 9), Linear(9, 13), Tanh(), Linear(13, 9), relu(), Linear(9, 7),
                     Sigmoid(), Linear(7, 11), Tanh(), Linear(11, kNetOutputs));
    for (at::Tensor& frozen : net[3]->parameters()) frozen.requires_grad_(false);
  } else if (kind == "several") {
    net = Sequential(SumOfTwo(), Linear(kNetWidth, 13), Tanh(), Halves(), SecondTimes(), Beside(),
                     Linear(7, 9), Tanh(), Linear(9, 8), Linear(8, kNetOutputs));
  } else {
    net = Sequential(Conv2d(2, 3, 3), BatchNorm2d(3), relu(), Conv2d(3, 4, 3), BatchNorm2d(4),
                     relu(), Flatten(), Linear(36, 9), Tanh(), Linear(9, kNetOutputs));
  }
  const at::NoGradGuard no_grad;
  double k = 1;
  for (at::Tensor& parameter : net->parameters()) {
    parameter.copy_(distinct(parameter.sizes(), k));
    k += 0.71;
  }
  return net;
}

inline std::vector<at::Tensor> net_inputs(const std::string& kind, std::int64_t m) {
  const double k = 100 + 3 * static_cast<double>(m);
  if (kind == "tokens") {
    return {at::arange(kNetRows, at::kLong).mul(5).add(7 * m).remainder(17)};
  }
  if (kind == "images") return {distinct({kNetRows, 2, 7, 7}, k)};
  if (kind == "several") {
    return {distinct({kNetRows, kNetWidth}, k), distinct({kNetRows, kNetWidth}, k + 1)};
  }
  return {distinct({kNetRows, kNetWidth}, k)};
}

inline at::Tensor net_loss(const at::Tensor& output, std::int64_t m) {
  return torch::nn::functional::mse_loss(
      output, distinct({kNetRows, kNetOutputs}, 50 + static_cast<double>(m)));
}

// Of a step: by name gradients and buffers (undefined: none).
struct NetStep {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> tensors;
};

inline at::Tensor net_output(torch::nn::Sequential& net, const std::string& kind, std::int64_t m) {
  const std::vector<at::Tensor> x = net_inputs(kind, m);
  return x.size() == 1 ? net->forward(x[0]) : net->forward(x[0], x[1]);
}

inline void add_tensors(const torch::nn::Module& module, NetStep& step) {
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& grad = item.value().grad();
    step.tensors[item.key()] = grad.defined() ? grad.clone() : grad;
  }
  for (const auto& item : module.named_buffers()) step.tensors[item.key()] = item.value().clone();
}

// One rank, micro-batches one after the other. weight: 0 for the mean.
inline NetStep one_rank_step(const std::string& kind, int micro_batches, double weight = 0) {
  torch::nn::Sequential net = make_net(kind);
  NetStep result;
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    const at::Tensor loss = net_loss(net_output(net, kind, m), m);
    result.losses.push_back(loss.item<double>());
    loss.backward(at::full({}, weight != 0 ? weight : 1.0 / micro_batches));
  }
  add_tensors(*net, result);
  return result;
}

inline PipelineLosses run_step(Pipeline& pipeline, const std::string& kind) {
  return pipeline.step([&](std::int64_t m) { return net_inputs(kind, m); }, net_loss);
}

// Ranks that are threads put their parts together.
class JoinedStep {
 public:
  void add(const Pipeline& pipeline, const PipelineLosses& losses) {
    const std::lock_guard lock(mutex_);
    for (const int stage : pipeline.stages()) add_tensors(pipeline.module(stage), step_);
    if (!step_.losses.empty()) {
      EXPECT_EQ(step_.losses, losses.values) << "the same on all ranks";
    }
    step_.losses = losses.values;
  }
  const NetStep& step() const { return step_; }

 private:
  std::mutex mutex_;
  NetStep step_;
};

// The first difference, bit for bit; "" if there is none.
inline std::string difference(const NetStep& found, const NetStep& expected) {
  if (found.losses != expected.losses) return "losses differ";
  if (found.tensors.size() != expected.tensors.size()) {
    return fmt::format("{} tensors instead of {}", found.tensors.size(), expected.tensors.size());
  }
  for (const auto& [name, tensor] : expected.tensors) {
    const auto other = found.tensors.find(name);
    if (other == found.tensors.end()) return name + " is missing";
    if (tensor.defined() != other->second.defined()) return name + " is there, or not";
    if (tensor.defined() && !tensor.equal(other->second)) return name + " differs";
  }
  return {};
}

}  // namespace trireme::testing
