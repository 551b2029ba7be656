// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Parts of a model, one after the other, compute what the whole does, bit for bit.

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "trireme/nn/router_bias.h"
#include "trireme/nn/transformer.h"

namespace trireme {
namespace {

using testing::failure_of;
using testing::formula_tokens;
using ::testing::HasSubstr;
using testing::small_model_config;

constexpr std::uint64_t kSeed = 11;
const std::string kTied = "token_embedding.weight";

nn::Transformer part_of(const nn::ModelConfig& config, const nn::TransformerPart& part,
                        at::ScalarType dtype = at::kFloat) {
  nn::Transformer model(config, part);
  nn::initialize(*model, kSeed);
  model->to(dtype);
  return model;
}

// Cut before the given blocks.
std::vector<nn::Transformer> parts_of(const nn::ModelConfig& config,
                                      const std::vector<std::int64_t>& cuts,
                                      at::ScalarType dtype = at::kFloat) {
  std::vector<nn::Transformer> parts;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const bool first = i == 0, last = i == cuts.size();
    parts.push_back(part_of(config,
                            {.begin = first ? 0 : cuts[i - 1],
                             .end = last ? config.layers : cuts[i],
                             .embedding = first,
                             .head = last},
                            dtype));
  }
  return parts;
}

using Gradients = std::map<std::string, at::Tensor>;

void add_gradients_of(const nn::Transformer& model, Gradients& gradients) {
  for (const auto& item : model->named_parameters()) {
    if (!item.value().grad().defined()) continue;
    at::Tensor& sum = gradients[item.key()];
    sum = sum.defined() ? item.value().grad() + sum : item.value().grad();
  }
}

// As ranks of a pipeline do it: each part has a graph of its own.
at::Tensor train_parts(std::vector<nn::Transformer>& parts, const at::Tensor& inputs,
                       const at::Tensor& targets, Gradients& gradients) {
  std::vector<at::Tensor> received{inputs};
  std::vector<nn::PartOutput> sent;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    sent.push_back(parts[i]->hidden(received.back()));
    received.push_back(sent.back().hidden.detach().requires_grad_());
  }
  const at::Tensor loss = parts.back()->loss(received.back(), targets);
  loss.backward();
  at::Tensor whole = loss.detach();
  for (std::size_t i = parts.size() - 1; i-- > 0;) {
    std::vector<at::Tensor> roots{sent[i].hidden}, seeds{received[i + 1].grad()};
    if (sent[i].routing_loss.defined()) {
      whole = whole + sent[i].routing_loss.detach();
      roots.push_back(sent[i].routing_loss);
      seeds.push_back(at::ones_like(sent[i].routing_loss));
    }
    torch::autograd::backward(roots, seeds);
  }
  for (const nn::Transformer& part : parts) add_gradients_of(part, gradients);
  return whole;
}

nn::ModelConfig config_of(const std::string& family, const std::string& tied, std::int64_t layers) {
  nn::ModelConfig config = small_model_config(family);
  config.layers = layers;
  config.tie_head = tied;
  return config;
}

class EachPart : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {};

INSTANTIATE_TEST_SUITE_P(Families, EachPart,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values("yes", "no")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_tied_" + std::get<1>(test.param);
                         });

TEST_P(EachPart, ComputesWhatTheWholeDoes) {
  const auto& [family, tied] = GetParam();
  const nn::ModelConfig config = config_of(family, tied, 5);
  const at::Tensor tokens = formula_tokens(3, 10, config.vocab_size);
  const at::Tensor inputs = tokens.narrow(1, 0, 9), targets = tokens.narrow(1, 1, 9);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    nn::Transformer whole = part_of(config, {}, dtype);
    whole->set_dropout({.share = 0.1, .seed = 3});
    whole->set_first_sample(77);
    const at::Tensor loss = whole->loss(inputs, targets);
    loss.backward();
    Gradients expected;
    add_gradients_of(whole, expected);
    for (const std::vector<std::int64_t>& cuts :
         std::vector<std::vector<std::int64_t>>{{2}, {1, 2, 4}, {0, 5}, {3, 3}}) {
      std::vector<nn::Transformer> parts = parts_of(config, cuts, dtype);
      for (nn::Transformer& part : parts) {
        part->set_dropout({.share = 0.1, .seed = 3});
        part->set_first_sample(77);
      }
      Gradients found;
      EXPECT_TRUE(train_parts(parts, inputs, targets, found).equal(loss));
      ASSERT_EQ(found.size(), expected.size());
      for (const auto& [name, gradient] : expected) {
        ASSERT_TRUE(found.contains(name)) << name;
        if (name == kTied && tied == "yes") {
          const double bound = dtype == at::kBFloat16 ? 2e-2 : 1e-6;  // one more rounding
          EXPECT_TRUE(found.at(name).allclose(gradient, bound, bound)) << name;
        } else if (dtype == at::kBFloat16) {
          // Sums are rounded to bf16 where the parts meet, and in the whole not.
          EXPECT_TRUE(found.at(name).allclose(gradient, 5e-2, 5e-3)) << name;
        } else {
          EXPECT_TRUE(found.at(name).equal(gradient)) << name;
        }
      }
    }
  }
}

