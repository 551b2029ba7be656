// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A whole model whose sequences are cut across ranks, against the same on one rank.

#include "trireme/parallel/context/context_parallel.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/operation.h"
#include "tests/support/ranks.h"
#include "trireme/ops/attention.h"
#include "trireme/ops/loss.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/model_parts.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/parallel/tensor_buffer.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::expect_close;
using testing::failure_of;
using testing::formula_tokens;
using ::testing::HasSubstr;
using testing::run_threads;
using testing::small_model_config;
using ::testing::StartsWith;

struct ModelCase {
  std::string family;
  std::string method;
  std::int64_t tokens = 11;
  std::int64_t window = 0;
  bool packed = false;
  nn::Recompute recompute = nn::Recompute::kNone;
  double dropout = 0;

  std::string name(int ranks) const {
    return fmt::format("{} {} on {}: T {} window {}{} recompute {}", family, method, ranks, tokens,
                       window, packed ? " packed" : "", static_cast<int>(recompute));
  }
};

nn::Transformer model_of(const ModelCase& c, at::ScalarType dtype = at::kDouble) {
  nn::ModelConfig config = small_model_config(c.family);
  config.attention_window = c.window;
  nn::Transformer model(config);
  nn::initialize(*model, 7);
  {
    const at::NoGradGuard no_grad;  // large enough that attention matters to the loss
    for (const at::Tensor& parameter : model->parameters()) parameter.mul_(5);
  }
  model->to(dtype);
  model->set_recompute(c.recompute);
  model->set_dropout({.share = c.dropout, .seed = 3});
  model->set_first_sample(5);
  return model;
}

struct Batch {
  at::Tensor tokens;
  at::Tensor targets;
  at::Tensor starts;
};

// Two sequences; every fifth target of one and every third of the other counts for nothing, so that
// ranks count differently.
Batch batch_of(const ModelCase& c) {
  Batch batch{formula_tokens(2, c.tokens, 37), formula_tokens(2, c.tokens, 37, 3), {}};
  batch.targets[0].slice(0, 0, c.tokens, 5).fill_(ops::kIgnoredTarget);
  batch.targets[1].slice(0, c.tokens / 2, c.tokens, 3).fill_(ops::kIgnoredTarget);
  if (c.packed)
    batch.starts = ops::document_starts(batch.tokens, batch.tokens[0][4].item<std::int64_t>());
  return batch;
}

// Loss and gradients by name of one rank with the whole batch.
struct Expected {
  at::Tensor loss;
  nn::Transformer model;
};
Expected on_one_rank(const ModelCase& c, at::ScalarType dtype) {
  const Batch batch = batch_of(c);
  nn::Transformer model = model_of(c, dtype);
  const at::Tensor loss = model->loss(batch.tokens, batch.targets, batch.starts);
  loss.backward();
  return {loss.detach(), model};
}

at::Tensor sum_of(const at::Tensor& x, Group& group) {
  const at::Tensor sum = x.detach().clone();
  group.all_reduce(buffer_of_tensor(sum));
  return sum;
}

void expect_as_on_one_rank(const ModelCase& c, int ranks, at::ScalarType dtype, double tolerance) {
  const Expected expected = on_one_rank(c, dtype);
  run_threads(ranks, [&](Group& group) {
    const Batch batch = batch_of(c);
    nn::Transformer model = model_of(c, dtype);
    ContextParallel context = context_parallel(*model, group, {.method = c.method});
    const ContextBatch own = context.cut(batch.tokens, batch.targets, batch.starts);
    const at::Tensor share =
        model->loss(own.tokens_BT, own.targets_BT, own.document_starts_BT) * own.weight;
    share.backward();
    const std::string name = c.name(ranks);
    expect_close(sum_of(share, group), expected.loss, tolerance, name);
    for (const auto& item : model->named_parameters()) {
      expect_close(sum_of(item.value().grad(), group),
                   expected.model->named_parameters()[item.key()].grad(), tolerance,
                   name + ", " + item.key());
    }
  });
}

