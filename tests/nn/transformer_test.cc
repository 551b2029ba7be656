// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/transformer.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/ops/attention.h"

namespace trireme {
namespace {

using testing::formula_tokens;
using testing::small_model_config;

// Family and whether the head is tied.
class EachModel : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  static nn::ModelConfig config() {
    auto config = small_model_config(std::get<0>(GetParam()));
    config.tie_head = std::get<1>(GetParam());
    return config;
  }
  // Weights large enough that every part of the model matters to the loss.
  static nn::Transformer model(at::ScalarType dtype) {
    nn::Transformer model(config());
    nn::initialize(*model, 7);
    model->to(dtype);
    const at::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters()) {
      const RandomStream noise(3, item.key());
      auto flat = item.value().view({-1});
      for (std::int64_t i = 0; i < flat.numel(); ++i) {
        flat[i] += 0.25 * noise.normal(static_cast<std::uint64_t>(i));
      }
    }
    return model;
  }
};

INSTANTIATE_TEST_SUITE_P(Families, EachModel,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values("yes", "no")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_tied_" + std::get<1>(test.param);
                         });

double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST_P(EachModel, ShapesAndDtypes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    auto m = model(dtype);
    const auto logits = m->forward(formula_tokens(3, 7, 37));
    EXPECT_EQ(logits.sizes(), at::IntArrayRef({3, 7, 37}));
    EXPECT_EQ(logits.scalar_type(), dtype);
    const auto loss = m->loss(formula_tokens(3, 7, 37), formula_tokens(3, 7, 37, 1));
    EXPECT_EQ(loss.dim(), 0);
    EXPECT_EQ(loss.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
    EXPECT_TRUE(std::isfinite(loss.item<double>()));
  }
}

// Central differences of the loss in f64, at elements spread over every parameter. The step's
// truncation and rounding errors are both near 1e-9 of a loss of about 4.
TEST_P(EachModel, GradientMatchesFiniteDifferences) {
  auto m = model(at::kDouble);
  const auto inputs = formula_tokens(2, 9, 37), targets = formula_tokens(2, 9, 37, 1);
  m->loss(inputs, targets).backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-5, kTolerance = 1e-8;
  constexpr std::int64_t kProbes = 6;
  for (const auto& item : m->named_parameters()) {
    auto flat = item.value().view({-1});
    const auto gradient = item.value().grad().view({-1});
    // A bias of the keys adds the same to all scores of a query: softmax does not see it.
    const bool matters = item.key().find("attn.k.bias") == std::string::npos;
    EXPECT_EQ(gradient.abs().max().item<double>() > 1e-6, matters) << item.key();
    for (std::int64_t probe = 0; probe < kProbes; ++probe) {
      const auto i = (probe * 97 + 5) % flat.numel();
      const double value = flat[i].item<double>();
      flat[i] = value + kStep;
      const double above = m->loss(inputs, targets).item<double>();
      flat[i] = value - kStep;
      const double below = m->loss(inputs, targets).item<double>();
      flat[i] = value;
      EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2.0 * kStep), kTolerance)
          << item.key() << " element " << i;
    }
  }
}

TEST_P(EachModel, AChangedTokenLeavesEarlierLogitsAlone) {
  auto m = model(at::kDouble);
  const at::NoGradGuard no_grad;
  const auto tokens = formula_tokens(2, 11, 37);
  const auto before = m->forward(tokens);
  for (const std::int64_t t : {0, 4, 10}) {
    auto changed = tokens.clone();
    changed[1][t] = (changed[1][t] + 1) % 37;
    const auto after = m->forward(changed);
    EXPECT_EQ(max_difference(after[0], before[0]), 0.0) << "the other sequence";
    if (t > 0) {
      EXPECT_LT(max_difference(after[1].narrow(0, 0, t), before[1].narrow(0, 0, t)), 1e-14) << t;
    }
    for (std::int64_t later = t; later < 11; ++later) {
      EXPECT_GT(max_difference(after[1][later], before[1][later]), 1e-6) << t << " to " << later;
    }
  }
}

