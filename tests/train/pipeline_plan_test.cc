// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How a model is cut into stages, what its schedule is, and what is refused.

#include "trireme/train/pipeline_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/train/compare_schedules.h"
#include "trireme/train/memory_estimate.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TrainConfig config_of(int pp, const std::string& schedule = "1f1b") {
  TrainConfig config;
  config.model = testing::small_model_config("gpt2");
  config.model.layers = 7;
  config.model.resolve(0);
  config.batch = {.micro_batch_size = 3, .micro_batches = 6};
  config.parallel.pp = pp;
  config.parallel.pipeline.schedule = schedule;
  return config;
}

// A block takes 3 + 4 + 5, the embedding 2, the head 30.
constexpr LayerTimes kTimes{.embedding = {1, 1, 0}, .block = {3, 4, 5}, .head = {28, 1, 1}};

std::vector<std::int64_t> blocks_of(const PipelinePlan& plan) {
  std::vector<std::int64_t> blocks;
  for (const nn::TransformerPart& part : plan.stages) blocks.push_back(part.end - part.begin);
  return blocks;
}

void expect_error(const TrainConfig& config, const std::vector<std::string>& words) {
  try {
    plan_pipeline(config, 1, kTimes);
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    for (const std::string& word : words) EXPECT_THAT(error.what(), HasSubstr(word));
  }
}

TEST(PipelinePlanOf, TheHeadCountsAsItsTime) {
  // 3 blocks and the embedding 38, 3 blocks 36, a block and the head 42.
  const PipelinePlan plan = plan_pipeline(config_of(3), 1, kTimes);
  EXPECT_EQ(blocks_of(plan), (std::vector<std::int64_t>{3, 3, 1}));
  EXPECT_TRUE(plan.stages[0].embedding);
  EXPECT_FALSE(plan.stages[1].embedding || plan.stages[1].head);
  EXPECT_TRUE(plan.stages[2].head);
  EXPECT_EQ(plan.costs[0].forward_us, 10);
  EXPECT_EQ(plan.costs[2].forward_us, 31);
  EXPECT_EQ(plan.costs[2].backward_input_us, 5);
  EXPECT_EQ(plan.costs[2].backward_weight_us, 6);
}

TEST(PipelinePlanOf, BlocksMayBeGiven) {
  TrainConfig config = config_of(3);
  config.parallel.pipeline.layers = {"1", "4", "2"};
  EXPECT_EQ(blocks_of(plan_pipeline(config, 1, kTimes)), (std::vector<std::int64_t>{1, 4, 2}));
  config.parallel.pipeline.layers = {"1", "4", "3"};
  expect_error(config, {"parallel.pipeline.layers", "3 stages with 8 blocks", "7 blocks"});
  config.parallel.pipeline.layers = {"3", "4"};
  expect_error(config, {"2 stages with 7 blocks", "3 stages"});
}

TEST(PipelinePlanOf, EveryRankOfDpHasItsMicroBatches) {
  EXPECT_EQ(plan_pipeline(config_of(2), 1, kTimes).schedule.micro_batches, 6);
  EXPECT_EQ(plan_pipeline(config_of(2), 3, kTimes).schedule.micro_batches, 2);
}

