// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/grouped_linear.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/error_text.h"
#include "tests/support/operations_of_training.h"

namespace trireme {
namespace {

using ops::RowsByExpert;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::Layout;
using testing::leaf;
using testing::normal;
using testing::Operation;
using testing::Tensors;

std::vector<Operation> grouped_layers() {
  return {testing::grouped_linear_operation(45, 133, true),
          testing::grouped_linear_operation(519, 7, false),
          testing::grouped_gelu_mlp_operation(70, 150),
          testing::grouped_gelu_mlp_operation(3, 2),
          testing::grouped_swiglu_mlp_operation(70, 150),
          testing::grouped_swiglu_mlp_operation(3, 2)};
}

TEST(GroupedLinear, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(grouped_layers());
}

TEST(GroupedLinear, KernelsFollowF64) {
  testing::expect_follow_f64(grouped_layers(),
                             {Layout::kPlain, Layout::kStrided, Layout::kExpandedGradients});
}

// Inputs of 5 experts' two MLPs and the gradients of all, of one function or the other.
Tensors values_and_gradients(const Tensors& values, at::ScalarType dtype,
                             const std::function<at::Tensor(const Tensors&)>& f) {
  const Tensors leaves = testing::leaves_of(values, dtype);
  const at::Tensor y = f(leaves);
  y.backward(normal(y.sizes(), 77).to(dtype));
  Tensors all{y.detach()};
  for (const at::Tensor& each : leaves) {
    all.push_back(each.grad().defined() ? each.grad() : torch::zeros_like(each));
  }
  return all;
}

void expect_same(const Tensors& actual, const Tensors& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_TRUE(actual[i].equal(expected[i])) << what << ", tensor " << i;
  }
}

// Each expert has one group: the bits are those of ops::linear() and the MLPs of its rows alone.
// Experts of many rows, of none, of few, of one.
TEST(GroupedLinear, EachGroupHasTheBitsOfItsRowsAlone) {
  const RowsByExpert groups{{0, 29}, {1, 0}, {2, 3}, {3, 1}, {4, 17}};
  const auto E = std::int64_t{5}, N = std::int64_t{50}, C = std::int64_t{35}, F = std::int64_t{23};
  const Tensors values{normal({N, C}, 0),        normal({E, F, C}, 1) / 5, normal({E, F, C}, 2) / 5,
                       normal({E, C, F}, 3) / 5, normal({E, F}, 4),        normal({E, C}, 5)};
  const auto by_group = [&](const auto& f) {
    return [&groups, f](const Tensors& t) {
      std::vector<at::Tensor> parts;
      std::int64_t first = 0;
      for (const auto& [expert, rows] : groups) {
        if (rows > 0) parts.push_back(f(t, t[0].narrow(0, first, rows), expert));
        first += rows;
      }
      return torch::cat(parts);
    };
  };
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    expect_same(values_and_gradients(values, dtype,
                                     [&](const Tensors& t) {
                                       return ops::grouped_linear(t[0], t[1], t[4], groups);
                                     }),
                values_and_gradients(values, dtype,
                                     by_group([](const Tensors& t, const at::Tensor& x, auto e) {
                                       return ops::linear(x, t[1][e], t[4][e]);
                                     })),
                "linear");
    expect_same(values_and_gradients(values, dtype,
                                     [&](const Tensors& t) {
                                       return ops::grouped_gelu_mlp(t[0], t[1], t[4], t[3], t[5],
                                                                    groups);
                                     }),
                values_and_gradients(values, dtype,
                                     by_group([](const Tensors& t, const at::Tensor& x, auto e) {
                                       return ops::gelu_mlp(x, t[1][e], t[4][e], t[3][e], t[5][e]);
                                     })),
                "gelu");
    expect_same(values_and_gradients(values, dtype,
                                     [&](const Tensors& t) {
                                       return ops::grouped_swiglu_mlp(t[0], t[2], t[1], t[3],
                                                                      groups);
                                     }),
                values_and_gradients(values, dtype,
                                     by_group([](const Tensors& t, const at::Tensor& x, auto e) {
                                       return ops::swiglu_mlp(x, t[2][e], t[1][e], t[3][e]);
                                     })),
                "swiglu");
  }
}