struct EachMethod : ::testing::TestWithParam<std::tuple<std::string, std::string>> {
  ModelCase model_case() const { return {std::get<0>(GetParam()), std::get<1>(GetParam())}; }
};
INSTANTIATE_TEST_SUITE_P(ContextParallel, EachMethod,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values("ring", "ulysses")),
                         [](const auto& each) {
                           return std::get<0>(each.param) + "_" + std::get<1>(each.param);
                         });

TEST_P(EachMethod, LossAndGradientsAreAsOnOneRank) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::int64_t tokens : {8, 11}) {
      ModelCase c = model_case();
      c.tokens = tokens;
      expect_as_on_one_rank(c, ranks, at::kDouble, 1e-10);
      c.packed = true;
      expect_as_on_one_rank(c, ranks, at::kDouble, 1e-10);
      c.window = 3;
      expect_as_on_one_rank(c, ranks, at::kDouble, 1e-10);
    }
  }
}

TEST_P(EachMethod, BlocksMayBeComputedAgain) {
  for (const nn::Recompute recompute : {nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
    ModelCase c = model_case();
    c.recompute = recompute;
    c.packed = true;
    expect_as_on_one_rank(c, 3, at::kDouble, 1e-10);
  }
}

// What is dropped is drawn from a token's place in the whole sequence.
TEST_P(EachMethod, DropsTheSameElements) {
  ModelCase c = model_case();
  const double plain = on_one_rank(c, at::kDouble).loss.item<double>();
  c.dropout = 0.2;
  EXPECT_GT(std::abs(on_one_rank(c, at::kDouble).loss.item<double>() - plain), 1e-3);
  for (const nn::Recompute recompute : {nn::Recompute::kNone, nn::Recompute::kBlocks}) {
    c.recompute = recompute;
    expect_as_on_one_rank(c, 3, at::kDouble, 1e-10);
  }
}

// Two parts of the model by two of the sequence.
TEST_P(EachMethod, BesideTensorParallelism) {
  for (const bool sequence : {false, true}) {
    ModelCase c = model_case();
    c.packed = true;
    c.dropout = 0.2;
    const Expected expected = on_one_rank(c, at::kDouble);
    run_threads(4, [&](Group& world) {
      const Mesh mesh({{"cp", 2}, {"tp", 2}});
      const auto cp = world.split(mesh, "cp"), tp = world.split(mesh, "tp");
      nn::Transformer model = model_of(c);
      const TensorParallel cut = parallelize(*model, *tp, {.sequence = sequence});
      ContextParallel context = context_parallel(*model, *cp, {.method = c.method});
      const Batch batch = batch_of(c);
      const ContextBatch own = context.cut(batch.tokens, batch.targets, batch.starts);
      const at::Tensor share =
          model->loss(own.tokens_BT, own.targets_BT, own.document_starts_BT) * own.weight;
      share.backward();
      sum_partial_gradients(*model, cut.parts());
      expect_close(sum_of(share, *cp), expected.loss, 1e-10, c.name(4));
      for (const nn::RoledParameter& own_part : nn::parameters_with_roles(*model)) {
        const nn::ParameterPart& part = own_part.part;
        at::Tensor whole = expected.model->named_parameters()[own_part.name].grad();
        if (part.dim >= 0) whole = whole.narrow(part.dim, part.begin, part.size);
        expect_close(sum_of(own_part.tensor.grad(), *cp), whole, 1e-10,
                     c.name(4) + ", " + own_part.name);
      }
    });
  }
}

// f32: products of a model of two layers, rounded in other orders.
TEST_P(EachMethod, F32IsNearOneRank) { expect_as_on_one_rank(model_case(), 2, at::kFloat, 2e-5); }

// The forward pass of one length after the other; then plain again.
TEST_P(EachMethod, LogitsAreThoseOfTheOwnTokens) {
  const ModelCase c = model_case();
  run_threads(2, [&](Group& group) {
    nn::Transformer model = model_of(c), plain = model_of(c);
    {
      ContextParallel context = context_parallel(*model, group, {.method = c.method});
      for (const std::int64_t tokens : {11, 6, 11}) {
        const at::Tensor whole = formula_tokens(3, tokens, 37);
        const ContextBatch own = context.cut(whole, {});
        const TokenParts parts = token_parts(tokens, group.rank(), group.size());
        EXPECT_EQ(own.weight, 0);
        expect_close(model->forward(own.tokens_BT), own_tokens(plain->forward(whole), 1, parts),
                     1e-12, std::to_string(tokens));
      }
    }
    const at::Tensor whole = formula_tokens(3, 7, 37);
    EXPECT_TRUE(model->forward(whole).equal(plain->forward(whole)));
  });
}

TEST(ContextParallel, WeightsAreSharesOfTheTargetsThatCount) {
  run_threads(2, [&](Group& group) {
    nn::Transformer model = model_of({"llama", "ring"});
    ContextParallel context = context_parallel(*model, group);
    at::Tensor targets = formula_tokens(1, 8, 37, 1);
    const at::Tensor tokens = formula_tokens(1, 8, 37);
    EXPECT_EQ(context.cut(tokens, targets).weight, 0.5);
    targets[0][0] = targets[0][1] = targets[0][2] = ops::kIgnoredTarget;
    // Rank 0 has tokens 0, 1, 6 and 7, rank 1 the others.
    EXPECT_EQ(context.cut(tokens, targets).weight, group.rank() == 0 ? 2.0 / 5 : 3.0 / 5);
    targets.fill_(ops::kIgnoredTarget);
    EXPECT_EQ(context.cut(tokens, targets).weight, 0);
  });
}

TEST(ContextParallel, RefusesWhatDoesNotFit) {
  run_threads(3, [&](Group& group) {
    nn::Transformer model = model_of({"gpt2", "ring"});
    EXPECT_THAT(failure_of([&] { context_parallel(*model, group, {.method = "star"}); }),
                AllOf(StartsWith("ConfigError"), HasSubstr("star"), HasSubstr("ring or ulysses")));
    ContextParallel context = context_parallel(*model, group);
    const auto error = [&](const at::Tensor& tokens, const at::Tensor& targets,
                           const at::Tensor& starts = {}) {
      return failure_of([&] { context.cut(tokens, targets, starts); });
    };
    const at::Tensor tokens = formula_tokens(2, 9, 37);
    EXPECT_THAT(error(tokens, tokens.narrow(1, 0, 8)), HasSubstr("[2, 9]"));
    EXPECT_THAT(error(tokens, tokens, tokens.to(at::kFloat)), HasSubstr("document starts"));
    EXPECT_THAT(error(tokens[0], {}), HasSubstr("[9]"));
    EXPECT_THAT(error(tokens.narrow(1, 0, 5), {}),
                AllOf(StartsWith("ConfigError"), HasSubstr("5 tokens cut across 3 ranks"),
                      HasSubstr("at least 6")));
    // 11 learned positions.
    EXPECT_THAT(error(formula_tokens(1, 24, 37), {}),
                AllOf(StartsWith("ShapeError"), HasSubstr("model.context 11")));
    context.cut(tokens, {});
    EXPECT_THAT(
        failure_of([&] { model->forward(tokens); }),
        AllOf(StartsWith("ShapeError"), HasSubstr("9 tokens for a model with 3 positions")));
  });
  run_threads(1, [](Group& group) {
    nn::Transformer model = model_of({"gpt2", "ring"});
    ContextParallel context = context_parallel(*model, group, {.method = "ulysses"});
    EXPECT_EQ(context.group().size(), 1);
  });
}

TEST(ContextParallel, UlyssesNeedsAHeadForEachRank) {
  run_threads(5, [](Group& group) {
    nn::Transformer model = model_of({"gpt2", "ulysses"});
    EXPECT_THAT(failure_of([&] { context_parallel(*model, group, {.method = "ulysses"}); }),
                AllOf(StartsWith("ConfigError"), HasSubstr("4 heads for 5 ranks")));
  });
}

}  // namespace
}  // namespace trireme
