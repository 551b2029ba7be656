// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme train with the layers of a model in stages: the files of a run of one process, byte for
// byte; and a checkpoint's model in stages, to evaluate and to write.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <regex>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

const std::vector<std::string> kSixBlocks = {"model.layers=6"};

class PipelineTrainingTest : public CliTest {
 protected:
  static std::vector<std::string> with(std::vector<std::string> more,
                                       const std::vector<std::string>& common = kSixBlocks) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  }
  std::string file(const std::string& out, int step, const std::string& name) const {
    char folder[32];
    std::snprintf(folder, sizeof folder, "step-%08d", step);
    return read_text(path(out) + "/checkpoints/" + folder + "/" + name);
  }
  void expect_the_run_of_one(const std::string& out, const std::string& alone, int step = 12) {
    EXPECT_EQ(losses(out), losses(alone)) << out;
    for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
      EXPECT_EQ(file(out, step, name), file(alone, step, name)) << out << ": " << name;
    }
    const auto evaluations = metrics(out, "validation_loss"),
               theirs = metrics(alone, "validation_loss");
    ASSERT_EQ(evaluations.size(), theirs.size());
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      EXPECT_EQ(evaluations[i]["validation_loss"], theirs[i]["validation_loss"]) << out;
    }
  }
};

TEST_F(PipelineTrainingTest, EverySchedulesFilesAreThoseOfOneProcess) {
  train_or_fail("alone", with({}));
  const std::vector<std::vector<std::string>> runs = {
      {"parallel.pp=2"},
      {"parallel.pp=3", "parallel.pipeline.schedule=zb-h1"},
      {"parallel.pp=3", "parallel.pipeline.schedule=zbv", "parallel.pipeline.balance=measure"},
      {"parallel.pp=2", "parallel.pipeline.schedule=interleaved", "parallel.pipeline.chunks=3"},
      {"parallel.pp=2", "parallel.pipeline.schedule=gpipe", "parallel.pipeline.layers=[1,5]"},
      {"parallel.pp=2", "parallel.dp=2", "parallel.shard=3",
       "parallel.pipeline.schedule=dualpipev"}};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::string out = "stages" + std::to_string(i);
    train_or_fail(out, with(runs[i]));
    expect_the_run_of_one(out, "alone");
  }
}

// A step's learning rate follows the steps that are left, so the parts have theirs.
TEST_F(PipelineTrainingTest, CheckpointsGoFromMeshToMesh) {
  const std::vector<std::string> common = {"model.layers=4", "model.family=llama",
                                           "train.average_decay=0.9", "train.dropout=0.1"};
  train_or_fail("moved", with({"train.steps=4", "parallel.pp=4"}, common));
  train_or_fail("moved", with({"train.steps=8", "--resume", "parallel.pp=2", "parallel.dp=2",
                               "parallel.shard=2", "parallel.pipeline.schedule=zb-h1"},
                              common));
  train_or_fail("moved", with({"train.steps=12", "--resume"}, common));
  train_or_fail("parts", with({"train.steps=4"}, common));
  train_or_fail("parts", with({"train.steps=8", "--resume"}, common));
  train_or_fail("parts", with({"train.steps=12", "--resume", "parallel.pp=2"}, common));
  expect_the_run_of_one("moved", "parts");
  EXPECT_EQ(file("moved", 12, "average.safetensors"), file("parts", 12, "average.safetensors"));
  train_or_fail("begun", with({"parallel.pp=2", "train.init=" + path("parts")},
                              {"model.layers=4", "model.family=llama"}));
  EXPECT_LT(losses("begun")[0], losses("parts")[0] - 0.5) << "with the weights of another run";
}

TEST_F(PipelineTrainingTest, AScheduleMayComeFromAFile) {
  train_or_fail("alone", with({}));
  // 1F1B of two ranks and four micro-batches, as PyTorch writes it.
  write_text(path("own.csv"),
             "0F0,0F1,,0B0,0F2,0B1,0F3,0B2,,0B3\n"
             ",1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3,\n");
  train_or_fail("own", with({"parallel.pp=2", "parallel.pipeline.schedule=" + path("own.csv")}));
  expect_the_run_of_one("own", "alone");
  write_text(path("wrong.csv"),
             "0F0,0F1,0B0,0F2,0B1,0F3,0B2,0B3\n1F0,1F1,1B0,1B1,1F2,1B2,1B3,1F3\n");
  expect_refused(
      train("refused", with({"parallel.pp=2", "parallel.pipeline.schedule=" + path("wrong.csv")})),
      {"rank 1", "1B3"});
  write_text(path("torn.csv"), "0F0,0F1\n1F0,1Q1\n");
  expect_refused(
      train("refused", with({"parallel.pp=2", "parallel.pipeline.schedule=" + path("torn.csv")})),
      {"torn.csv", "line 2", "1Q1"});
}