TEST(GroupedLinear, HiddenValuesComputedAgainAreTheSameBits) {
  const RowsByExpert groups = testing::uneven_groups();
  const auto E = testing::kUnevenExperts;
  const Tensors values{normal({testing::kUnevenRows, 40}, 0), normal({E, 71, 40}, 1) / 5,
                       normal({E, 71, 40}, 2) / 5, normal({E, 40, 71}, 3) / 5};
  const auto gelu = [&](ops::HiddenValues hidden) {
    return [&groups, hidden](const Tensors& t) {
      return ops::grouped_gelu_mlp(t[0], t[1], {}, t[3], {}, groups, hidden);
    };
  };
  const auto swiglu = [&](ops::HiddenValues hidden) {
    return [&groups, hidden](const Tensors& t) {
      return ops::grouped_swiglu_mlp(t[0], t[2], t[1], t[3], groups, hidden);
    };
  };
  using enum ops::HiddenValues;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    expect_same(values_and_gradients(values, dtype, gelu(kComputedAgain)),
                values_and_gradients(values, dtype, gelu(kKept)), "gelu");
    expect_same(values_and_gradients(values, dtype, swiglu(kComputedAgain)),
                values_and_gradients(values, dtype, swiglu(kKept)), "swiglu");
  }
}

// A rank may get no rows at all; a backward pass goes through all the same.
TEST(GroupedLinear, NoRowsAtAllHaveAGraphAndGradientsOfZero) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const RowsByExpert& groups : {RowsByExpert{}, RowsByExpert{{0, 0}, {2, 0}}}) {
      const auto x = leaf(torch::zeros({0, 7}), dtype), up = leaf(normal({3, 5, 7}, 1), dtype),
                 down = leaf(normal({3, 7, 5}, 2), dtype);
      const auto y = ops::grouped_gelu_mlp(x, up, {}, down, {}, groups) +
                     ops::grouped_swiglu_mlp(x, up, up, down, groups);
      EXPECT_EQ(y.sizes(), at::IntArrayRef({0, 7}));
      ASSERT_TRUE(y.requires_grad());
      y.sum().backward();
      EXPECT_EQ(x.grad().sizes(), x.sizes());
      EXPECT_TRUE(up.grad().eq(0).all().item<bool>());
      EXPECT_TRUE(down.grad().eq(0).all().item<bool>());
    }
  }
}

TEST(GroupedLinear, RefusesWhatDoesNotFit) {
  const auto x = torch::zeros({6, 7}), weight = torch::zeros({3, 5, 7});
  const auto linear = [&](const at::Tensor& rows, const RowsByExpert& groups,
                          const at::Tensor& bias = {}) {
    return failure_of([&] { ops::grouped_linear(rows, weight, bias, groups); });
  };
  EXPECT_THAT(linear(x, {{0, 5}}), HasSubstr("ShapeError: groups of 5 rows in all cannot be"));
  EXPECT_THAT(linear(x, {{3, 6}}), HasSubstr("6 rows of expert 3: there are 3 experts"));
  EXPECT_THAT(linear(x, {{0, 7}, {1, -1}}), HasSubstr("-1 rows of expert 1"));
  EXPECT_THAT(linear(torch::zeros({6, 8}), {{0, 6}}), HasSubstr("cannot take rows of 8"));
  EXPECT_THAT(linear(x.to(at::kBFloat16), {{0, 6}}), HasSubstr("Float cannot take BFloat16"));
  EXPECT_THAT(linear(x, {{0, 6}}, torch::zeros({5})), HasSubstr("cannot add biases [5]"));
  EXPECT_THAT(failure_of([&] {
                ops::grouped_swiglu_mlp(x, weight, weight, torch::zeros({2, 7, 5}), {{0, 6}});
              }),
              HasSubstr("different numbers of experts"));
}

}  // namespace
}  // namespace trireme
