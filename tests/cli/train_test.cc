// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `trireme train` from start to end, with real processes.

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"
#include "trireme/base/deadline.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

class TrainTest : public CliTest {};

TEST_F(TrainTest, AWorldOfOneLeavesACompleteRun) {
  const ProgramResult result = train("run");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("validation_loss"), std::string::npos) << result.out;
  for (const char* name : {"config.yaml", "metrics.jsonl", "summary.json", "tokenizer.json",
                           "checkpoints/step-00000012", "checkpoints/step-00000008"}) {
    EXPECT_TRUE(fs::exists(path("run/") + name)) << name;
  }
  EXPECT_FALSE(fs::exists(path("run/checkpoints/step-00000004"))) << "only the last two are kept";
  const auto steps = metrics("run", "loss");
  ASSERT_EQ(steps.size(), 12U);
  for (const char* name :
       {"step", "loss", "gradient_norm", "learning_rate", "tokens_per_s", "share_of_limit"}) {
    EXPECT_TRUE(steps[3].contains(name)) << name;
  }
  EXPECT_EQ(steps[3]["step"], 4);
  EXPECT_LT(steps.back()["loss"], steps.front()["loss"]);
  EXPECT_EQ(metrics("run", "validation_loss").size(), 3U);  // steps 5, 10 and the last
  const auto table = summary("run");
  EXPECT_EQ(table["tokens_seen"], 12 * 4 * 3 * 20);
  EXPECT_LT(table["validation_loss"], std::log(320.0)) << "better than a guess";
  std::size_t event_files = 0;
  for (const auto& entry : fs::directory_iterator(path("run"))) {
    event_files += entry.path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
  }
  EXPECT_EQ(event_files, 1U);
}

TEST_F(TrainTest, RecomputingChangesNoBit) {
  train_or_fail("none", {"--workers", "2"});
  EXPECT_NE(metrics("none", "loss").size(), 0U);
  for (const std::string mode : {"activations", "blocks"}) {
    train_or_fail(mode, {"--workers", "2", "compute.recompute=" + mode});
    EXPECT_EQ(losses(mode), losses("none")) << mode;
    EXPECT_EQ(weights(mode, 12), weights("none", 12)) << mode;
  }
  expect_refused(train("some", {"compute.recompute=some"}), {"compute.recompute", "activations"});
}

// Fifty steps, in f32 and with each stage of ZeRO: the optimizer's state too is the same.
TEST_F(TrainTest, ShardsTrainTheSameModelBitForBit) {
  const std::vector<std::string> fifty = {"train.steps=50", "evaluation.every=25",
                                          "checkpoint.every=25"};
  train_or_fail("alone", fifty);
  const auto optimizer = [&](const std::string& run) {
    return read_text(path(run) + "/checkpoints/step-00000050/optimizer.safetensors");
  };
  for (const std::string stage : {"0", "1", "2", "3"}) {
    for (const std::string workers : {"2", "4"}) {
      if (workers == "4" && stage != "3") continue;  // time; parallel/ has them
      std::vector<std::string> settings = fifty;
      // Several buckets; in stage 3 the least that gathered weights can do with.
      settings.insert(settings.end(), {"parallel.shard=" + stage, "parallel.bucket_bytes=20000",
                                       "parallel.prefetch=1", "--workers", workers});
      const std::string run = "stage" + stage + "x" + workers;
      train_or_fail(run, settings);
      EXPECT_EQ(losses(run), losses("alone")) << run;
      EXPECT_EQ(metrics(run, "validation_loss"), metrics("alone", "validation_loss")) << run;
      EXPECT_EQ(weights(run, 50), weights("alone", 50)) << run;
      EXPECT_EQ(optimizer(run), optimizer("alone")) << run;
    }
  }
}

TEST_F(TrainTest, CopiesOfAShardedModelTrainItBitForBit) {
  const auto optimizer = [&](const std::string& run) {
    return read_text(path(run) + "/checkpoints/step-00000012/optimizer.safetensors");
  };
  train_or_fail("alone", {});
  for (const std::string stage : {"1", "3"}) {  // time; parallel/ has the other
    const std::string run = "stage" + stage;
    train_or_fail(run, {"parallel.shard=" + stage, "parallel.shard_ranks=2",
                        "parallel.bucket_bytes=20000", "--workers", "4"});
    EXPECT_EQ(losses(run), losses("alone")) << run;
    EXPECT_EQ(metrics(run, "validation_loss"), metrics("alone", "validation_loss")) << run;
    EXPECT_EQ(weights(run, 12), weights("alone", 12)) << run;
    EXPECT_EQ(optimizer(run), optimizer("alone")) << run;
  }
}

