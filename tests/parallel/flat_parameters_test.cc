// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/flat_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

// Odd sizes and one matrix under two names.
struct Tied : torch::nn::Module {
  Tied() {
    weight = register_parameter("weight", torch::arange(15.0).view({3, 5}));
    bias = register_parameter("bias", torch::arange(3.0) + 100.0);
    again = register_parameter("again", weight);
    wide = register_parameter("wide", torch::arange(130.0) + 200.0);
  }
  at::Tensor loss() { return (weight * again).sum() + bias.sum() * 3 + (wide * wide).sum(); }
  at::Tensor weight, bias, again, wide;
};

std::string broken_view(const FlatParameters& flat) {
  try {
    flat.check_views();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "not found";
}

TEST(FlatParameters, LaysParametersOutInOrderWithTiedOnesOnce) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  ASSERT_EQ(flat.entries().size(), 3U);
  EXPECT_EQ(flat.entries()[0].name, "weight");
  EXPECT_EQ(flat.entries()[1].name, "bias");
  EXPECT_EQ(flat.entries()[1].offset, 64);
  EXPECT_EQ(flat.entries()[2].name, "wide");
  EXPECT_EQ(flat.entries()[2].offset, 128);
  EXPECT_EQ(flat.entries()[2].count, 130);
  EXPECT_EQ(flat.size(), kShardBlock);
  EXPECT_TRUE(
      FlatParameters::view(flat.data(), flat.entries()[0]).equal(torch::arange(15.0).view({3, 5})));
  EXPECT_EQ(flat.data().sum().item<double>(), 105.0 + 303.0 + 130 * 200.0 + 129 * 65.0);
  flat.check_views();
}

TEST(FlatParameters, WritesToTheBufferAreSeenByTheModule) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  flat.data()[1] = 77.0;
  EXPECT_EQ(module.weight[0][1].item<float>(), 77.0F);
  EXPECT_EQ(module.again[0][1].item<float>(), 77.0F);
}

TEST(FlatParameters, BackwardAccumulatesInPlace) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  module.loss().backward();
  flat.check_views();
  EXPECT_TRUE(FlatParameters::view(flat.grad(), flat.entries()[0]).equal(2 * module.weight));
  module.loss().backward();
  flat.check_views();
  EXPECT_TRUE(FlatParameters::view(flat.grad(), flat.entries()[0]).equal(4 * module.weight));
  EXPECT_TRUE(FlatParameters::view(flat.grad(), flat.entries()[1]).equal(torch::full({3}, 6.0)));
  EXPECT_EQ(flat.grad().narrow(0, 15, 49).abs().sum().item<double>(), 0.0) << "the gap";
  flat.zero_grad();
  EXPECT_EQ(flat.grad().abs().sum().item<double>(), 0.0);
  module.loss().backward();
  EXPECT_TRUE(module.bias.grad().equal(torch::full({3}, 3.0)));
}

TEST(FlatParameters, CastsTheModule) {
  for (const std::string family : {"gpt2", "llama"}) {
    nn::Transformer model(testing::small_model_config(family));
    nn::initialize(*model, 3);
    const at::Tensor before = model->named_parameters()["blocks.1.attn.k.weight"].detach().clone();
    FlatParameters flat(*model, at::kBFloat16);
    EXPECT_TRUE(
        model->named_parameters()["blocks.1.attn.k.weight"].equal(before.to(at::kBFloat16)));
    model->loss(testing::formula_tokens(2, 7, 37), testing::formula_tokens(2, 7, 37, 1)).backward();
    flat.check_views();
    EXPECT_EQ(flat.grad().scalar_type(), at::kFloat);
    EXPECT_GT(flat.grad().abs().sum().item<double>(), 0.0);
  }
}

// Two micro-batches; the same gradients as LibTorch's own accumulation, but for its roundings.
TEST(FlatParameters, BackwardGivesTheGradientsOfPlainBackward) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const auto train = [&](bool plain) {
        nn::Transformer model(testing::small_model_config(family));
        nn::initialize(*model, 3);
        FlatParameters flat(*model, dtype);
        const void* place = flat.grad().data_ptr();
        for (const std::int64_t salt : {0, 1}) {
          const auto loss = model->loss(testing::formula_tokens(2, 11, 37, salt),
                                        testing::formula_tokens(2, 11, 37, salt + 1));
          plain ? loss.backward() : flat.backward(loss);
        }
        flat.check_views();
        EXPECT_EQ(flat.grad().data_ptr(), place);
        return flat.grad();
      };
      const at::Tensor expected = train(true);
      // f32: the order of a few sums. bf16: plain backward rounds each gradient, by 2^-9.
      const double tolerance = dtype == at::kFloat ? 1e-6 : 0x1p-8;
      EXPECT_LE((train(false) - expected).abs().max().item<double>(),
                tolerance * expected.abs().max().item<double>())
          << family << ", " << dtype;
    }
  }
}

