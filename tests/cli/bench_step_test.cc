// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme bench step: its lines, what they add up to, bad input. No times.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

ProgramResult bench_step(std::vector<std::string> arguments, const std::string& model = "tiny") {
  std::vector<std::string> argv = {kTrireme,    "bench", "step",      "--model", model,
                                   "--warm-up", "1",     "--threads", "1"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(argv, std::chrono::seconds(120));
}

std::vector<nlohmann::json> rows(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<nlohmann::json> all;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line));
  return all;
}

std::vector<std::string> keys_of(const nlohmann::json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

double sum(const nlohmann::json& list, const char* key) {
  double total = 0;
  for (const nlohmann::json& one : list) total += one[key].get<double>();
  return total;
}

class BenchStep : public ::testing::TestWithParam<std::string> {};

TEST_P(BenchStep, PartsSumUpToTheStep) {
  const auto all = rows(bench_step({"--dtype", GetParam(), "--batch", "3", "--seq", "9", "--steps",
                                    "3", "--limit-seconds", "0.001", "--json"}));
  ASSERT_EQ(all.size(), 1U);
  const nlohmann::json& step = all[0];
  EXPECT_THAT(keys_of(step), ElementsAreArray({"accumulate",
                                               "activation_bytes",
                                               "activation_bytes_sent",
                                               "batch",
                                               "bytes_sent",
                                               "bytes_sent_between_replicas",
                                               "commit",
                                               "communication_ms",
                                               "communication_ms_p10",
                                               "communication_ms_p90",
                                               "cp",
                                               "cp_method",
                                               "dtype",
                                               "ep",
                                               "exposed_ms",
                                               "exposed_ms_p10",
                                               "exposed_ms_p90",
                                               "exposed_share",
                                               "flops_in_parts",
                                               "flops_per_step",
                                               "gflops_per_s",
                                               "limit_ms",
                                               "limit_optimizer_ms",
                                               "limit_products_ms",
                                               "loss",
                                               "machine",
                                               "matrix_share",
                                               "memory_gb_per_s",
                                               "model",
                                               "optimizer_bytes",
                                               "other_share",
                                               "parameters",
                                               "parts",
                                               "peak_bytes",
                                               "pp",
                                               "products",
                                               "ranks",
                                               "seq",
                                               "sequence",
                                               "shard",
                                               "shard_ranks",
                                               "share_of_limit",
                                               "state_bytes_per_parameter",
                                               "step_ms",
                                               "step_ms_p10",
                                               "step_ms_p90",
                                               "steps",
                                               "threads",
                                               "tokens_per_s",
                                               "tokens_per_s_p10",
                                               "tokens_per_s_p90",
                                               "tp",
                                               "tp_chunks",
                                               "warm_up",
                                               "weight_bytes"}));
  EXPECT_EQ(step["dtype"], GetParam());
  EXPECT_EQ(step["threads"], 1);
  EXPECT_GT(step["peak_bytes"], 0);
  const double step_ms = step["step_ms"];
  EXPECT_NEAR(sum(step["parts"], "ms"), step_ms, 1e-9 * step_ms);
  EXPECT_NEAR(sum(step["parts"], "share"), 1, 1e-9);
  EXPECT_NEAR(step["tokens_per_s"].get<double>() * step_ms, 27e3, 1e-3);
  EXPECT_EQ(step["parameters"], 67200);  // 9 learned positions
}

TEST_P(BenchStep, TheLimitIsProductsAndOptimizer) {
  const auto all = rows(bench_step({"--dtype", GetParam(), "--batch", "2", "--seq", "8", "--steps",
                                    "1", "--limit-seconds", "0.001", "--json"}));
  ASSERT_EQ(all.size(), 1U);
  const nlohmann::json& step = all[0];
  const double limit_ms = step["limit_ms"], products_ms = step["limit_products_ms"];
  EXPECT_NEAR(sum(step["products"], "limit_ms"), products_ms, 1e-9 * limit_ms);
  EXPECT_NEAR(products_ms + step["limit_optimizer_ms"].get<double>(), limit_ms, 1e-9 * limit_ms);
  EXPECT_NEAR(step["share_of_limit"].get<double>() * step["step_ms"].get<double>(), limit_ms,
              1e-9 * limit_ms);
  EXPECT_EQ(sum(step["products"], "flops"), step["flops_per_step"].get<double>());
  // f32: weight, gradient and two moments read, all but the gradient written.
  const double bytes = GetParam() == "f32" ? 28 : 30;
  EXPECT_EQ(step["optimizer_bytes"].get<double>(), bytes * step["parameters"].get<double>());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, BenchStep, ::testing::Values("f32", "bf16"),
                         [](const auto& dtype) { return dtype.param; });

TEST(BenchStepOutput, IsATableWithPartsAndProducts) {
  const ProgramResult result =
      bench_step({"--seq", "8", "--steps", "1", "--limit-seconds", "0.001"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* text : {"cores, commit ", "tokens/s", "of limit", "optimizer", "rest",
                           "[32, 48] x [192, 48]^T", "oneDNN"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
}

TEST(BenchStepOutput, SweepsOverTokensOrSequences) {
  const auto by_seq = rows(bench_step(
      {"--batch", "1", "--steps", "1", "--sweep", "seq", "--no-limit", "--json"}, "tiny-llama"));
  std::vector<int> seen;
  seen.reserve(by_seq.size());
  for (const nlohmann::json& row : by_seq) seen.push_back(row["seq"]);
  EXPECT_EQ(seen, (std::vector<int>{64, 128, 256, 512, 1024}));
  EXPECT_FALSE(by_seq.at(0).contains("limit_ms"));
  const ProgramResult by_batch =
      bench_step({"--seq", "4", "--steps", "1", "--sweep", "batch", "--no-limit"});
  EXPECT_EQ(by_batch.exit_code, 0) << by_batch.err;
  EXPECT_THAT(by_batch.out, HasSubstr("tokens/s"));
  EXPECT_EQ(std::count(by_batch.out.begin(), by_batch.out.end(), '\n'), 2 + 1 + 5);
}

// Of a model of whole blocks, so that what ranks keep and send is what the ZeRO paper's formulas
// say: 16 bytes for each parameter, of which the stages share 8, 12 and 16.
TEST(BenchStepWorkers, ShareStateAndTrafficAsTheStagesSay) {
  const std::vector<double> shared = {0, 8, 12, 16};
  double loss = 0;
  for (int stage = 0; stage <= 3; ++stage) {
    const auto all = rows(
        bench_step({"--batch", "1", "--seq", "8", "--steps", "2", "--workers", "2", "--accumulate",
                    "1", "--no-limit", "--json", "--shard", std::to_string(stage)}));
    ASSERT_EQ(all.size(), 1U) << "rank 0 alone prints";
    const nlohmann::json& step = all[0];
    if (stage == 0) loss = step["loss"];
    EXPECT_EQ(step["loss"].get<double>(), loss);
    EXPECT_EQ(step["ranks"], 2);
    // A tiny model: blocks of 4096 elements, one at least for each norm, are a quarter of it.
    const double whole = 16, expected = whole - shared[static_cast<std::size_t>(stage)] / 2;
    EXPECT_NEAR(step["state_bytes_per_parameter"].get<double>(), expected, 0.25 * expected);
    const double sent = step["bytes_sent"].get<double>() / step["parameters"].get<double>();
    EXPECT_NEAR(sent, stage < 3 ? 4 : 6, 1.3) << "stage " << stage;
  }
}

// With S = 2 ranks to a copy and R = 2 copies: what the stages say of two ranks, and of gradients
// 2 (R - 1) / R of a rank's half besides, between copies.
TEST(BenchStepWorkers, CopiesExchangeGradientsAlone) {
  const auto run = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--batch", "1", "--seq", "8", "--steps", "2", "--workers",
                                       "4", "--no-limit", "--json"});
    const auto all = rows(bench_step(arguments));
    return all.size() == 1 ? all[0] : nlohmann::json();
  };
  const nlohmann::json whole = run({"--shard", "1"});
  EXPECT_EQ(whole.at("shard_ranks"), 0);
  EXPECT_EQ(whole.at("bytes_sent_between_replicas"), 0);
  for (const std::string stage : {"1", "3"}) {
    const nlohmann::json step = run({"--shard", stage, "--shard-ranks", "2"});
    EXPECT_EQ(step.at("loss"), whole.at("loss"));
    EXPECT_EQ(step.at("ranks"), 4);
    EXPECT_EQ(step.at("shard_ranks"), 2);
    const double parameters = step.at("parameters");
    const double across = step.at("bytes_sent_between_replicas").get<double>() / parameters;
    EXPECT_NEAR(across, 2, 0.5) << "f32, and gaps";
    const double inside = step.at("bytes_sent").get<double>() / parameters - across;
    EXPECT_NEAR(inside, stage == "1" ? 4 : 6, 1.3);
  }
  const nlohmann::json host = run({"--shard", "2", "--shard-ranks", "auto"});
  EXPECT_EQ(host.at("shard_ranks"), 4) << "of one host";
  EXPECT_EQ(host.at("bytes_sent_between_replicas"), 0);
}

// tiny: 2 blocks of width 48, whose traffic docs/parallelism.md counts: 4 L + 2 exchanges each way
// of half of 3 x 64 tokens, 2 L more with sequence, and 16 bytes a token.
TEST(BenchStepWorkers, CutModelsHoldAndSendWhatTheFormulasSay) {
  const auto run = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(),
                     {"--batch", "3", "--seq", "64", "--steps", "2", "--no-limit", "--json"});
    const auto all = rows(bench_step(arguments));
    return all.size() == 1 ? all[0] : nlohmann::json();
  };
  const nlohmann::json one = run({});
  const double exchange = 3 * 64 * 48 * 4 / 2.0, layers = 2;
  const double once = 2 * (4 * layers + 2) * exchange + 16 * 3 * 64;
  // With sequence the gradients of positions, 2 L + 1 norms and 2 L biases are summed.
  const double again = 2 * layers * exchange + (64 + 2 * (2 * layers + 1) + 2 * layers) * 48 * 4;
  for (const bool sequence : {false, true}) {
    std::vector<std::string> arguments = {"--workers", "2", "--tp", "2"};
    if (sequence) arguments.emplace_back("--sequence");
    const nlohmann::json step = run(arguments);
    EXPECT_NEAR(step.at("loss"), one.at("loss"), 1e-4);
    EXPECT_NEAR(step.at("activation_bytes_sent"), once + (sequence ? again : 0), 1);
    EXPECT_EQ(step.at("sequence"), sequence);
    EXPECT_LT(step.at("weight_bytes"), 0.8 * one.at("weight_bytes").get<double>())
        << "half, positions, which are whole, and gaps of a model this small";
  }
  const nlohmann::json context = run({"--workers", "2", "--cp", "2"});
  EXPECT_NEAR(context.at("loss"), one.at("loss"), 1e-4);
  EXPECT_EQ(context.at("weight_bytes"), one.at("weight_bytes"));
  EXPECT_GT(context.at("activation_bytes_sent"), 0);
}