TEST(PipelinePlanOf, SchedulesOfFilesMustFit) {
  const testing::TemporaryFolder folder;
  const std::string file = (folder.path() / "two.csv").string();
  testing::write_text(file, "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
  TrainConfig config = config_of(2, file);
  expect_error(config, {file, "for 2 ranks and 2 micro-batches", "has 6 micro-batches"});
  config.batch.micro_batches = 2;
  const PipelinePlan plan = plan_pipeline(config, 1, kTimes);
  EXPECT_EQ(plan.schedule.name, "two");
  EXPECT_FALSE(plan::only_compute(plan.schedule)) << "communication is added";
  config.parallel.pp = 3;
  expect_error(config, {"for 2 ranks", "parallel.pp is 3"});
}

TEST(PipelinePlanOf, RefusesFilesThatDoNotTrainThisRun) {
  const testing::TemporaryFolder folder;
  const std::string file = (folder.path() / "own.csv").string();
  TrainConfig config = config_of(2, file);
  config.batch.micro_batches = 1;
  testing::write_text(file, "0F0\n1F0\n");
  expect_error(config, {file, "no backward passes"});
  testing::write_text(file, "0F0,0SEND_F0\n1RECV_F0,1F0\n");
  expect_error(config, {file, "no backward passes"});
  const std::string first = "0F0,0SEND_F0,0RECV_B0,0B0,", last = "1RECV_F0,1F0,1B0,1SEND_B0,";
  testing::write_text(
      file, first + "0SEND_T0,0REDUCE_GRAD,STEP\n" + last + "1RECV_T0,1REDUCE_GRAD,STEP\n");
  EXPECT_EQ(plan_pipeline(config, 1, kTimes).schedule.name, "own");
  config.parallel.shard = 3;
  expect_error(config, {file, "no UNSHARD", "parallel.shard is 3"});
  config.parallel.shard = 0;
  config.model.tie_head = "no";
  config.model.resolve(0);
  expect_error(config, {file, "SEND_T", "matrix of its own"});
}

TEST(PipelinePlanOf, RefusesStagesWithoutBlocks) {
  expect_error(config_of(4, "interleaved"), {"8 stages", "model.layers is 7"});
  expect_error(config_of(2, "gpip"), {"gpip", "gpipe"});
}

TEST(PipelinePlanOf, EvaluationPassesOneMicroBatchForward) {
  const PipelinePlan plan = plan_pipeline(config_of(2, "zbv"), 1, kTimes);
  EXPECT_EQ(plan.evaluation.micro_batches, 1);
  EXPECT_FALSE(plan::has_backward(plan.evaluation));
  plan::verify_schedule(plan.evaluation, {}, {});
}

TEST(PipelinePlanOf, SchedulesAreComparedOnTheSameModel) {
  TrainConfig config = config_of(4, "zb-h1");
  config.model.layers = 8;
  config.parallel.pipeline.layers = {"1", "2", "2", "3"};
  const JobShape job{.ranks = 4};
  const std::vector<ScheduleOutlook> all = compare_schedules(config, job, 1, kTimes);
  ASSERT_EQ(all.size(), 6U);
  const PipelinePlan plan = plan_pipeline(config, 1, kTimes);
  for (const ScheduleOutlook& one : all) {
    EXPECT_EQ(one.chosen, one.name == "zb-h1");
    if (one.chosen) {
      EXPECT_EQ(one.step_us, plan.report.step_us);
      EXPECT_EQ(one.peak_bytes, estimate_memory(config, job).total());
    }
    EXPECT_EQ(one.refused, "") << one.name << ", of 4 stages or of 8, which are cut by time";
  }
  TrainConfig gpipe = config;
  gpipe.parallel.pipeline.schedule = "gpipe";
  EXPECT_EQ(all[0].step_us, plan_pipeline(gpipe, 1, kTimes).report.step_us) << "the same blocks";
  config.model.layers = 7;
  config.parallel.pipeline.layers.clear();
  for (const ScheduleOutlook& one : compare_schedules(config, job, 1, kTimes)) {
    const bool has_two = one.name == "interleaved" || one.name == "zbv" || one.name == "dualpipev";
    EXPECT_EQ(!one.refused.empty(), has_two) << one.name << ": " << one.refused;
  }
}

// Where the memory is: stored micro-batches, and what the last stage has beside its blocks.
TEST(PipelinePlanOf, MemoryFollowsTheSchedule) {
  const auto activations = [](const TrainConfig& config) {
    std::vector<std::int64_t> bytes;
    for (const MemorySplit& memory :
         pipeline_memory(config, {.ranks = 3}, plan_pipeline(config, 1, kTimes))) {
      bytes.push_back(memory[MemoryCategory::kActivations]);
    }
    return bytes;
  };
  const auto gpipe = activations(config_of(3, "gpipe")), one = activations(config_of(3));
  EXPECT_GT(gpipe[0], one[0] * 3 / 2) << "6 micro-batches, or 3";
  EXPECT_GT(one[0], one[1]);
  TrainConfig tied = config_of(3, "gpipe"), apart = tied;
  tied.model.tie_head = "yes";
  apart.model.tie_head = "no";
  const std::int64_t matrix = 4 * tied.model.vocab_size * tied.model.width;
  EXPECT_EQ(activations(tied)[2] - activations(apart)[2] > 4 * matrix, true)
      << "a gradient of each micro-batch waits for its rows";
}

}  // namespace
}  // namespace trireme