TEST_P(EachModel, DecodingWithACacheEqualsForward) {
  auto m = model(at::kDouble);
  const auto tokens = formula_tokens(3, 11, 37);
  at::Tensor expected;
  {
    const at::NoGradGuard no_grad;
    expected = m->forward(tokens);
  }
  nn::KvCache cache;
  std::int64_t done = 0;
  for (const std::int64_t chunk : {4, 1, 3, 1, 1, 1}) {
    const auto logits = m->decode(tokens.narrow(1, done, chunk), cache);
    done += chunk;
    EXPECT_EQ(cache.tokens, done);
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
    EXPECT_FALSE(logits.requires_grad());
    EXPECT_LT(max_difference(logits, expected.select(1, done - 1)), 1e-5) << done;
  }
}

// Two layers of a window of 3: a token depends on itself and the 2 x 2 before it.
TEST_P(EachModel, AWindowBoundsWhatATokenSees) {
  auto windowed = config();
  windowed.attention_window = 3;
  nn::Transformer m(windowed);
  nn::initialize(*m, 7);
  m->to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : m->parameters()) parameter.mul_(5);
  const auto tokens = formula_tokens(1, 11, 37);
  const auto before = m->forward(tokens);
  for (const std::int64_t t : {0, 2, 7}) {
    auto changed = tokens.clone();
    changed[0][t] = (changed[0][t] + 1) % 37;
    const auto difference = (m->forward(changed) - before).abs().amax({0, 2});
    for (std::int64_t other = 0; other < 11; ++other) {
      const bool sees = other >= t && other <= t + 4;
      EXPECT_EQ(difference[other].item<double>() > 1e-9, sees) << t << " by " << other;
    }
  }
}

// Documents that begin with token 0, at 0, 4 and 9 (the first without it).
at::Tensor packed_tokens() {
  const auto tokens = formula_tokens(2, 11, 36) + 1;
  tokens.narrow(1, 4, 1).zero_();
  tokens.narrow(1, 9, 1).zero_();
  return tokens;
}

TEST_P(EachModel, SeparateDocumentsDoNotSeeEachOther) {
  for (const nn::Recompute recompute : {nn::Recompute::kNone, nn::Recompute::kBlocks}) {
    auto m = model(at::kDouble);
    m->set_recompute(recompute);
    const auto tokens = packed_tokens();
    const auto starts = ops::document_starts(tokens, 0);
    const auto before = m->forward(tokens, starts).detach();
    auto changed = tokens.clone();
    changed[0][5] = changed[0][5] + 1;
    const auto difference = (m->forward(changed, starts) - before).abs().amax(2);
    for (std::int64_t t = 0; t < 11; ++t) {
      const bool sees = t >= 5 && t < 9;
      EXPECT_EQ(difference[0][t].item<double>() > 1e-9, sees) << t;
      EXPECT_EQ(difference[1][t].item<double>(), 0.0);
    }
  }
}

TEST_P(EachModel, DecodingWithAWindowEqualsForward) {
  auto windowed = config();
  windowed.attention_window = 4;
  nn::Transformer m(windowed);
  nn::initialize(*m, 7);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : m->parameters()) parameter.mul_(5);
  const auto tokens = formula_tokens(3, 11, 37);
  const auto expected = m->forward(tokens);
  nn::KvCache cache;
  std::int64_t done = 0;
  for (const std::int64_t chunk : {5, 1, 3, 1, 1}) {
    const auto logits = m->decode(tokens.narrow(1, done, chunk), cache);
    done += chunk;
    EXPECT_LT(max_difference(logits, expected.select(1, done - 1)), 1e-4) << done;
  }
}

TEST_P(EachModel, Bf16IsNearF32) {
  auto wide = model(at::kFloat);
  auto narrow = model(at::kFloat);
  narrow->to(at::kBFloat16);
  const auto inputs = formula_tokens(3, 11, 37), targets = formula_tokens(3, 11, 37, 1);
  const auto expected = wide->loss(inputs, targets).item<double>();
  // bf16 keeps 8 bits: 0.4 % per rounding, of which logits of size 4 pass about a dozen.
  EXPECT_NEAR(narrow->loss(inputs, targets).item<double>(), expected, 0.05 * expected);
}