TEST(BenchStepInput, BadInputIsOneLine) {
  expect_refused(bench_step({}, "gpt5"), {"gpt5", "gpt2-124m", "tiny"});
  expect_refused(bench_step({"--dtype", "f16"}), {"f16", "f32", "bf16"});
  expect_refused(bench_step({"--batch", "0"}), {"--batch", "0"});
  expect_refused(bench_step({"--batch", "many"}), {"--batch", "many"});
  expect_refused(bench_step({"--batch", "1000000000"}), {"GB", "--batch"});
  expect_refused(bench_step({"--seq", "-3"}), {"--seq", "-3"});
  expect_refused(bench_step({"--steps", "0"}), {"--steps", "0"});
  expect_refused(bench_step({"--shard", "4"}), {"--shard", "4"});
  expect_refused(bench_step({"--shard-ranks", "2"}), {"--shard-ranks", "--shard is 0"});
  expect_refused(bench_step({"--shard", "1", "--shard-ranks", "some"}),
                 {"--shard-ranks", "some", "auto"});
  expect_refused(bench_step({"--shard", "1", "--shard-ranks", "-1"}), {"--shard-ranks", "-1"});
  expect_refused(bench_step({"--shard", "1", "--shard-ranks", "3", "--workers", "4"}),
                 {"4 ranks", "3 ranks each", "use 1, 2, 4"});
  expect_refused(bench_step({"--accumulate", "0"}), {"--accumulate", "0"});
  expect_refused(bench_step({"--sequence"}), {"--sequence", "--tp is 1"});
  expect_refused(bench_step({"--tp", "2", "--cp", "2", "--workers", "2"}),
                 {"--tp 2", "--cp 2", "a multiple of 4 ranks", "there are 2"});
  expect_refused(bench_step({"--ep", "2", "--workers", "2"}), {"ep is 2", "experts"});
  expect_refused(bench_step({"--cp-method", "square"}), {"--cp-method", "square"});
  expect_refused(bench_step({"--sweep", "width"}), {"width", "seq", "batch"});
  expect_refused(run_program({kTrireme, "bench", "step", "--threads", "0"}), {"--threads", "0"});
}

}  // namespace
}  // namespace trireme::testing
