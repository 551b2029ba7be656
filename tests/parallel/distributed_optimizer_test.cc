// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/data/distributed_optimizer.h"

#include <ATen/ops/mse_loss.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <functional>
#include <vector>

#include "tests/support/ranks.h"

namespace trireme {
namespace {

using testing::run_threads;

constexpr std::int64_t kFeatures = 7;
constexpr std::int64_t kSamples = 15;  // of a step, over all ranks
constexpr std::int64_t kSteps = 6;
// f64: sums over samples are associated differently, nothing else differs.
constexpr double kTolerance = 1e-12;

// f64, each value another one.
at::Tensor formula(at::IntArrayRef sizes, double phase) {
  const std::int64_t count = c10::multiply_integers(sizes);
  return at::sin(at::arange(count, at::kDouble) * 0.37 + phase).reshape(sizes);
}

torch::nn::Sequential make_net(double phase) {
  torch::nn::Sequential net(torch::nn::Linear(kFeatures, 5), torch::nn::Tanh(),
                            torch::nn::Linear(5, 1));
  net->to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : net->parameters()) {
    parameter.copy_(formula(parameter.sizes(), phase += 1));
  }
  return net;
}

// Samples [begin, end) of a step.
at::Tensor loss_of(torch::nn::Sequential& net, std::int64_t step, std::int64_t begin,
                   std::int64_t end) {
  const auto part = [&](const at::Tensor& whole) { return whole.slice(0, begin, end); };
  const auto phase = static_cast<double>(step);
  return at::mse_loss(net->forward(part(formula({kSamples, kFeatures}, phase))),
                      part(formula({kSamples, 1}, 3 * phase)));
}

std::vector<at::Tensor> weights_of(const torch::nn::Sequential& net) {
  std::vector<at::Tensor> weights;
  for (const at::Tensor& parameter : net->parameters()) weights.push_back(parameter.clone());
  return weights;
}

template <class Base>
using MakeBase = std::function<Base(const torch::nn::Sequential&)>;

template <class Base>
std::vector<at::Tensor> train_alone(const MakeBase<Base>& make) {
  torch::nn::Sequential net = make_net(0);
  Base optimizer = make(net);
  for (std::int64_t step = 0; step < kSteps; ++step) {
    optimizer.zero_grad();
    loss_of(net, step, 0, kSamples).backward();
    optimizer.step();
  }
  return weights_of(net);
}

// Ranks have a third or a fifth of the samples each.
template <class Base>
std::vector<at::Tensor> train_together(const MakeBase<Base>& make, Group& group) {
  torch::nn::Sequential net = make_net(group.rank());  // rank 0's counts
  DistributedOptimizer optimizer(make(net), *net, group);
  const std::int64_t share = kSamples / group.size();
  for (std::int64_t step = 0; step < kSteps; ++step) {
    optimizer.zero_grad();
    loss_of(net, step, group.rank() * share, (group.rank() + 1) * share).backward();
    optimizer.step();
  }
  return weights_of(net);
}

template <class Base>
void expect_same_as_alone(const MakeBase<Base>& make) {
  const std::vector<at::Tensor> expected = train_alone(make);
  for (const int ranks : {1, 3, 5}) {
    run_threads(ranks, [&](Group& group) {
      const std::vector<at::Tensor> found = train_together(make, group);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LE((found[i] - expected[i]).abs().max().template item<double>(), kTolerance)
            << "parameter " << i << ", rank " << group.rank() << " of " << ranks;
      }
    });
  }
}

TEST(DistributedOptimizer, StepsAsOneProcessDoesOnAllSamples) {
  expect_same_as_alone<torch::optim::SGD>([](const torch::nn::Sequential& net) {
    return torch::optim::SGD(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  });
  expect_same_as_alone<torch::optim::Adam>([](const torch::nn::Sequential& net) {
    return torch::optim::Adam(net->parameters(), torch::optim::AdamOptions(0.01));
  });
}

TEST(DistributedOptimizer, WeighsSamplesWhereRanksHaveDifferentNumbers) {
  const MakeBase<torch::optim::Adam> make = [](const torch::nn::Sequential& net) {
    return torch::optim::Adam(net->parameters(), torch::optim::AdamOptions(0.01));
  };
  const std::vector<at::Tensor> expected = train_alone(make);
  run_threads(2, [&](Group& group) {
    torch::nn::Sequential net = make_net(group.rank());
    DistributedOptimizer optimizer(make(net), *net, group);
    const std::int64_t begin = group.rank() == 0 ? 0 : 4;
    const std::int64_t end = group.rank() == 0 ? 4 : kSamples;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      optimizer.zero_grad();
      optimizer.backward(loss_of(net, step, begin, end), static_cast<double>(end - begin));
      optimizer.step();
    }
    const std::vector<at::Tensor> found = weights_of(net);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(), kTolerance) << i;
    }
  });
}

}  // namespace
}  // namespace trireme