TEST_P(EachModel, ParametersComeOnceAndUnderTheirNames) {
  auto m = model(at::kFloat);
  const auto names = m->named_parameters().keys();
  const auto has = [&](const std::string& name) {
    return std::count(names.begin(), names.end(), name) == 1;
  };
  const bool gpt2 = std::get<0>(GetParam()) == "gpt2";
  EXPECT_TRUE(has("token_embedding.weight"));
  EXPECT_EQ(has("position_embedding.weight"), gpt2);
  EXPECT_TRUE(has("blocks.1.attn_norm.weight"));
  EXPECT_EQ(has("blocks.1.attn_norm.bias"), gpt2);
  EXPECT_TRUE(has("blocks.0.attn.k.weight"));
  EXPECT_EQ(has("blocks.0.mlp.gate.weight"), !gpt2);
  EXPECT_TRUE(has("blocks.0.mlp.down.weight"));
  EXPECT_TRUE(has("final_norm.weight"));
  EXPECT_EQ(has("head.weight"), std::get<1>(GetParam()) == "no");
}

// Tokens of a sequence in another order, each at its own place, are the same sequence to what does
// not look at its neighbours: one that sees itself alone.
TEST_P(EachModel, TokensStandAtTheirPositions) {
  nn::ModelConfig alone = config();
  alone.attention_window = 1;
  nn::Transformer m(alone);
  nn::initialize(*m, 7);
  m->to(at::kDouble);
  const auto tokens = formula_tokens(2, 7, 37), targets = formula_tokens(2, 7, 37, 1);
  const auto order = at::tensor({6, 2, 3, 0, 5, 1, 4}, at::kLong);
  const auto plain = m->forward(tokens), loss = m->loss(tokens, targets);
  loss.backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : m->parameters()) {
    gradients.push_back(parameter.grad().clone());
    parameter.mutable_grad().zero_();
  }
  m->set_positions(order);
  const auto turned = [&](const at::Tensor& x) { return x.index_select(1, order); };
  EXPECT_LT(max_difference(m->forward(turned(tokens)), turned(plain)), 1e-12);
  m->loss(turned(tokens), turned(targets)).backward();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_LT(max_difference(m->parameters()[i].grad(), gradients[i]), 1e-12) << i;
  }
  EXPECT_THROW(m->forward(tokens.narrow(1, 0, 6)), ShapeError);
  nn::KvCache cache;  // has positions of its own
  EXPECT_LT(max_difference(m->decode(tokens, cache), plain.select(1, 6)), 1e-5);
  m->set_positions({});
  EXPECT_TRUE(m->forward(tokens).equal(plain));
}

// Rotary positions count by their differences.
TEST_P(EachModel, PositionsMatter) {
  auto m = model(at::kDouble);
  const auto tokens = formula_tokens(1, 4, 37);
  const auto with = [&](const std::vector<std::int64_t>& positions) {
    m->set_positions(at::tensor(positions, at::kLong));
    return m->forward(tokens);
  };
  const auto plain = m->forward(tokens);
  EXPECT_LT(max_difference(with({0, 1, 2, 3}), plain), 1e-12);
  EXPECT_GT(max_difference(with({0, 1, 2, 9}), plain), 1e-3);
  const bool learned = std::get<0>(GetParam()) == "gpt2";
  EXPECT_EQ(max_difference(with({5, 6, 7, 8}), plain) > 1e-3, learned);
}

