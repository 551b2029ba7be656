// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/layer.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "trireme/nn/linear.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::small_model_config;

at::Tensor numbered(at::IntArrayRef shape) {
  return torch::arange(c10::multiply_integers(shape), at::kFloat).view(shape);
}

TEST(Layer, KeepsAPartWithItsValues) {
  const at::NoGradGuard no_grad;
  nn::Linear linear(5, 7, nn::LinearOptions{.bias = true});
  linear->weight().detach().copy_(numbered({7, 5}));
  linear->bias().detach().copy_(numbered({7}));
  const at::Tensor tied = linear->weight();
  linear->keep_part("weight", {.dim = 1, .begin = 2, .size = 3, .whole = 5});
  linear->keep_part("bias", {.dim = 0, .begin = 4, .size = 1, .whole = 7});
  EXPECT_TRUE(linear->weight().equal(numbered({7, 5}).narrow(1, 2, 3)));
  EXPECT_TRUE(linear->weight().is_contiguous());
  EXPECT_TRUE(linear->weight().requires_grad());
  EXPECT_TRUE(tied.equal(linear->weight())) << "whoever has the tensor has the part";
  EXPECT_EQ(linear->bias().item<float>(), 4);
  EXPECT_EQ(linear->part("weight").begin, 2);
  const auto roled = nn::parameters_with_roles(*linear);
  EXPECT_EQ(roled[0].whole_shape(), (std::vector<std::int64_t>{7, 5}));
  EXPECT_EQ(roled[1].whole_shape(), (std::vector<std::int64_t>{7}));
}

TEST(Layer, RefusesWhatIsNoPart) {
  nn::Linear linear(5, 7, nn::LinearOptions{});
  const auto refusal = [&](const nn::ParameterPart& part) {
    return testing::failure_of([&] { linear->keep_part("weight", part); });
  };
  EXPECT_THAT(refusal({.dim = 2, .begin = 0, .size = 1, .whole = 5}), HasSubstr("ShapeError"));
  EXPECT_THAT(refusal({.dim = 0, .begin = 0, .size = 1, .whole = 5}), HasSubstr("ShapeError"));
  EXPECT_THAT(refusal({.dim = 1, .begin = 3, .size = 3, .whole = 5}),
              HasSubstr("weight of [7, 5] cannot become the part [3, 6) of 5 of its dim 1"));
  EXPECT_THAT(refusal({.dim = 1, .begin = 3, .size = 0, .whole = 5}), HasSubstr("ShapeError"));
  EXPECT_EQ(linear->weight().sizes(), at::IntArrayRef({7, 5}));
  EXPECT_EQ(refusal({.dim = 1, .begin = 3, .size = 2, .whole = 5}), "no error");
  EXPECT_THAT(refusal({.dim = 1, .begin = 0, .size = 1, .whole = 2}),
              HasSubstr("it is a part already"));
}

// A model of 80 GB of parameters, of which a part is kept.
TEST(ParameterMemory, LayersMayBeBuiltWithoutIt) {
  nn::Linear large = [] {
    const nn::ParametersWithoutMemory later;
    return nn::Linear(100000, 200000, nn::LinearOptions{.bias = true});
  }();
  EXPECT_EQ(large->weight().sizes(), at::IntArrayRef({200000, 100000}));
  EXPECT_FALSE(nn::has_memory(large->weight()));
  EXPECT_TRUE(large->weight().requires_grad());
  large->keep_part("weight", {.dim = 0, .begin = 199997, .size = 3, .whole = 200000});
  large->keep_part("bias", {.dim = 0, .begin = 199997, .size = 3, .whole = 200000});
  EXPECT_TRUE(nn::has_memory(large->weight()));
  EXPECT_EQ(large->weight().sizes(), at::IntArrayRef({3, 100000}));
  const nn::Linear usual(3, 2, nn::LinearOptions{});
  EXPECT_TRUE(nn::has_memory(usual->weight())) << "the guard has ended";
}

TEST(ParameterMemory, IsGivenToAllThatHaveNone) {
  nn::Transformer later = [] {
    const nn::ParametersWithoutMemory guard;
    return nn::Transformer(small_model_config("gpt2"));
  }();
  for (const auto& item : later->named_parameters()) {
    EXPECT_FALSE(nn::has_memory(item.value())) << item.key();
  }
  nn::give_memory(*later);
  nn::Transformer now(small_model_config("gpt2"));
  nn::initialize(*now, 5);
  nn::initialize(*later, 5);
  for (const auto& item : now->named_parameters()) {
    EXPECT_TRUE(item.value().equal(later->named_parameters()[item.key()])) << item.key();
  }
  const at::Tensor tokens = testing::formula_tokens(2, 11, 37);
  EXPECT_TRUE(now->loss(tokens, tokens).equal(later->loss(tokens, tokens)))
      << "the tied head has the memory too";
}

// Every part of every parameter has what the whole one has there.
TEST(Initialize, APartIsInitializedAsInTheWhole) {
  nn::Transformer whole(small_model_config("llama"));
  nn::initialize(*whole, 5);
  for (const int dim : {0, 1}) {
    nn::Transformer parts(small_model_config("llama"));
    std::vector<nn::RoledParameter> parameters;
    const auto modules = parts->modules();
    for (const auto& module : modules) {
      auto* layer = dynamic_cast<nn::Layer*>(module.get());
      if (layer == nullptr || layer->parameters(false).size() != 1) continue;
      const at::Tensor weight = layer->parameters(false)[0];
      if (weight.dim() < 2) continue;
      const std::int64_t size = weight.size(dim);
      layer->keep_part("weight", {.dim = dim, .begin = 5, .size = size - 8, .whole = size});
    }
    nn::initialize(*parts, 5);
    for (const auto& item : whole->named_parameters()) {
      const at::Tensor expected = item.value().dim() < 2
                                      ? item.value()
                                      : item.value().narrow(dim, 5, item.value().size(dim) - 8);
      EXPECT_TRUE(parts->named_parameters()[item.key()].equal(expected)) << item.key();
    }
  }
}

}  // namespace
}  // namespace trireme
