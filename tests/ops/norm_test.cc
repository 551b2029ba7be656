// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/norm.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::Layout;
using testing::leaf;
using testing::norm_operation;
using testing::normal;
using testing::NormKind;
using testing::Operation;

constexpr NormKind kKinds[] = {NormKind::kLayer, NormKind::kRms, NormKind::kAddLayer,
                               NormKind::kAddRms};

// Rows across blocks of 32, widths across vectors.
std::vector<Operation> norms() {
  std::vector<Operation> operations;
  for (const NormKind kind : kKinds) {
    operations.push_back(norm_operation(kind, 1, 3));
    operations.push_back(norm_operation(kind, 11, 5));
    operations.push_back(norm_operation(kind, 37, 83));
    operations.push_back(norm_operation(kind, 21, 517));
  }
  return operations;
}

TEST(Norm, IsItsFormula) {
  constexpr double kEpsilon = 1e-3;
  const auto x = normal({3, 7}, 1) * 5, addend = normal({3, 7}, 2), weight = normal({7}, 3),
             bias = normal({7}, 4);
  const auto rms = [&](const at::Tensor& s) {
    return s / (s.square().mean(-1, true) + kEpsilon).sqrt() * weight;
  };
  const auto layer = [&](const at::Tensor& s) {
    const auto centred = s - s.mean(-1, true);
    return centred / (centred.square().mean(-1, true) + kEpsilon).sqrt() * weight + bias;
  };
  const auto near = [](const at::Tensor& a, const at::Tensor& b) {
    return a.allclose(b, 1e-12, 1e-12);
  };
  EXPECT_TRUE(near(ops::rms_norm(x, weight, kEpsilon), rms(x)));
  EXPECT_TRUE(near(ops::layer_norm(x, weight, bias, kEpsilon), layer(x)));
  const auto added_rms = ops::add_rms_norm(x, addend, weight, kEpsilon);
  EXPECT_TRUE(added_rms.sum.equal(x + addend));
  EXPECT_TRUE(near(added_rms.normed, rms(x + addend)));
  const auto added_layer = ops::add_layer_norm(x, addend, weight, bias, kEpsilon);
  EXPECT_TRUE(added_layer.sum.equal(x + addend));
  EXPECT_TRUE(near(added_layer.normed, layer(x + addend)));
}

TEST(Norm, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(norms());
}

TEST(Norm, KernelsFollowF64) {
  testing::expect_follow_f64(norms(),
                             {Layout::kPlain, Layout::kStrided, Layout::kExpandedGradients});
}

// Where only one of the two results is used, the other's gradient is zero.
TEST(Norm, OneOfTwoResultsMayBeUnused) {
  for (const NormKind kind : {NormKind::kAddLayer, NormKind::kAddRms}) {
    Operation normed = norm_operation(kind, 37, 83), sum = normed;
    normed.run = [both = normed.run](const testing::Tensors& t) {
      return testing::Tensors{both(t)[1]};
    };
    testing::expect_follows_f64(normed, testing::kF32);
    sum.run = [both = sum.run](const testing::Tensors& t) { return testing::Tensors{both(t)[0]}; };
    const auto gradients = testing::evaluate(sum, sum.inputs, at::kFloat).gradients;
    EXPECT_TRUE(gradients[0].equal(gradients[1]));
    EXPECT_GT(gradients[0].abs().min().item<double>(), 0.0);
    EXPECT_EQ(gradients[2].abs().max().item<double>(), 0.0) << "of the weight";
  }
}

// The sum is the rounded sum, which is what is normalised.
TEST(Norm, TheSumIsRoundedOnce) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = normal({40, 83}, 1).to(dtype), addend = normal({40, 83}, 2).to(dtype),
               weight = normal({83}, 3).to(dtype), bias = normal({83}, 4).to(dtype);
    const auto layer = ops::add_layer_norm(x, addend, weight, bias, 1e-5);
    EXPECT_TRUE(layer.sum.equal(x + addend)) << dtype;
    EXPECT_TRUE(layer.normed.equal(ops::layer_norm(x + addend, weight, bias, 1e-5))) << dtype;
    const auto rms = ops::add_rms_norm(x, addend, weight, 1e-5);
    EXPECT_TRUE(rms.sum.equal(x + addend)) << dtype;
    EXPECT_TRUE(rms.normed.equal(ops::rms_norm(x + addend, weight, 1e-5))) << dtype;
  }
}