TEST(Transformer, AttentionMayBeComputedByAnother) {
  nn::Transformer m(small_model_config("llama"));
  nn::initialize(*m, 7);
  const auto tokens = formula_tokens(2, 7, 37);
  const auto plain = m->forward(tokens);
  int calls = 0;
  const auto set_core = [&](const nn::AttentionCore& core) {
    for (const auto& module : m->modules()) {
      if (auto* attention = module->as<nn::AttentionImpl>()) attention->set_core(core);
    }
  };
  set_core([&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               const ops::AttentionMask& mask) {
    ++calls;
    EXPECT_EQ(q.sizes(), at::IntArrayRef({2, 7, 4, 6}));
    EXPECT_EQ(k.sizes(), at::IntArrayRef({2, 2, 7, 6}));
    return ops::causal_attention(q, k, v, mask);
  });
  EXPECT_TRUE(m->forward(tokens).equal(plain));
  EXPECT_EQ(calls, 2);
  nn::KvCache cache;
  m->decode(tokens, cache);
  EXPECT_EQ(calls, 2);
  set_core({});
  EXPECT_TRUE(m->forward(tokens).equal(plain));
  EXPECT_EQ(calls, 2);
}

TEST(Transformer, RefusesWhatItCannotTake) {
  nn::Transformer gpt2(small_model_config("gpt2"));
  nn::initialize(*gpt2, 1);
  EXPECT_THROW(gpt2->forward(formula_tokens(1, 12, 37)), ShapeError);  // beyond context 11
  EXPECT_THROW(gpt2->forward(formula_tokens(1, 5, 37).view({5})), ShapeError);
  EXPECT_THROW(gpt2->forward(formula_tokens(1, 5, 37).to(at::kInt)), ShapeError);
  EXPECT_THROW(gpt2->loss(formula_tokens(1, 5, 37), formula_tokens(1, 4, 37)), ShapeError);
  EXPECT_THROW(gpt2->forward(formula_tokens(1, 5, 37) + 37), c10::Error);
  nn::KvCache cache;
  gpt2->decode(formula_tokens(2, 9, 37), cache);
  EXPECT_THROW(gpt2->decode(formula_tokens(3, 1, 37), cache), ShapeError);
  EXPECT_THROW(gpt2->decode(formula_tokens(2, 3, 37), cache), ShapeError);
  EXPECT_EQ(cache.tokens, 9);
  EXPECT_THROW(gpt2->set_positions(at::tensor({3, 11}, at::kLong)), ShapeError);
  EXPECT_THROW(gpt2->set_positions(at::tensor({3, -1}, at::kLong)), ShapeError);
  EXPECT_THROW(gpt2->set_positions(formula_tokens(1, 5, 37)), ShapeError);
  EXPECT_THROW(gpt2->set_positions(at::tensor({3, 1}, at::kInt)), ShapeError);
}

// Rotary positions are relative: a document is computed as if it stood alone, and so is its loss.
TEST(Transformer, ASeparateDocumentIsItselfWithRotaryPositions) {
  nn::Transformer m(small_model_config("llama"));
  nn::initialize(*m, 7);
  m->to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : m->parameters()) parameter.mul_(5);
  const auto tokens = packed_tokens(), targets = formula_tokens(2, 11, 37, 1);
  const auto starts = ops::document_starts(tokens, 0);
  const auto packed = m->forward(tokens, starts);
  double losses = 0;
  for (const auto& [begin, count] : {std::pair{0, 4}, {4, 5}, {9, 2}}) {
    const auto alone = tokens.narrow(1, begin, count);
    EXPECT_LT(max_difference(m->forward(alone), packed.narrow(1, begin, count)), 1e-10) << begin;
    losses += m->loss(alone, targets.narrow(1, begin, count)).item<double>() * count;
  }
  EXPECT_NEAR(m->loss(tokens, targets, starts).item<double>(), losses / 11, 1e-10);
  EXPECT_GT(max_difference(m->forward(tokens), packed), 1e-3);
}

// Rotary positions have no end.
TEST(Transformer, RotaryModelsReadPastTheirContext) {
  nn::Transformer llama(small_model_config("llama"));
  nn::initialize(*llama, 1);
  EXPECT_EQ(llama->forward(formula_tokens(1, 70, 37)).size(1), 70);
  nn::KvCache cache;
  for (int i = 0; i < 130; ++i) {  // past two growths of the cache
    llama->decode(formula_tokens(1, 1, 37, i), cache);
  }
  EXPECT_EQ(cache.tokens, 130);
}

}  // namespace
}  // namespace trireme