TEST(FlatParameters, ExchangeMovesTheGradientsToAnotherBuffer) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  flat.backward(module.loss());
  const void* place = flat.grad().data_ptr();
  const at::Tensor other = torch::zeros({flat.size()});
  const at::Tensor first = flat.exchange_grad(other);
  EXPECT_EQ(first.data_ptr(), place);
  EXPECT_TRUE(FlatParameters::view(first, flat.entries()[0]).equal(2 * module.weight));
  EXPECT_EQ(flat.grad().data_ptr(), other.data_ptr());
  EXPECT_EQ(flat.grad().abs().sum().item<double>(), 0.0);
  flat.check_views();
  flat.backward(module.loss());
  EXPECT_TRUE(other.equal(first)) << "what is summed now lies in the new buffer";
  EXPECT_THROW(flat.exchange_grad({}), ShapeError);
  EXPECT_THROW(flat.exchange_grad(torch::zeros({flat.size() + 1})), ShapeError);
  EXPECT_THROW(flat.exchange_grad(torch::zeros({flat.size()}, at::kBFloat16)), ShapeError);
  EXPECT_THROW(flat.exchange_grad(torch::zeros({2 * flat.size()}).slice(0, 0, 2 * flat.size(), 2)),
               ShapeError);
  EXPECT_EQ(flat.grad().data_ptr(), other.data_ptr());
}

TEST(FlatParameters, AgreesWithTheModelOnNamesAndOrder) {
  nn::Transformer model(testing::small_model_config("gpt2"));
  FlatParameters flat(*model, at::kFloat);
  const auto parameters = nn::parameters_with_roles(*model);
  ASSERT_EQ(flat.entries().size(), parameters.size());
  std::int64_t count = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_EQ(flat.entries()[i].name, parameters[i].name);
    count += flat.entries()[i].count;
  }
  EXPECT_EQ(count, model->config().num_parameters());
}

TEST(FlatParameters, ClearsWhatLiesInTheGaps) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  flat.grad().fill_(3.0);
  flat.clear_gaps();
  EXPECT_EQ(flat.grad().sum().item<double>(), 3.0 * (15 + 3 + 130));
  for (const at::Tensor& parameter : module.parameters()) {
    EXPECT_TRUE(parameter.grad().eq(3.0).all().item<bool>());
  }
}

// LibTorch 1.13 detaches gradients in place, which it refuses to do with views.
TEST(FlatParameters, OptimizersMayDetachGradients) {
  Tied module;
  FlatParameters flat(module, at::kFloat);
  const auto detach_all = [&] {
    for (const at::Tensor& parameter : module.parameters()) parameter.grad().detach_();
  };
  detach_all();
  flat.exchange_grad(torch::zeros({flat.size()}));
  detach_all();
  module.bias.mutable_grad().reset();
  flat.bring_gradients_home();
  detach_all();
}

TEST(FlatParameters, FrozenParametersOfOtherDtypesKeepThem) {
  Tied module;
  const at::Tensor same = module.register_parameter("same", torch::ones({3}), false);
  const at::Tensor other = module.register_parameter("other", torch::ones({3}, at::kChar), false);
  FlatParameters flat(module, at::kBFloat16);
  EXPECT_EQ(same.scalar_type(), at::kBFloat16);
  EXPECT_EQ(other.scalar_type(), at::kChar);
}

TEST(FlatParameters, FindsBrokenViewsByName) {
  Tied cast;
  FlatParameters flat_cast(cast, at::kFloat);
  cast.to(at::kBFloat16);
  EXPECT_THAT(broken_view(flat_cast), HasSubstr("parameter weight left"));
  Tied moved;
  FlatParameters flat_moved(moved, at::kFloat);
  moved.bias.set_data(moved.bias.detach().clone());
  EXPECT_THAT(broken_view(flat_moved), HasSubstr("parameter bias left"));
  Tied dropped;
  FlatParameters flat_dropped(dropped, at::kFloat);
  dropped.wide.mutable_grad().reset();
  EXPECT_THAT(broken_view(flat_dropped), HasSubstr("gradient of wide left"));
}

TEST(FlatParameters, RefusesWhatItCannotHold) {
  torch::nn::Module empty;
  EXPECT_THROW(FlatParameters(empty, at::kFloat), ShapeError);
  Tied module;
  EXPECT_THROW(FlatParameters(module, at::kLong), ShapeError);
}

}  // namespace
}  // namespace trireme