// The normalised value is rounded to bf16 before the weight, as in the published models.
TEST(Norm, RmsNormRoundsBeforeTheWeight) {
  const auto x = normal({40, 83}, 1).to(at::kBFloat16), weight = normal({83}, 3).to(at::kBFloat16);
  const auto wide = x.to(at::kDouble);
  const auto rounded = (wide / (wide.square().mean(-1, true) + 1e-5).sqrt()).to(at::kBFloat16);
  const auto expected = (rounded.to(at::kFloat) * weight.to(at::kFloat)).to(at::kBFloat16);
  const auto same = ops::rms_norm(x, weight, 1e-5).eq(expected).sum().item<std::int64_t>();
  // An f32 error of 2^-22 moves one of 2^13 values across a rounding boundary.
  EXPECT_GE(same, x.numel() - 5);
}

// A gradient that is the same everywhere is nothing to a layer norm. Exactly so, if each f32
// operation is rounded: a compiler that fused a product with the subtraction of its own mean would
// leave the rounding of the product.
TEST(Norm, AnEvenGradientCancelsExactly) {
  for (const float factor : {1.1F, 0.3F, 7.7F}) {
    const auto x = torch::tensor({-3.0F, 3.0F}).repeat({40, 32}).requires_grad_();
    const auto weight = torch::full({64}, 1.7F), bias = torch::zeros({64});
    ops::layer_norm(x, weight, bias, 1e-5).backward(torch::full({40, 64}, factor));
    EXPECT_EQ(x.grad().abs().max().item<float>(), 0.0F) << factor;
  }
}

// Of rows far from zero the variance loses nothing to cancellation.
TEST(Norm, ALargeMeanCancelsNothing) {
  Operation operation = norm_operation(NormKind::kLayer, 11, 83);
  operation.inputs[0] = operation.inputs[0] + 1000;
  testing::expect_follows_f64(operation, {at::kFloat, 1e-4});  // x itself has 2^-24 x 1000 less
}

TEST(Norm, LongSumsOfBf16GradientsAreExact) {
  const auto ones = torch::ones({2000, 3}, at::kBFloat16);
  const auto x = normal({2000, 3}, 1).to(at::kBFloat16);
  const auto weight = torch::ones({3}, at::kBFloat16).requires_grad_(),
             bias = torch::zeros({3}, at::kBFloat16).requires_grad_();
  ops::layer_norm(x, weight, bias, 1e-5).backward(ones);
  EXPECT_EQ(bias.grad()[1].item<float>(), 2000.0F);  // bf16 sums end at 256
}

TEST(Norm, TakesNoRows) {
  const auto none = torch::empty({0, 5}), ones = torch::ones({5});
  EXPECT_EQ(ops::layer_norm(none, ones, ones, 1e-5).sizes(), none.sizes());
  EXPECT_EQ(ops::add_rms_norm(none, none, ones, 1e-5).normed.sizes(), none.sizes());
}

TEST(Norm, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto x = ones({2, 5}), good = ones({5});
    EXPECT_THROW(ops::layer_norm(x, ones({4}), good, 1e-5), ShapeError);
    EXPECT_THROW(ops::layer_norm(x, good, ones({4}), 1e-5), ShapeError);
    EXPECT_THROW(ops::layer_norm(x, good, good.to(at::kHalf), 1e-5), ShapeError);
    EXPECT_THROW(ops::layer_norm(ones({}), good, good, 1e-5), ShapeError);
    EXPECT_THROW(ops::rms_norm(x, ones({1, 5}), 1e-5), ShapeError);
    EXPECT_THROW(ops::rms_norm(x, good.to(at::kHalf), 1e-5), ShapeError);
    EXPECT_THROW(ops::add_layer_norm(x, ones({5}), good, good, 1e-5), ShapeError);
    EXPECT_THROW(ops::add_layer_norm(x, x, good, ones({6}), 1e-5), ShapeError);
    EXPECT_THROW(ops::add_rms_norm(x, ones({1, 5}), good, 1e-5), ShapeError);
    EXPECT_THROW(ops::add_rms_norm(x, x.to(at::kHalf), good, 1e-5), ShapeError);
  }
}

}  // namespace
}  // namespace trireme
