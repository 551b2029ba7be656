// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models that are trained in stages, against the same on one rank: weights, the optimizer's state
// and norms bit for bit, whatever the schedule.

#include "tests/support/pipeline_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/error_text.h"

namespace trireme {
namespace {

using testing::expect_same_model;
using testing::pipeline_config;
using testing::train_on;
using testing::TrainedModel;

TrainConfig with_pipeline(TrainConfig config, int pp, const std::string& schedule) {
  config.parallel.pp = pp;
  config.parallel.pipeline.schedule = schedule;
  return config;
}

const std::vector<std::string>& schedules() {
  static const std::vector<std::string> names = {"gpipe", "1f1b", "interleaved",
                                                 "zb-h1", "zbv",  "dualpipev"};
  return names;
}

TEST(PipelineTraining, EveryScheduleTrainsTheSameBits) {
  for (const std::string tied : {"yes", "no"}) {
    const TrainConfig config = pipeline_config("gpt2", tied);
    const TrainedModel expected = train_on(1, config);
    for (const std::string& schedule : schedules()) {
      const std::string what = schedule + (tied == "yes" ? ", tied" : ", not tied");
      const TrainedModel found = train_on(2, with_pipeline(config, 2, schedule));
      EXPECT_EQ(found.losses, expected.losses) << what;
      expect_same_model(found, expected, what);
    }
  }
}

// Eight layers, so that schedules with two stages on a rank have one for each.
TEST(PipelineTraining, SoDoFourStages) {
  for (const std::string family : {"gpt2", "llama"}) {
    TrainConfig config = pipeline_config(family, family == "gpt2" ? "yes" : "no");
    config.model.layers = 8;
    config.train.steps = 20;
    const TrainedModel expected = train_on(1, config);
    for (const std::string& schedule : schedules()) {
      expect_same_model(train_on(4, with_pipeline(config, 4, schedule)), expected,
                        family + ", " + schedule);
    }
  }
}

TEST(PipelineTraining, WithEveryStageOfZeRO) {
  for (const std::string tied : {"yes", "no"}) {
    TrainConfig config = pipeline_config("llama", tied);
    config.train.steps = 6;
    config.train.average_decay = 0.7;
    const TrainedModel expected = train_on(1, config);
    for (const int stage : {0, 1, 2, 3}) {
      for (const std::string schedule : {"1f1b", "interleaved", "zb-h1", "zbv", "dualpipev"}) {
        TrainConfig sharded = with_pipeline(config, 2, schedule);
        sharded.parallel.shard = stage;
        expect_same_model(train_on(4, sharded), expected,
                          schedule + ", stage " + std::to_string(stage) + ", tied " + tied);
      }
    }
  }
}

// Gradients of the shared matrix come late and are exchanged between replicas beside others.
TEST(PipelineTraining, FourStagesOfATiedModelShareGradients) {
  TrainConfig config = pipeline_config("llama", "yes");
  config.train.steps = 3;
  const TrainedModel expected = train_on(1, config);
  for (const int stage : {2, 3}) {
    for (const std::string schedule : {"1f1b", "gpipe", "zb-h1"}) {
      TrainConfig sharded = with_pipeline(config, 4, schedule);
      sharded.parallel.shard = stage;
      expect_same_model(train_on(8, sharded), expected,
                        schedule + ", stage " + std::to_string(stage));
    }
  }
}

TEST(PipelineTraining, WithEveryOptimizer) {
  for (const std::string name : {"sgd", "lion", "lamb", "muon", "adafactor"}) {
    TrainConfig config = pipeline_config("gpt2");
    config.train.steps = 4;
    config.optimizer.name = name;
    const TrainedModel expected = train_on(1, config);
    TrainConfig cut = with_pipeline(config, 2, "zb-h1");
    cut.parallel.shard = 1;
    expect_same_model(train_on(4, cut), expected, name);
  }
}

TEST(PipelineTraining, WithRecomputationDropoutAndDocuments) {
  for (const std::string recompute : {"activations", "blocks"}) {
    TrainConfig config = pipeline_config("llama", "yes");
    config.train.steps = 5;
    config.train.dropout = 0.1;
    config.compute.recompute = recompute;
    config.model.separate_documents = true;
    config.batch.micro_batches = 6;  // whose tree is another one backwards
    const TrainedModel expected = train_on(1, config);
    for (const std::string schedule : {"1f1b", "zb-h1", "dualpipev"}) {
      expect_same_model(train_on(2, with_pipeline(config, 2, schedule)), expected,
                        recompute + ", " + schedule);
    }
  }
}

// Experts with biases that move, and a z-loss: each stage has its layers' share of it.
TEST(PipelineTraining, WithExperts) {
  TrainConfig config = pipeline_config("experts", "no");
  config.train.steps = 6;
  const TrainedModel expected = train_on(1, config);
  for (const std::string schedule : {"1f1b", "zb-h1", "zbv"}) {
    const TrainedModel found = train_on(2, with_pipeline(config, 2, schedule));
    expect_same_model(found, expected, schedule);
    for (std::size_t i = 0; i < expected.losses.size(); ++i) {
      EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-6) << schedule;  // a sum in other order
    }
  }
}

// Of whose routers' biases the last stage has none.
TEST(PipelineTraining, WithExpertsInTheFirstStageAlone) {
  TrainConfig first = pipeline_config("experts", "no");
  first.model.experts.first_dense = 0;
  first.model.experts.every = 3;  // blocks 2 of 0 .. 3
  first.model.resolve(0);
  first.train.steps = 2;
  first.parallel.pipeline.layers = {"3", "1"};
  const TrainedModel whole = train_on(1, [&] {
    TrainConfig alone = first;
    alone.parallel.pipeline.layers.clear();
    return alone;
  }());
  expect_same_model(train_on(2, with_pipeline(first, 2, "1f1b")), whole, "experts first");
}

// bf16: sums of the stream are rounded where stages meet, and chances of rounding are by place in
// the rank's own buffers.
TEST(PipelineTraining, InBf16ItTrainsNearlyTheSame) {
  TrainConfig config = pipeline_config("gpt2");
  config.train.dtype = "bf16";
  const TrainedModel expected = train_on(1, config);
  for (const std::string& schedule : schedules()) {
    const TrainedModel found = train_on(2, with_pipeline(config, 2, schedule));
    for (std::size_t i = 0; i < expected.losses.size(); ++i) {
      EXPECT_NEAR(found.losses[i], expected.losses[i], 5e-3) << schedule << ", step " << i;
    }
  }
}

}  // namespace
}  // namespace trireme