// Whose matrices are updated whole, by ranks of each copy.
TEST_F(TrainTest, CopiesOfAShardedModelTrainItWithMuonToo) {
  train_or_fail("alone", {"optimizer.name=muon"});
  train_or_fail("copies", {"optimizer.name=muon", "parallel.shard=2", "parallel.shard_ranks=2",
                           "--workers", "4"});
  EXPECT_EQ(losses("copies"), losses("alone"));
  EXPECT_EQ(weights("copies", 12), weights("alone", 12));
}

TEST_F(TrainTest, AShardedRunGoesOnInAnyOtherLayout) {
  const std::vector<std::string> bf16 = {"train.dtype=bf16"};
  train_or_fail("whole", bf16);
  std::vector<std::string> first = {"train.dtype=bf16",       "train.steps=8", "parallel.shard=3",
                                    "parallel.shard_ranks=2", "--workers",     "4"};
  train_or_fail("parts", first);
  train_or_fail("parts", {"train.dtype=bf16", "train.steps=12", "parallel.shard=1", "--workers",
                          "2", "--resume", "compute.recompute=blocks"});
  // The schedule of the first eight steps was another: only what both wrote is compared.
  train_or_fail("again", first);
  train_or_fail("again", {"train.dtype=bf16", "train.steps=12", "--resume"});
  EXPECT_EQ(weights("parts", 12), weights("again", 12));
}

// What the methods keep, whole matrices and means among it, is the same model's in any layout.
TEST_F(TrainTest, EveryOptimizerTrainsAndGoesOnInAnyLayout) {
  const auto train_in_two = [&](const std::string& run, const std::string& optimizer,
                                std::vector<std::string> first, std::vector<std::string> second) {
    const std::vector<std::string> settings = {"optimizer.name=" + optimizer, "train.dtype=bf16",
                                               "schedule.decay=constant"};
    first.insert(first.end(), settings.begin(), settings.end());
    second.insert(second.end(), settings.begin(), settings.end());
    first.push_back("train.steps=4");
    second.insert(second.end(), {"train.steps=8", "--resume"});
    train_or_fail(run, first);
    train_or_fail(run, second);
  };
  for (const std::string optimizer : {"muon", "adafactor"}) {
    train_in_two(optimizer + "_alone", optimizer, {}, {});
    train_in_two(optimizer + "_parts", optimizer, {"parallel.shard=3", "--workers", "2"},
                 {"parallel.shard=1", "--workers", "4"});
    EXPECT_EQ(losses(optimizer + "_parts"), losses(optimizer + "_alone")) << optimizer;
    EXPECT_EQ(weights(optimizer + "_parts", 8), weights(optimizer + "_alone", 8)) << optimizer;
  }
  train_in_two("bytes_alone", "adamw", {"optimizer.state=8bit"}, {"optimizer.state=8bit"});
  train_in_two("bytes_parts", "adamw",
               {"optimizer.state=8bit", "parallel.shard=2", "--workers", "2"},
               {"optimizer.state=8bit"});
  EXPECT_EQ(weights("bytes_parts", 8), weights("bytes_alone", 8));
}

TEST_F(TrainTest, AnotherOptimizersCheckpointIsRefused) {
  train_or_fail("run", {"train.steps=4", "optimizer.name=lion"});
  expect_refused(train("run", {"train.steps=8", "optimizer.name=sgd", "--resume"}),
                 {"optimizer", "lion", "sgd"});
}

