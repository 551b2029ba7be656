// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/token_routing.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <limits>

#include "tests/support/error_text.h"
#include "tests/support/operations_of_training.h"
#include "trireme/ops/kernels/row_kernels.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::leaf;
using testing::normal;
using testing::Operation;

std::vector<std::int64_t> numbers(const at::Tensor& values) {
  const at::Tensor flat = values.contiguous().view({-1});
  return {flat.data_ptr<std::int64_t>(), flat.data_ptr<std::int64_t>() + flat.numel()};
}

TEST(ChooseExperts, HighestFirstAndOfEqualOnesTheLowerNumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor scores = torch::tensor({{0.1F, 0.4F, 0.4F, 0.3F, 0.4F},
                                           {0.2F, 0.2F, 0.2F, 0.2F, 0.2F},
                                           {-3.0F, -1.0F, -2.0F, -5.0F, -4.0F},
                                           {nan, 0.1F, nan, 0.5F, nan},
                                           {nan, nan, nan, nan, nan}});
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    EXPECT_THAT(numbers(ops::choose_experts(scores.to(dtype), 3)),
                ElementsAre(1, 2, 4, 0, 1, 2, 1, 2, 0, 3, 1, 0, 0, 1, 2));
  }
  EXPECT_THAT(numbers(ops::choose_experts(scores.narrow(0, 0, 1), 5)), ElementsAre(1, 2, 4, 3, 0));
  EXPECT_THAT(numbers(ops::choose_experts(scores.narrow(0, 2, 1), 1)), ElementsAre(1));
}

TEST(ChooseExperts, AgreesWithASortOfEachRow) {
  const at::Tensor scores = normal({701, 37}, 3);
  const at::Tensor sorted = std::get<1>(at::sort(scores, /*stable=*/true, 1, true));
  EXPECT_TRUE(ops::choose_experts(scores, 6).equal(sorted.narrow(1, 0, 6)));
}

TEST(RouteTokens, RowsLieByExpertInTheOrderOfTheTokens) {
  const at::Tensor experts = torch::tensor({{2, 0}, {0, 3}, {3, 2}, {2, 0}});
  const ops::TokenRoutes routes = ops::route_tokens(experts, 5, 4);
  EXPECT_THAT(routes.rows, ElementsAre(3, 0, 3, 2, 0));
  EXPECT_THAT(routes.chosen, ElementsAre(3, 0, 3, 2, 0));
  EXPECT_THAT(numbers(routes.choices_M), ElementsAre(1, 2, 7, 0, 5, 6, 3, 4));
  EXPECT_THAT(numbers(routes.tokens_M), ElementsAre(0, 1, 3, 0, 2, 3, 1, 2));
  EXPECT_THAT(numbers(routes.places_Nk), ElementsAre(3, 0, 1, 6, 7, 4, 5, 2));
}

TEST(RouteTokens, AnExpertDropsItsLastTokens) {
  const at::Tensor experts = torch::tensor({{2, 0}, {0, 2}, {1, 2}, {2, 0}});
  const ops::TokenRoutes routes = ops::route_tokens(experts, 3, 2);
  EXPECT_THAT(routes.rows, ElementsAre(2, 1, 2));
  EXPECT_THAT(routes.chosen, ElementsAre(3, 1, 4));
  EXPECT_THAT(numbers(routes.choices_M), ElementsAre(1, 2, 4, 0, 3));
  constexpr std::int64_t kDropped = ops::kNoRow;
  EXPECT_THAT(numbers(routes.places_Nk), ElementsAre(3, 0, 1, 4, 2, kDropped, kDropped, kDropped));
}

// What is dropped of a sequence's beginning does not depend on what follows.
TEST(RouteTokens, LaterTokensDoNotMatterToEarlierOnes) {
  const at::Tensor experts = ops::choose_experts(normal({40, 6}, 5), 3);
  const auto dropped = [](const ops::TokenRoutes& routes) {
    return routes.places_Nk.eq(ops::kNoRow);
  };
  const at::Tensor all = dropped(ops::route_tokens(experts, 6, 9));
  EXPECT_TRUE(all.any().item<bool>());
  for (const std::int64_t tokens : {1, 13, 27}) {
    EXPECT_TRUE(dropped(ops::route_tokens(experts.narrow(0, 0, tokens), 6, 9))
                    .equal(all.narrow(0, 0, tokens)));
  }
}

