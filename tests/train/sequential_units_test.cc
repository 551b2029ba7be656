// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/sequential_units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using torch::nn::Linear;
using torch::nn::Sequential;

struct Tied : torch::nn::Module {
  explicit Tied(const Linear& other) : weight(register_parameter("weight", other->weight)) {}
  at::Tensor forward(const at::Tensor& x) { return x.matmul(weight); }
  at::Tensor weight;
};

TEST(SequentialUnits, AreChildrenWhoseTrainedParametersNoOtherHas) {
  const Linear first(3, 5), twice(5, 5), shared(5, 5), frozen(5, 5);
  for (at::Tensor& parameter : frozen->parameters()) parameter.set_requires_grad(false);
  Sequential net(first, torch::nn::Tanh(), twice, shared, twice, std::make_shared<Tied>(shared),
                 frozen);
  EXPECT_THAT(sequential_units(*net), ElementsAre(first.get(), twice.get()));
  EXPECT_THAT(sequential_units(*first), ElementsAre()) << "no Sequential";
}

std::vector<std::string> names_of(const torch::nn::Module& module) {
  std::vector<std::string> names;
  for (const auto& item : module.named_parameters()) names.push_back(item.key());
  return names;
}

TEST(SequentialUnits, ARunnerStandsInTheirPlacesForAsLongAsItLives) {
  testing::run_threads(1, [](Group& group) {
    const Linear first(3, 5), last(5, 2);
    Sequential net(first, torch::nn::Tanh(), last);
    const at::Tensor x = torch::arange(6, torch::kFloat).view({2, 3});
    const at::Tensor expected = net->forward(x).detach();
    const std::vector<std::string> names = names_of(*net);
    ShardedModel sharded(*net, group, {.stage = 3, .units = sequential_units(*net)});
    {
      const SequentialRunner runner(*net, sequential_units(*net), sharded);
      EXPECT_NE(net->ptr(0).get(), first.get());
      EXPECT_EQ(net->children()[0].get(), first.get());
      EXPECT_EQ(names_of(*net), names);
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(sharded.forward([&] { return net->forward(x); }).equal(expected));
    }
    EXPECT_EQ(net->ptr(0).get(), first.get());
    EXPECT_EQ(net->ptr(2).get(), last.get());
    const at::NoGradGuard no_grad;
    EXPECT_NE(testing::failure_of([&] { sharded.forward([&] { return net->forward(x); }); }),
              "no error")
        << "the weights are away";
  });
}

}  // namespace
}  // namespace trireme