TEST_F(TrainTest, RefusesLayoutsThatCannotBe) {
  expect_refused(train("run", {"parallel.shard=4"}), {"parallel.shard", "4", "0, 1, 2 or 3"});
  expect_refused(train("run", {"parallel.shard_ranks=2", "--workers", "4"}),
                 {"parallel.shard_ranks", "parallel.shard is 0"});
  expect_refused(train("run", {"parallel.shard_ranks=auto", "--workers", "4"}),
                 {"parallel.shard_ranks is auto", "parallel.shard is 0"});
  expect_refused(train("run", {"parallel.shard=1", "parallel.shard_ranks=host", "--workers", "4"}),
                 {"parallel.shard_ranks", "a whole number or auto", "'host'"});
  expect_refused(train("run", {"parallel.shard=1", "parallel.shard_ranks=3", "--workers", "4"}),
                 {"4 ranks", "3 ranks each", "use 1, 2, 4"});
  expect_refused(train("run", {"parallel.shard=2", "batch.micro_batches=6", "--workers", "3"}),
                 {"3 ranks", "6 micro-batches", "power of two", "stage 1"});
  expect_refused(
      train("run", {"parallel.shard=3", "parallel.gather_budget_bytes=1000", "--workers", "2"}),
      {"budget", "1000"});
  EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(TrainTest, RefusesF16AndSaysWhereItWorks) {
  expect_refused(train("run", {"train.dtype=f16"}), {"train.dtype is f16", "bf16", "LossScale"});
  EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(TrainTest, SeparateDocumentsArePartOfTheModel) {
  std::filesystem::remove_all(text());
  write_corpus(text(), 150, 1);  // several to a sample
  const std::string separate = "model.separate_documents=true";
  train_or_fail("joined");
  train_or_fail("one", {separate});
  train_or_fail("two", {separate, "--workers", "2", "compute.recompute=blocks"});
  EXPECT_EQ(losses("one"), losses("two"));
  EXPECT_NE(losses("one"), losses("joined"));
  const auto evaluated = [&](const char* run) {
    const ProgramResult result = run_program({kTrireme, "eval", path(run), text(), "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out)["loss"].get<double>();
  };
  // A model whose attention saw one document must not be evaluated on more.
  EXPECT_EQ(evaluated("one"), evaluated("two"));
  EXPECT_NE(read_text(path("one") + "/checkpoints/step-00000012/model.yaml")
                .find("separate_documents: true"),
            std::string::npos);
  expect_refused(train("one", {"--resume", "model.separate_documents=false"}),
                 {"model.separate_documents", "false", "true"});
}

TEST_F(TrainTest, MemoryIsEstimatedBeforeItIsTaken) {
  const ProgramResult result = train("run", {"train.steps=2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("memory: about "), std::string::npos) << result.err;
  // 130 TB of weights.
  const ProgramResult refused =
      train("large", {"--workers", "2", "model.layers=40000", "model.width=8190"});
  expect_refused(refused, {"a worker needs about", "GB", "the 2 on this host", "are available",
                           "compute.recompute=blocks"});
  EXPECT_FALSE(fs::exists(path("large")));
}

TEST_F(TrainTest, MemoryIsToldByCategory) {
  const ProgramResult result = train("run", {"train.steps=6"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto steps = metrics("run", "loss");
  ASSERT_EQ(steps.size(), 6U);
  // Weights, in whole blocks of 4096 elements (of two units and four parameters of none), and two
  // moments of as much; the gradient, and its sum over four micro-batches in log2(4) buffers.
  const std::int64_t parameters = 4 * summary("run")["parameters"].get<std::int64_t>();
  for (std::size_t i = 1; i < steps.size(); ++i) {
    const auto bytes = [&](const std::string& key) { return steps[i].at(key).get<std::int64_t>(); };
    const std::int64_t weights = bytes("memory_peak_weights_bytes");
    EXPECT_GE(weights, parameters);
    EXPECT_LT(weights, parameters + 6 * 4 * 4096);
    EXPECT_EQ(bytes("memory_peak_optimizer_bytes"), 2 * weights);
    EXPECT_EQ(bytes("memory_peak_gradients_bytes"), 3 * weights);
    EXPECT_GT(bytes("memory_peak_activations_bytes"), 0);
    EXPECT_EQ(bytes("memory_peak_bytes"), weights + bytes("memory_peak_optimizer_bytes") +
                                              bytes("memory_peak_gradients_bytes") +
                                              bytes("memory_peak_activations_bytes") +
                                              bytes("memory_peak_workspace_bytes"));
    EXPECT_LE(bytes("memory_current_bytes"),
              bytes("memory_peak_bytes") - bytes("memory_peak_activations_bytes") + 4096);
    EXPECT_EQ(bytes("memory_current_bytes"), steps[1].at("memory_current_bytes")) << "no leak";
  }
  EXPECT_GE(summary("run")["memory_peak_bytes"], steps[3]["memory_peak_bytes"]);
  EXPECT_NE(result.err.find(" MiB at the peak of a step (weights 0."), std::string::npos)
      << result.err;
}

TEST_F(TrainTest, TheNumberOfWorkersIsNotPartOfTheResult) {
  train_or_fail("one");
  train_or_fail("two", {"--workers", "2"});
  train_or_fail("four", {"--workers", "4"});
  ASSERT_EQ(losses("one").size(), 12U);
  EXPECT_EQ(losses("one"), losses("two"));
  EXPECT_EQ(losses("one"), losses("four"));
  EXPECT_EQ(weights("one", 12), weights("two", 12));
  EXPECT_EQ(weights("one", 12), weights("four", 12));
  EXPECT_EQ(summary("one")["validation_loss"], summary("four")["validation_loss"]);
  EXPECT_EQ(summary("two")["workers"], 2);
}

TEST_F(TrainTest, TheNumberOfThreadsIsNotPartOfTheResult) {
  for (const std::string dtype : {"f32", "bf16"}) {
    const auto with = [&](const char* threads) {
      return std::vector<std::string>{"train.dtype=" + dtype,
                                      std::string("compute.threads=") + threads};
    };
    const std::string one = dtype + "_one", three = dtype + "_three";
    train_or_fail(one, with("1"));
    train_or_fail(three, with("3"));
    ASSERT_EQ(losses(one).size(), 12U);
    EXPECT_EQ(losses(one), losses(three)) << dtype;
    EXPECT_EQ(weights(one, 12), weights(three, 12)) << dtype;
  }
}

TEST_F(TrainTest, GlooAndThreeWorkersGiveTheSameResultToo) {
  const std::vector<std::string> six = {"batch.micro_batches=6", "batch.micro_batch_size=2"};
  const auto with = [&six](std::vector<std::string> more) {
    more.insert(more.begin(), six.begin(), six.end());
    return more;
  };
  train_or_fail("one", six);
  train_or_fail("two", with({"--workers", "2", "parallel.engine=gloo"}));
  train_or_fail("three", with({"--workers", "3"}));
  EXPECT_EQ(weights("one", 12), weights("two", 12));
  EXPECT_EQ(weights("one", 12), weights("three", 12));
}

TEST_F(TrainTest, Bf16LearnsWithLlamaToo) {
  const std::vector<std::string> llama = {"model.family=llama", "model.heads=4",
                                          "model.kv_heads=2"};
  auto bf16 = llama;
  bf16.insert(bf16.end(), {"train.dtype=bf16", "--workers", "2"});
  train_or_fail("f32", llama);
  train_or_fail("bf16", bf16);
  const double f32_loss = summary("f32")["validation_loss"];
  EXPECT_NEAR(summary("bf16")["validation_loss"], f32_loss, 0.02 * f32_loss);
  EXPECT_NE(weights("f32", 12), weights("bf16", 12)) << "bf16 must really compute in bf16";
}

TEST_F(TrainTest, ResumeIsExactOnAnotherNumberOfWorkers) {
  train_or_fail("whole");
  train_or_fail("parts", {"--workers", "2"});
  // Back to step 8, as if killed after it.
  fs::remove_all(path("parts/checkpoints/step-00000012"));
  const ProgramResult result = train("parts", {"--resume", "--workers", "4"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("resuming from"), std::string::npos) << result.err;
  EXPECT_EQ(losses("parts"), losses("whole")) << "each step once, from before and after";
  EXPECT_EQ(weights("parts", 12), weights("whole", 12));
}

// A guard that finds about every second step bad: what it remembers is part of the checkpoint.
TEST_F(TrainTest, ResumeKeepsWhatTheGuardRemembers) {
  const std::vector<std::string> guard = {"guard.spike_factor=1", "guard.spike_window=2",
                                          "guard.max_consecutive=12", "schedule.decay=constant"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), guard.begin(), guard.end());
    return more;
  };
  const ProgramResult whole = train("whole", guard);
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_NE(whole.err.find("skipped: the gradient norm spikes"), std::string::npos) << whole.err;
  const std::int64_t skipped = metrics("whole", "loss").back()["skipped_spikes"];
  EXPECT_GE(skipped, 2);
  EXPECT_LE(skipped, 10);
  EXPECT_EQ(summary("whole")["skipped_spikes"], skipped);
  train_or_fail("parts", with({"train.steps=7"}));
  train_or_fail("parts", with({"train.steps=12", "--resume", "--workers", "2"}));
  const auto verdicts = [&](const std::string& out) {
    std::vector<std::pair<bool, std::int64_t>> result;
    for (const auto& step : metrics(out, "loss")) {
      result.emplace_back(step["skipped"], step["skipped_spikes"]);
    }
    return result;
  };
  EXPECT_EQ(verdicts("parts"), verdicts("whole"));
  EXPECT_EQ(losses("parts"), losses("whole"));
  EXPECT_EQ(weights("parts", 12), weights("whole", 12));
}

TEST_F(TrainTest, TheAverageOfTheWeightsIsEvaluatedAndKept) {
  const std::string constant = "schedule.decay=constant", decay = "train.average_decay=0.9";
  train_or_fail("plain", {constant});
  train_or_fail("whole", {constant, decay});
  EXPECT_EQ(losses("whole"), losses("plain")) << "training does not see the average";
  EXPECT_EQ(weights("whole", 12), weights("plain", 12));
  EXPECT_NE(summary("whole")["validation_loss"], summary("plain")["validation_loss"]);
  train_or_fail("parts", {constant, decay, "train.steps=7", "parallel.shard=3", "--workers", "2"});
  train_or_fail("parts", {constant, decay, "train.steps=12", "--resume"});
  const auto average = [&](const std::string& out) {
    return read_text(path(out) + "/checkpoints/step-00000012/average.safetensors");
  };
  EXPECT_EQ(average("parts"), average("whole"));
  EXPECT_NE(average("whole"), weights("whole", 12));
  EXPECT_EQ(summary("parts")["validation_loss"], summary("whole")["validation_loss"]);
  const auto eval_loss = [&](const std::vector<std::string>& more) {
    std::vector<std::string> argv = {kTrireme, "eval", path("whole"), text(), "--json"};
    argv.insert(argv.end(), more.begin(), more.end());
    const ProgramResult result = run_program(argv);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out)["loss"].get<double>();
  };
  EXPECT_NE(eval_loss({"--average"}), eval_loss({}));
  expect_refused(run_program({kTrireme, "generate", path("plain"), "--average"}),
                 {"holds no average", "train.average_decay"});
  expect_refused(train("wrong", {"train.average_decay=1"}), {"train.average_decay is 1"});
}

TEST_F(TrainTest, ResumeGoesOnPastTheOldEnd) {
  train_or_fail("run", {"schedule.decay=constant"});
  train_or_fail("run", {"schedule.decay=constant", "--resume", "train.steps=15"});
  train_or_fail("whole", {"schedule.decay=constant", "train.steps=15"});
  EXPECT_EQ(weights("run", 15), weights("whole", 15));
}

TEST_F(TrainTest, InitStartsFromAnotherRunsWeights) {
  train_or_fail("first");
  train_or_fail("second", {"train.init=" + path("first"), "train.steps=1"});
  EXPECT_LT(losses("second").front(), 0.7 * losses("first").front());
  EXPECT_EQ(read_text(path("first/tokenizer.json")), read_text(path("second/tokenizer.json")));
}

TEST_F(TrainTest, TrainsFromTokenizedShards) {
  const ProgramResult made = run_program({kTrireme, "tokenize", text(), "--out", path("tokens"),
                                          "--vocab-size", "320", "--validation-fraction", "0.1"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  train_or_fail("from_text");
  const ProgramResult result = run_program(
      {kTrireme, "train", config(), "data.tokens=" + path("tokens"), "out=" + path("from_tokens")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(losses("from_tokens"), losses("from_text"));
}

// Under torchrun's environment, without our launcher.
TEST_F(TrainTest, ReadsTorchrunsEnvironment) {
  train_or_fail("one");
  const auto environment = [](const std::string& rank) {
    return Program::Environment{{"RANK", rank},
                                {"WORLD_SIZE", "2"},
                                {"LOCAL_RANK", rank},
                                {"LOCAL_WORLD_SIZE", "2"},
                                {"MASTER_ADDR", "127.0.0.1"},
                                {"MASTER_PORT", "29641"}};
  };
  Program rank1(train_command("two"), environment("1"));
  Program rank0(train_command("two"), environment("0"));
  const ProgramResult result0 = rank0.wait(seconds(60));
  const ProgramResult result1 = rank1.wait(seconds(60));
  ASSERT_EQ(result0.exit_code, 0) << result0.err;
  ASSERT_EQ(result1.exit_code, 0) << result1.err;
  EXPECT_EQ(weights("one", 12), weights("two", 12));
}

TEST_F(TrainTest, TheRequiredGainIsChecked) {
  const ProgramResult result = train("run", {"evaluation.required_gain=50"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("evaluation.required_gain asks for 50"), std::string::npos)
      << result.err;
  EXPECT_TRUE(fs::exists(path("run/summary.json")));
}

}  // namespace
}  // namespace trireme::testing