TEST_P(EachPart, GeneratesWhatTheWholeDoes) {
  const auto& [family, tied] = GetParam();
  const nn::ModelConfig config = config_of(family, tied, 4);
  nn::Transformer whole = part_of(config, {});
  std::vector<nn::Transformer> parts = parts_of(config, {1, 3});
  const at::Tensor tokens = formula_tokens(2, 9, config.vocab_size);
  EXPECT_TRUE(parts[2]
                  ->forward(parts[1]->hidden(parts[0]->hidden(tokens).hidden).hidden)
                  .equal(whole->forward(tokens)));
  nn::KvCache cache;
  std::vector<nn::KvCache> caches(parts.size());
  for (const auto& [begin, count] : {std::pair{0, 4}, {4, 1}, {5, 1}, {6, 3}}) {
    const at::Tensor next = tokens.narrow(1, begin, count);
    at::Tensor value = next;
    for (std::size_t i = 0; i < parts.size(); ++i) value = parts[i]->decode(value, caches[i]);
    EXPECT_TRUE(value.equal(whole->decode(next, cache))) << begin;
  }
}

TEST_P(EachPart, HasTheNamesAndValuesOfTheWhole) {
  const auto& [family, tied] = GetParam();
  const nn::ModelConfig config = config_of(family, tied, 5);
  const nn::Transformer whole = part_of(config, {});
  EXPECT_TRUE(whole->is_whole());
  std::map<std::string, at::Tensor> left;
  for (const auto& item : whole->named_parameters()) left[item.key()] = item.value();
  const auto all = left;
  const std::vector<nn::Transformer> parts = parts_of(config, {2, 4});
  for (const nn::Transformer& part : parts) {
    EXPECT_FALSE(part->is_whole());
    for (const auto& item : part->named_parameters()) {
      ASSERT_TRUE(all.contains(item.key())) << item.key();
      EXPECT_TRUE(item.value().equal(all.at(item.key()))) << item.key();
      left.erase(item.key());
    }
  }
  EXPECT_TRUE(left.empty()) << left.begin()->first;
  EXPECT_EQ(parts[2]->head_weight().is_same(parts[2]->token_embedding_weight()), tied == "yes");
  EXPECT_FALSE(parts[1]->token_embedding_weight().defined());
  EXPECT_FALSE(parts[0]->head_weight().defined());
}

// Each part has its layers' share of what experts add to the loss, and their choices.
TEST(TransformerPart, ExpertsAddTheirShare) {
  nn::ModelConfig config = config_of("llama", "no", 6);
  config.experts = {.count = 4, .top_k = 2, .every = 2, .z_coefficient = 1e-2};
  config.resolve(0);
  const at::Tensor tokens = formula_tokens(3, 10, config.vocab_size);
  const at::Tensor inputs = tokens.narrow(1, 0, 9), targets = tokens.narrow(1, 1, 9);
  nn::Transformer whole = part_of(config, {});
  const at::Tensor loss = whole->loss(inputs, targets);
  loss.backward();
  Gradients expected, found;
  add_gradients_of(whole, expected);
  std::vector<nn::Transformer> parts = parts_of(config, {1, 3});
  EXPECT_NEAR(train_parts(parts, inputs, targets, found).item<double>(), loss.item<double>(), 1e-5);
  for (const auto& [name, gradient] : expected) EXPECT_TRUE(found.at(name).equal(gradient)) << name;
  std::size_t layers = 0;
  for (const nn::Transformer& part : parts) {
    for (const nn::LayerRouting& routing : part->routing()) {
      EXPECT_TRUE(routing.chosen_E.equal(whole->routing()[layers++].chosen_E));
    }
    EXPECT_EQ(nn::no_choices(*part).size(0), static_cast<std::int64_t>(part->routing().size()));
  }
  EXPECT_EQ(layers, 3);
}

TEST(TransformerPart, WithWhatIsNoneIsRefused) {
  const nn::ModelConfig config = config_of("llama", "no", 3);
  EXPECT_THAT(
      failure_of([&] { nn::Transformer(config, nn::TransformerPart{.begin = 2, .end = 4}); }),
      HasSubstr("blocks 2 to 4 are no part of a model of 3"));
  nn::Transformer last = part_of(config, {.begin = 1, .embedding = false});
  const at::Tensor tokens = formula_tokens(2, 5, config.vocab_size);
  EXPECT_THAT(failure_of([&] { last->loss(tokens, tokens); }), HasSubstr("takes hidden values"));
  EXPECT_THROW(last->loss(at::zeros({2, 6, config.width}), tokens), ShapeError);
  // Rows, as sequence parallelism has them.
  last->set_shape(2, 5);
  EXPECT_TRUE(last->loss(at::zeros({2, 5, config.width}), tokens).isfinite().item<bool>());
}

}  // namespace
}  // namespace trireme