TEST_F(PipelineTrainingTest, RefusesWhatDoesNotFit) {
  const auto refused = [&](const std::vector<std::string>& settings,
                           const std::vector<std::string>& words) {
    expect_refused(train("refused", settings), words);
    EXPECT_FALSE(std::filesystem::exists(path("refused")));
  };
  refused({"parallel.pp=0"}, {"parallel.pp is 0", "at least 1"});
  refused({"parallel.pp=3"}, {"parallel.pp is 3", "model.layers is 2", "at most 2"});
  refused({"parallel.pp=2", "--workers", "3"}, {"parallel.pp 2", "a multiple of 2", "there are 3"});
  refused({"parallel.pipeline.schedule=gpipe"}, {"parallel.pipeline", "parallel.pp is 1"});
  refused({"parallel.pp=2", "parallel.pipeline.schedule=gpip"}, {"gpip", "gpipe", "1f1b"});
  refused({"parallel.pp=2", "parallel.pipeline.schedule=none.csv"}, {"none.csv"});
  refused({"parallel.pp=2", "parallel.pipeline.schedule=zbv"},
          {"4 stages", "model.layers is 2", "fewer ranks"});
  refused({"parallel.pp=2", "parallel.pipeline.layers=[2]"}, {"parallel.pipeline.layers", "2"});
  refused({"parallel.pp=2", "parallel.pipeline.layers=[1,x]"}, {"parallel.pipeline.layers", "'x'"});
  refused({"parallel.pp=2", "parallel.pipeline.schedule=streaming"}, {"streaming"});
  refused({"parallel.pp=2", "parallel.pipeline.chunks=2"}, {"1f1b", "1 chunk", "not 2"});
  refused({"parallel.pp=2", "parallel.ps.servers=1"}, {"parallel.pp 2", "parallel.ps.servers 1"});
  refused({"parallel.pp=2", "parallel.dp=3"}, {"3 workers cannot share 4 micro-batches"});
}

// Its rank and stage, and what each was at.
TEST_F(PipelineTrainingTest, AKilledStageIsNamedAndTheOthersStop) {
  Program program(train_command(
      "run", with({"train.steps=100000", "parallel.pp=3", "parallel.pipeline.schedule=zb-h1"})));
  await([&] { return metrics("run", "loss").size() > 2; });
  const std::vector<pid_t> workers = program.children();
  ASSERT_EQ(workers.size(), 3U);
  const Deadline deadline = Deadline::after(seconds(10));
  ::kill(workers[1], SIGKILL);
  const ProgramResult result = program.wait(deadline.remaining());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(std::regex_search(
      result.err, std::regex("rank [02] \\(stage [02]\\) was at [0-9]?[A-Z_]+[0-9]*, instruction")))
      << result.err;
  EXPECT_THAT(result.err, HasSubstr("rank 1 (stage 1) had"));
}

TEST_F(PipelineTrainingTest, ACheckpointEvaluatesAndWritesInStages) {
  train_or_fail("run", with({"model.context=64"}));
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), kTrireme);
    return run_program(arguments);
  };
  const std::vector<std::string> eval = {"eval", path("run"), text(), "--json"};
  const std::vector<std::string> generate = {"generate", path("run"), "--prompt",
                                             "alpha ",   "--tokens",  "90"};
  const ProgramResult loss = run(eval), written = run(generate);
  ASSERT_EQ(loss.exit_code, 0) << loss.err;
  ASSERT_GT(written.out.size(), 40U);
  for (const char* workers : {"2", "5"}) {
    EXPECT_EQ(run(with(eval, {"--workers", workers})).out, loss.out);
    EXPECT_EQ(run(with(generate, {"--workers", workers})).out, written.out);
  }
  expect_refused(run(with(generate, {"--workers", "7"})), {"7 stages", "model.layers is 6"});
  expect_refused(run(with(eval, {"--workers", "7"})), {"7 stages", "model.layers is 6"});
}

}  // namespace
}  // namespace trireme::testing
