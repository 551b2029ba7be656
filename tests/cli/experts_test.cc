// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `trireme train` of models of experts, on one worker and several.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

class ExpertsTest : public CliTest {
 protected:
  // Settings for the command line, and more.
  static std::vector<std::string> with(std::vector<std::string> settings,
                                       const std::vector<std::string>& more) {
    settings.insert(settings.end(), more.begin(), more.end());
    return settings;
  }
  static std::vector<std::string> mixtral(const std::vector<std::string>& more = {}) {
    return with(
        {"model.experts.count=5", "model.experts.width=40", "model.experts.z_coefficient=0.001"},
        more);
  }
  static std::vector<std::string> deepseek(const std::vector<std::string>& more = {}) {
    return with(
        {"model.family=llama", "model.width=36", "model.experts.count=6", "model.experts.width=24",
         "model.experts.shared=1", "model.experts.first_dense=1", "model.experts.score=sigmoid",
         "model.experts.balance=bias", "model.experts.bias_speed=0.01"},
        more);
  }
  std::string router_bias(const std::string& out, int step) const {
    char name[32];
    std::snprintf(name, sizeof name, "step-%08d", step);
    return read_text(path(out) + "/checkpoints/" + name + "/router_bias.safetensors");
  }
};

TEST_F(ExpertsTest, TheNumberOfWorkersAndWhatTheyShareAreNotPartOfTheResult) {
  train_or_fail("mixtral", mixtral());
  train_or_fail("deepseek", deepseek());
  EXPECT_LT(summary("mixtral")["validation_loss"], std::log(320.0)) << "better than a guess";
  EXPECT_LT(summary("deepseek")["validation_loss"], std::log(320.0));
  EXPECT_GT(router_bias("deepseek", 12), "");
  EXPECT_NE(router_bias("deepseek", 12), router_bias("deepseek", 8)) << "it moves";
  for (const std::vector<std::string>& layout :
       {std::vector<std::string>{"--workers", "2", "compute.recompute=activations"},
        {"--workers", "4", "parallel.shard=1"},
        {"--workers", "2", "parallel.shard=2", "compute.recompute=blocks"},
        {"--workers", "2", "parallel.shard=3", "compute.recompute=blocks"}}) {
    fs::remove_all(path("other"));
    train_or_fail("other", mixtral(layout));
    EXPECT_EQ(losses("other"), losses("mixtral"));
    EXPECT_EQ(weights("other", 12), weights("mixtral", 12));
    fs::remove_all(path("other"));
    train_or_fail("other", deepseek(layout));
    EXPECT_EQ(losses("other"), losses("deepseek"));
    EXPECT_EQ(weights("other", 12), weights("deepseek", 12));
    EXPECT_EQ(router_bias("other", 12), router_bias("deepseek", 12));
  }
}

TEST_F(ExpertsTest, ARunGoesOnWithItsBiasesAndGenerates) {
  const std::vector<std::string> constant = {"schedule.decay=constant", "optimizer.name=muon"};
  train_or_fail("whole", deepseek(constant));
  train_or_fail("parts", deepseek(with(constant, {"train.steps=7"})));
  train_or_fail("parts",
                deepseek(with(constant, {"train.steps=12", "--resume", "--workers", "2"})));
  EXPECT_EQ(losses("parts"), losses("whole"));
  EXPECT_EQ(weights("parts", 12), weights("whole", 12));
  EXPECT_EQ(router_bias("parts", 12), router_bias("whole", 12));
  const ProgramResult sample =
      run_program({kTrireme, "generate", path("whole"), "--prompt", "alpha", "--tokens", "9"});
  EXPECT_EQ(sample.exit_code, 0) << sample.err;
  EXPECT_NE(sample.out, "");
}

TEST_F(ExpertsTest, Bf16WithDroppedTokensTrainsToo) {
  const std::vector<std::string> settings =
      mixtral({"train.dtype=bf16", "model.experts.capacity_factor=1.0", "model.experts.every=2"});
  train_or_fail("one", settings);
  EXPECT_LT(summary("one")["validation_loss"], std::log(320.0));
  train_or_fail("two", with(settings, {"--workers", "2"}));
  EXPECT_EQ(losses("two"), losses("one"));
  EXPECT_EQ(weights("two", 12), weights("one", 12));
}

TEST_F(ExpertsTest, RefusesWhatDoesNotFitInOneLine) {
  expect_refused(train("a", {"model.experts.count=3", "model.experts.top_k=4"}),
                 {"model.experts.top_k is 4", "3 experts"});
  expect_refused(train("b", {"model.experts.number=3"}), {"number", "count"});
  expect_refused(train("c", deepseek({"parallel.ps.servers=1"})),
                 {"model.experts.balance is bias", "parallel.ps.servers"});
}

}  // namespace
}  // namespace trireme::testing
