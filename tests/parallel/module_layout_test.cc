// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/module_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Part : torch::nn::Module {
  Part(std::int64_t rows, at::ScalarType dtype = at::kFloat) {
    weight = register_parameter("weight", torch::zeros({rows, 5}, dtype));
    bias = register_parameter("bias", torch::zeros({rows}, dtype));
  }
  at::Tensor weight, bias;
};

// embedding, two parts, a head that is the embedding again, something frozen in between.
struct Model : torch::nn::Module {
  Model() {
    embedding = register_parameter("embedding", torch::zeros({37, 5}));
    scale = register_parameter("scale", torch::zeros({3}), false);
    first = register_module("first", std::make_shared<Part>(1000));
    second = register_module("second", std::make_shared<Part>(7));
    head = register_parameter("head", embedding);
    norm = register_parameter("norm", torch::zeros({}));
  }
  at::Tensor embedding, scale, head, norm;
  std::shared_ptr<Part> first, second;
};

std::vector<std::string> names_of(const ModuleLayout& layout) {
  std::vector<std::string> names;
  for (const FlatEntry& entry : layout.entries) names.push_back(entry.name);
  return names;
}

std::string refusal(const torch::nn::Module& module,
                    const std::vector<const torch::nn::Module*>& units = {}) {
  try {
    make_layout(module, units);
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "no error";
}

// On the stack, as a small program has it.
TEST(ModuleLayout, IsInTheOrderOfRegistrationWithTiedOnesOnce) {
  const Model model;
  const ModuleLayout layout = make_layout(model);
  EXPECT_THAT(names_of(layout), ElementsAre("embedding", "norm", "first.weight", "first.bias",
                                            "second.weight", "second.bias"));
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    const FlatEntry& entry = layout.entries[i];
    EXPECT_EQ(entry.offset, offset) << entry.name;
    EXPECT_EQ(entry.count, layout.parameters[i].numel());
    EXPECT_EQ(entry.shape, layout.parameters[i].sizes().vec());
    EXPECT_EQ(layout.unit_of[i], 0U);
    offset += (entry.count + 63) / 64 * 64;
  }
  EXPECT_EQ(layout.size, (offset + kShardBlock - 1) / kShardBlock * kShardBlock);
  EXPECT_EQ(layout.units.size(), 1U);
  ASSERT_EQ(layout.frozen.size(), 1U);
  EXPECT_TRUE(layout.frozen[0].is_same(model.scale));
  EXPECT_TRUE(layout.parameters[0].is_same(model.embedding));
}

TEST(ModuleLayout, UnitsBeginAtBlocksAfterWhatIsInNone) {
  const Model model;
  const ModuleLayout layout = make_layout(model, {model.second.get(), model.first.get()});
  EXPECT_THAT(names_of(layout), ElementsAre("embedding", "norm", "second.weight", "second.bias",
                                            "first.weight", "first.bias"));
  EXPECT_THAT(layout.unit_of, ElementsAre(0U, 0U, 1U, 1U, 2U, 2U));
  ASSERT_EQ(layout.units.size(), 3U);
  std::int64_t end = 0;
  for (std::size_t unit = 0; unit < 3; ++unit) {
    EXPECT_EQ(layout.units[unit].begin, end);
    EXPECT_EQ(layout.entries[2 * unit].offset, end);
    end = layout.units[unit].end;
    EXPECT_EQ(end % kShardBlock, 0);
  }
  EXPECT_EQ(layout.units[2].end - layout.units[2].begin, 2 * kShardBlock);
  EXPECT_EQ(layout.size, end);
}

// The embedding is held by the model and by a unit; the same module is given twice.
TEST(ModuleLayout, ASharedParameterBelongsToTheFirstUnitThatHoldsIt) {
  const auto body = std::make_shared<Part>(9);
  struct Holder : torch::nn::Module {
    explicit Holder(const std::shared_ptr<Part>& part) { register_module("part", part); }
  };
  const auto a = std::make_shared<Holder>(body);
  const auto b = std::make_shared<Holder>(body);
  torch::nn::Module model;
  model.register_module("a", a);
  model.register_module("b", b);
  const ModuleLayout layout = make_layout(model, {b.get(), a.get()});
  EXPECT_THAT(names_of(layout), ElementsAre("a.part.weight", "a.part.bias"));
  EXPECT_THAT(layout.unit_of, ElementsAre(1U, 1U));
  EXPECT_EQ(layout.units[0].end, 0);
  EXPECT_EQ(layout.units[1].end, kShardBlock);
  EXPECT_EQ(layout.units[2].begin, layout.units[2].end) << "nothing is left to it";
}

TEST(ModuleLayout, RefusesWhatHasNoFlatBuffer) {
  torch::nn::Module empty;
  EXPECT_THAT(refusal(empty), HasSubstr("no parameters to train"));
  torch::nn::Module frozen;
  frozen.register_parameter("w", torch::zeros({3}), false);
  EXPECT_THAT(refusal(frozen), HasSubstr("no parameters to train"));
  torch::nn::Module mixed;
  mixed.register_module("a", std::make_shared<Part>(3));
  mixed.register_module("b", std::make_shared<Part>(3, at::kDouble));
  EXPECT_THAT(refusal(mixed),
              AllOf(HasSubstr("a.weight is Float"), HasSubstr("b.weight is Double")));
  torch::nn::Module devices;
  devices.register_parameter("here", torch::zeros({3}));
  devices.register_parameter("there", torch::zeros({3}, at::kMeta));
  EXPECT_THAT(refusal(devices), AllOf(HasSubstr("here is on cpu"), HasSubstr("there on meta")));
  const Model model;
  const Part other(3);
  EXPECT_THAT(refusal(model, {model.first.get(), &other}), HasSubstr("unit 1 is not a module of"));
}

// Biases of experts have two dims, of which the first only counts them: they do not decay.
TEST(ModuleLayout, OptimizersSeeStacksOfExperts) {
  const nn::Transformer model(testing::deepseek_config("gpt2"));
  std::string seen;
  for (const optim::OptimizerParameter& each : optimizer_parameters(make_layout(*model))) {
    if (!each.entry.name.starts_with("blocks.1.mlp.")) continue;
    seen += each.entry.name.substr(13) + (each.decays ? " decays" : "") +
            (each.hidden_matrix ? " hidden" : "") + (each.stack ? " stack\n" : "\n");
  }
  EXPECT_EQ(seen,
            "router.weight decays\n"
            "experts.up decays hidden stack\n"
            "experts.up_bias stack\n"
            "experts.down decays hidden stack\n"
            "experts.down_bias stack\n"
            "shared.up.weight decays hidden\n"
            "shared.up.bias\n"
            "shared.down.weight decays hidden\n"
            "shared.down.bias\n");
}

}  // namespace
}  // namespace trireme
