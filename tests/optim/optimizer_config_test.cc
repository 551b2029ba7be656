// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/optimizer_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using trireme::testing::failure_of;

constexpr const char* kNames[] = {"sgd",  "adagrad", "adam",      "adamw",
                                  "lamb", "lion",    "adafactor", "muon"};

struct Section {
  OptimizerConfig optimizer;
  void visit(ConfigFields& f) { f.section("optimizer", optimizer, ""); }
};

OptimizerConfig read(const std::string& yaml) {
  Section section;
  bind_config(ConfigTree::parse(yaml, "train.yaml", {}), section);
  section.optimizer.validate();
  return section.optimizer;
}

TEST(OptimizerConfig, UnsetOptionsAreTheMethodsOwn) {
  EXPECT_EQ(read("").name, "adamw");
  EXPECT_EQ(*read("").beta2, 0.95);
  EXPECT_EQ(*read("optimizer: {name: lion}").beta2, 0.99);
  EXPECT_EQ(*read("optimizer: {name: lion, beta2: 0.5}").beta2, 0.5);
  EXPECT_EQ(*OptimizerConfig{.name = "adam"}.with_defaults().beta2, 0.999);
  EXPECT_EQ(*OptimizerConfig{.name = "sgd"}.with_defaults().momentum, 0.9);
  EXPECT_FALSE(OptimizerConfig{.name = "sgd"}.with_defaults().beta1);
}

TEST(OptimizerConfig, OptionsOfOtherMethodsAreRefusedWithTheirNames) {
  EXPECT_THAT(failure_of([] { read("optimizer:\n  momentum: 0.5\n"); }),
              AllOf(HasSubstr("train.yaml:2"), HasSubstr("optimizer.momentum"),
                    HasSubstr("sgd, adafactor, muon"), HasSubstr("optimizer.name is adamw")));
  EXPECT_THAT(failure_of([] { read("optimizer: {name: sgd, beta1: 0.9}"); }),
              AllOf(HasSubstr("adam, adamw, lamb, lion, muon"), Not(HasSubstr("adafactor"))));
  EXPECT_THAT(failure_of([] { OptimizerConfig{.name = "lion", .epsilon = 1e-8}.validate(); }),
              AllOf(HasSubstr("optimizer.epsilon"), HasSubstr("lion"), HasSubstr("adafactor")));
  EXPECT_THAT(failure_of([] { read("optimizer: {name: lamb, state: 8bit}"); }),
              AllOf(HasSubstr("sgd, adam, adamw, lion"), HasSubstr("lamb")));
}

TEST(OptimizerConfig, WhatIsWrittenIsReadBack) {
  for (const char* name : kNames) {
    Section section;
    section.optimizer.name = name;
    const std::string yaml = config_to_yaml(section);
    const OptimizerConfig again = read(yaml), expected = section.optimizer.with_defaults();
    EXPECT_EQ(again.name, name);
    EXPECT_EQ(again.beta1, expected.beta1) << yaml;
    EXPECT_EQ(again.beta2, expected.beta2) << yaml;
    EXPECT_EQ(again.momentum, expected.momentum) << yaml;
    EXPECT_EQ(again.epsilon, expected.epsilon) << yaml;
    EXPECT_EQ(again.weight_decay, expected.weight_decay) << yaml;
  }
}

TEST(OptimizerConfig, RefusesValuesOutOfRange) {
  for (const char* name : kNames) EXPECT_NO_THROW(OptimizerConfig{.name = name}.validate());
  EXPECT_THROW(OptimizerConfig{.beta1 = 1.0}.validate(), ConfigError);
  EXPECT_THROW(OptimizerConfig{.beta2 = -0.1}.validate(), ConfigError);
  EXPECT_THROW((OptimizerConfig{.name = "sgd", .momentum = 1.0}).validate(), ConfigError);
  EXPECT_THROW(OptimizerConfig{.epsilon = 0.0}.validate(), ConfigError);
  EXPECT_THROW(OptimizerConfig{.weight_decay = std::nan("")}.validate(), ConfigError);
  EXPECT_THROW(OptimizerConfig{.state = "4bit"}.validate(), ConfigError);
  EXPECT_THAT(failure_of([] { OptimizerConfig{.name = "adamv"}.validate(); }), HasSubstr("adamw"));
  EXPECT_THROW(OptimizerConfig{.name = "adamv"}.with_defaults(), ConfigError);
  EXPECT_THROW(read("optimizer: {name: adamv}"), ConfigError);
}

}  // namespace
}  // namespace trireme::optim