std::vector<Operation> operations() {
  return {testing::gather_tokens_operation(101, 45),  testing::gather_tokens_operation(4, 1),
          testing::combine_tokens_operation(101, 45), testing::combine_tokens_operation(4, 1),
          testing::router_operation(131, 45, 7),      testing::router_operation(1, 3, 2)};
}

TEST(TokenRouting, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(operations());
}

TEST(TokenRouting, KernelsFollowF64) {
  using enum testing::Layout;
  testing::expect_follow_f64(operations(), {kPlain, kStrided, kExpandedGradients});
}

// By hand: token 0 to experts 1 and 0, token 1 to 1 and 0, expert 1 takes one.
TEST(TokenRouting, CombinesTheRowsOfATokenWithItsWeights) {
  const ops::TokenRoutes routes = ops::route_tokens(torch::tensor({{1, 0}, {1, 0}}), 2, 1);
  const at::Tensor x = torch::tensor({{1.0F, 2.0F}, {3.0F, 4.0F}});
  EXPECT_TRUE(ops::gather_tokens(x, routes).equal(torch::tensor({{1.0F, 2.0F}, {1.0F, 2.0F}})));
  const at::Tensor rows = torch::tensor({{10.0F, 20.0F}, {1.0F, 2.0F}});
  const at::Tensor weights = torch::tensor({{0.5F, 0.25F}, {7.0F, 9.0F}});
  EXPECT_TRUE(ops::combine_tokens(rows, weights, routes)
                  .equal(torch::tensor({{3.0F, 6.0F}, {0.0F, 0.0F}})));
}

// A weight of one changes no bit, on any dtype: an MLP with one expert is a dense one.
TEST(TokenRouting, OneExpertAndTheWeightOneAreTheIdentity) {
  const ops::TokenRoutes routes = ops::route_tokens(torch::zeros({33, 1}, at::kLong), 1, 33);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = leaf(normal({33, 21}, 2), dtype);
    const auto y = ops::combine_tokens(ops::gather_tokens(x, routes), torch::ones({33, 1}), routes);
    EXPECT_TRUE(y.equal(x));
    const at::Tensor gradient = normal({33, 21}, 3).to(dtype);
    y.backward(gradient);
    EXPECT_TRUE(x.grad().equal(gradient));
  }
}

TEST(TokenRouting, RefusesWhatDoesNotFit) {
  EXPECT_THAT(failure_of([] {
                ops::choose_experts(torch::zeros({3, 4}), 5);
              }),
              HasSubstr("ShapeError: 5 experts cannot be chosen by scores [3, 4]"));
  EXPECT_THAT(failure_of([] {
                ops::choose_experts(torch::zeros({3, 4}), 0);
              }),
              HasSubstr("0 experts"));
  EXPECT_THAT(failure_of([] {
                ops::route_tokens(torch::tensor({{0, 4}}), 4, 3);
              }),
              HasSubstr("choice 1 is of expert 4: there are 4"));
  EXPECT_THAT(failure_of([] {
                ops::route_tokens(torch::zeros({2, 2}), 4, 3);
              }),
              HasSubstr("routes need i64"));
  const ops::TokenRoutes routes = ops::route_tokens(torch::tensor({{0, 1}}), 2, 1);
  EXPECT_THAT(failure_of([&] {
                ops::gather_tokens(torch::zeros({2, 3}), routes);
              }),
              HasSubstr("tokens must be [1, C]; got [2, 3]"));
  EXPECT_THAT(failure_of([&] {
                ops::combine_tokens(torch::zeros({2, 3}), torch::zeros({1, 1}), routes);
              }),
              HasSubstr("weights of Float rows must be Float [1, 2]"));
  EXPECT_THAT(failure_of([] {
                ops::router_logits(torch::zeros({2, 3}), torch::zeros({4, 2}));
              }),
              HasSubstr("a router of Float [4, 2] cannot take Float [2, 3]"));
}

}  // namespace
}  // namespace trireme
