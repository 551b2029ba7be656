// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The subcommands beside train.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

class CommandsTest : public CliTest {};

TEST_F(CommandsTest, EveryCommandExplainsItselfWithAnExample) {
  EXPECT_EQ(run_program({kTrireme, "--help"}).exit_code, 0);
  EXPECT_EQ(run_program({kTrireme, "--version"}).exit_code, 0);
  for (const char* command : {"train", "launch", "serve-parameters", "simulate", "tokenize",
                              "generate", "eval", "doctor", "bench"}) {
    const ProgramResult result = run_program({kTrireme, command, "--help"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_NE(result.out.find("Example:"), std::string::npos) << command << result.out;
  }
}

TEST_F(CommandsTest, EvalOfTheTrainingText) {
  train_or_fail("run", {"train.steps=40"});
  const ProgramResult result = run_program({kTrireme, "eval", path("run"), text(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto table = nlohmann::json::parse(result.out);
  const double loss = table["loss"];
  EXPECT_NEAR(table["perplexity"], std::exp(loss), 1e-9 * std::exp(loss));
  EXPECT_NEAR(loss, summary("run")["validation_loss"], 0.5);
  EXPECT_LT(loss, table["unigram_entropy"]);
  EXPECT_EQ(table["step"], 40);
  EXPECT_EQ(table["files"], 12);
  EXPECT_GT(table["bits_per_byte"], 0.1);
}

TEST_F(CommandsTest, GenerateRepeatsItselfBySeedAlone) {
  train_or_fail("run", {"train.steps=40"});
  const auto generate = [this](const std::vector<std::string>& more) {
    std::vector<std::string> argv = {kTrireme, "generate", path("run"), "--tokens", "50"};
    argv.insert(argv.end(), more.begin(), more.end());
    const ProgramResult result = run_program(argv);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  const std::string text = generate({"--prompt", "alpha bravo "});
  EXPECT_TRUE(text.starts_with("alpha bravo ")) << text;
  EXPECT_GT(text.size(), 40U) << "past the context of 20 tokens";
  EXPECT_EQ(generate({"--prompt", "alpha bravo "}), text);
  EXPECT_NE(generate({"--prompt", "alpha bravo ", "--seed", "2"}), text);
  const std::string greedy = generate({"--temperature", "0"});
  EXPECT_EQ(generate({"--temperature", "0", "--seed", "9"}), greedy);
  EXPECT_EQ(generate({"--top-k", "1"}), greedy);
  EXPECT_EQ(generate({"--top-p", "0.000001"}), greedy);
}

TEST_F(CommandsTest, TokenizeReportsWhatItSkipped) {
  write_text(path("text/zero"), "");
  write_text(path("text/nul"), std::string("a\0b", 3));
  const std::vector<std::string> command = {kTrireme,       "tokenize",     text(), "--out",
                                            path("tokens"), "--vocab-size", "300"};
  const ProgramResult result = run_program(command);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("empty"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("binary"), std::string::npos) << result.err;
  EXPECT_EQ(run_program(command).exit_code, 0) << "the same again is no work and no mistake";
}

TEST_F(CommandsTest, DoctorTellsWhatMattersForSpeed) {
  const ProgramResult result = run_program({kTrireme, "doctor"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* word : {"LibTorch", "oneDNN", "cores", "vector units", "BLAS", "GFLOP/s", "GB/s",
                           "engines", "shm", "gloo"}) {
    EXPECT_NE(result.out.find(word), std::string::npos) << word << "\n" << result.out;
  }
}

TEST_F(CommandsTest, BenchTokenizerAsJson) {
  const ProgramResult result =
      run_program({kTrireme, "bench", "tokenizer", "--text", text(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto record = nlohmann::json::parse(result.out);
  EXPECT_GT(record["encode_mb_per_s"], 0.0);
}

}  // namespace
}  // namespace trireme::testing
