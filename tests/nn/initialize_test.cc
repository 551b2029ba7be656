// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/nn/layer.h"

namespace trireme {
namespace {

using testing::small_model_config;

at::Tensor parameter(nn::Transformer& model, const std::string& name) {
  return model->named_parameters()[name].detach();
}

nn::ModelConfig wide_config() {
  auto config = small_model_config("gpt2");
  config.width = 96;
  config.mlp_width = 384;
  return config;
}

TEST(Initialize, EachElementIsAFunctionOfSeedNameAndIndex) {
  nn::Transformer model(small_model_config("llama"));
  nn::initialize(*model, 41);
  const std::string name = "blocks.1.attn.k.weight";
  const auto weight = parameter(model, name).view({-1});
  const RandomStream stream(41, name);
  for (const std::int64_t i : {0, 1, 100, 287}) {
    EXPECT_EQ(weight[i].item<float>(),
              static_cast<float>(0.02 * stream.normal(static_cast<std::uint64_t>(i))));
  }
}

TEST(Initialize, ThreadsDoNotMatter) {
  const int threads = at::get_num_threads();
  nn::Transformer one(wide_config()), three(wide_config());
  at::set_num_threads(1);
  nn::initialize(*one, 5);
  at::set_num_threads(3);
  nn::initialize(*three, 5);
  at::set_num_threads(threads);
  for (const auto& item : one->named_parameters()) {
    EXPECT_TRUE(item.value().equal(parameter(three, item.key()))) << item.key();
  }
}

TEST(Initialize, DeviationsFollowTheRoles) {
  nn::Transformer model(wide_config());
  nn::initialize(*model, 5);
  const auto deviation = [&](const std::string& name) {
    const auto values = parameter(model, name);
    return values.std().item<double>();
  };
  constexpr double kSampling = 0.03;  // 4 sigma of the deviation of 9216 samples, relative
  EXPECT_NEAR(deviation("blocks.0.attn.q.weight"), 0.02, 0.02 * kSampling);
  EXPECT_NEAR(deviation("blocks.0.mlp.up.weight"), 0.02, 0.02 * kSampling);
  const double residual = 0.02 / std::sqrt(4.0);
  EXPECT_NEAR(deviation("blocks.1.attn.out.weight"), residual, residual * kSampling);
  EXPECT_NEAR(deviation("blocks.1.mlp.down.weight"), residual, residual * kSampling);
  EXPECT_TRUE((parameter(model, "blocks.1.mlp_norm.weight") == 1).all().item<bool>());
  EXPECT_TRUE((parameter(model, "blocks.1.mlp_norm.bias") == 0).all().item<bool>());
  EXPECT_TRUE((parameter(model, "blocks.1.attn.v.bias") == 0).all().item<bool>());
}

TEST(Initialize, SeedsAndNamesGiveDifferentWeights) {
  nn::Transformer a(small_model_config("gpt2")), b(small_model_config("gpt2"));
  nn::initialize(*a, 1);
  nn::initialize(*b, 2);
  const std::string q = "blocks.0.attn.q.weight", k = "blocks.0.attn.k.weight";
  EXPECT_FALSE(parameter(a, q).equal(parameter(b, q)));
  EXPECT_FALSE(parameter(a, q).equal(parameter(a, k)));
  EXPECT_FALSE(parameter(a, q).equal(parameter(a, "blocks.1.attn.q.weight")));
}

TEST(Initialize, Bf16IsTheRoundedF32) {
  nn::Transformer wide(small_model_config("gpt2")), narrow(small_model_config("gpt2"));
  narrow->to(at::kBFloat16);
  nn::initialize(*wide, 9);
  nn::initialize(*narrow, 9);
  for (const auto& item : wide->named_parameters()) {
    EXPECT_TRUE(item.value().to(at::kBFloat16).equal(parameter(narrow, item.key()))) << item.key();
  }
}

TEST(ParameterRoles, MatricesDecayOthersDoNot) {
  for (const std::string family : {"gpt2", "llama"}) {
    nn::Transformer model(small_model_config(family));
    const auto parameters = nn::parameters_with_roles(*model);
    EXPECT_EQ(parameters.size(), model->named_parameters().size());
    for (const auto& [name, tensor, role, part] : parameters) {
      EXPECT_EQ(nn::decays(role), tensor.dim() == 2) << name;
    }
  }
}

struct Foreign : torch::nn::Module {
  Foreign() { register_parameter("mystery", at::empty({3})); }
};

TEST(ParameterRoles, AParameterWithoutARoleIsRefusedByName) {
  torch::nn::Module parent;
  parent.register_module("child", std::make_shared<Foreign>());
  try {
    nn::parameters_with_roles(parent);
    FAIL() << "accepted";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("child.mystery"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace trireme
