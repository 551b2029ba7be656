// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme train with matrices, sequences and experts cut across workers: the run of one process
// alone, but for rounding.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"
#include "trireme/checkpoint/safetensors.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

// f32 rounds by 6e-8 in each of some ten operations between a weight and its gradient, and adamw's
// first steps divide a gradient by its own size, which may make an error of it as large as the
// learning rate, 0.01, where the gradient is near zero. So losses agree to 1e-4, and weights as a
// whole to a hundredth.
constexpr double kLossBound = 1e-4, kWeightBound = 1e-2;

class ModelParallelTrainingTest : public CliTest {
 protected:
  void expect_the_run_of_one(const std::string& out, const std::string& alone) {
    const std::vector<double> expected = losses(alone), found = losses(out);
    ASSERT_EQ(expected.size(), 12U);
    ASSERT_EQ(found.size(), 12U);
    for (std::size_t i = 0; i < 12; ++i) {
      EXPECT_NEAR(found[i], expected[i], kLossBound * expected[i]) << out << ", step " << i;
    }
    EXPECT_LT(weights_difference(out, alone), kWeightBound) << out;
    const auto evaluations = metrics(out, "validation_loss"),
               theirs = metrics(alone, "validation_loss");
    ASSERT_EQ(evaluations.size(), theirs.size());
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      const double loss = theirs[i]["validation_loss"];
      EXPECT_NEAR(evaluations[i]["validation_loss"], loss, kLossBound * loss) << out;
    }
  }

  // Of the last checkpoints: the norm of the difference over that of the weights. 1 where tensors
  // differ in name or shape.
  double weights_difference(const std::string& out, const std::string& other) const {
    const std::string name = "/checkpoints/step-00000012/model.safetensors";
    const SafetensorsFile a(path(out) + name), b(path(other) + name);
    if (a.tensors().size() != b.tensors().size()) return 1;
    double squares = 0, all = 0;
    for (const auto& [tensor_name, expected] : b.tensors()) {
      const TensorView& found = a.at(tensor_name);
      if (found.shape != expected.shape) return 1;
      for (std::size_t i = 0; i < expected.bytes.size(); i += sizeof(float)) {
        float left = 0, right = 0;
        std::memcpy(&left, found.bytes.data() + i, sizeof left);
        std::memcpy(&right, expected.bytes.data() + i, sizeof right);
        squares += std::pow(double{left} - double{right}, 2);
        all += std::pow(double{right}, 2);
      }
    }
    return std::sqrt(squares / all);
  }
};

TEST_F(ModelParallelTrainingTest, EveryMeshTrainsTheModelOfOne) {
  train_or_fail("alone");
  const std::vector<std::vector<std::string>> meshes = {
      {"parallel.tp=2"},
      {"parallel.tp=3", "parallel.sequence=true", "parallel.tp_chunks=2"},
      {"parallel.tp=2", "parallel.dp=2", "parallel.shard=3", "parallel.sequence=true",
       "compute.recompute=blocks"},
      {"parallel.cp=2", "--workers", "4", "parallel.shard=2", "compute.recompute=activations"},
      {"parallel.cp=3", "parallel.cp_method=ulysses", "parallel.shard=1"},
      {"parallel.cp=2", "parallel.tp=3", "parallel.sequence=true"}};
  for (std::size_t i = 0; i < meshes.size(); ++i) {
    const std::string out = "mesh" + std::to_string(i);
    train_or_fail(out, meshes[i]);
    expect_the_run_of_one(out, "alone");
  }
}

TEST_F(ModelParallelTrainingTest, EveryMeshTrainsTheExpertsOfOne) {
  const auto with = [](std::vector<std::string> more) {
    more.insert(more.end(), {"model.experts.count=5", "model.experts.width=16",
                             "model.experts.shared=1", "model.experts.balance=bias"});
    return more;
  };
  train_or_fail("alone", with({}));
  const std::vector<std::vector<std::string>> meshes = {
      {"parallel.ep=2"},
      {"parallel.ep=2", "parallel.dp=2", "parallel.shard=3", "compute.recompute=blocks"},
      {"parallel.ep=2", "parallel.cp=2", "parallel.tp=2"}};
  for (std::size_t i = 0; i < meshes.size(); ++i) {
    const std::string out = "mesh" + std::to_string(i);
    train_or_fail(out, with(meshes[i]));
    expect_the_run_of_one(out, "alone");
  }
  train_or_fail("moved", with({"parallel.ep=4", "train.steps=8"}));
  train_or_fail("moved", with({"--resume", "parallel.tp=3", "train.steps=12"}));
  train_or_fail("parts", with({"train.steps=8"}));
  train_or_fail("parts", with({"--resume", "train.steps=12"}));
  expect_the_run_of_one("moved", "parts");
}

TEST_F(ModelParallelTrainingTest, CheckpointsGoFromMeshToMesh) {
  const std::vector<std::string> common = {"train.average_decay=0.9", "train.dropout=0.1",
                                           "model.family=llama"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  train_or_fail("alone", with({}));
  train_or_fail("moved", with({"train.steps=4"}));
  train_or_fail("moved",
                with({"train.steps=8", "--resume", "parallel.tp=3", "parallel.sequence=true"}));
  train_or_fail("moved", with({"train.steps=12", "--resume", "parallel.tp=2", "parallel.dp=2",
                               "parallel.shard=3"}));
  // Learning rates follow the steps that are left, so the parts have theirs.
  train_or_fail("parts", with({"train.steps=4"}));
  train_or_fail("parts", with({"train.steps=8", "--resume"}));
  train_or_fail("parts", with({"train.steps=12", "--resume"}));
  expect_the_run_of_one("moved", "parts");
  train_or_fail("begun", with({"parallel.tp=2", "train.init=" + path("alone")}));
  EXPECT_LT(losses("begun")[0], losses("alone")[0] - 0.5) << "with the weights of another run";
}

TEST_F(ModelParallelTrainingTest, RefusesWhatDoesNotFit) {
  const auto refused = [&](const std::vector<std::string>& settings,
                           const std::vector<std::string>& words) {
    expect_refused(train("refused", settings), words);
    EXPECT_FALSE(std::filesystem::exists(path("refused")));
  };
  refused({"parallel.tp=0"}, {"parallel.tp is 0", "at least 1"});
  refused({"parallel.sequence=true"}, {"parallel.sequence is true", "parallel.tp is 1"});
  refused({"parallel.tp_chunks=2"}, {"parallel.tp_chunks is 2", "parallel.tp is 1"});
  refused({"parallel.tp=4"}, {"blocks.0.attn.q has 3 heads", "4 ranks of tp", "at most 3"});
  refused({"parallel.tp=2", "--workers", "3"},
          {"parallel.tp 2", "a multiple of 2 workers", "there are 3"});
  refused({"parallel.tp=2", "parallel.dp=3", "--workers", "4"},
          {"parallel.dp 3", "parallel.tp 2", "6 workers", "there are 4"});
  refused({"parallel.tp=2", "optimizer.name=muon"},
          {"optimizer.name is muon", "parallel.tp 2", "adamw"});
  refused({"parallel.tp=2", "parallel.ps.servers=1"}, {"parallel.tp 2", "parallel.ps.servers 1"});
  refused({"parallel.tp=2", "parallel.dp=3"}, {"3 workers cannot share 4 micro-batches"});
  refused({"parallel.cp=11"}, {"parallel.cp is 11", "model.context is 20", "at most 10"});
  refused({"parallel.cp=4", "parallel.cp_method=ulysses"},
          {"parallel.cp is 4", "ulysses", "3 heads", "ring"});
  refused({"parallel.cp_method=ulysses"}, {"parallel.cp_method is ulysses", "parallel.cp is 1"});
  refused({"parallel.cp=2", "parallel.tp=2", "parallel.cp_method=ulysses"},
          {"parallel.cp is 2", "1 heads", "ring"});
  refused({"parallel.cp=3", "parallel.dp=3", "batch.micro_batches=9"},
          {"parallel.dp 3 with parallel.cp 3 cannot share 9 micro-batches"});
  refused({"parallel.cp_method=round"}, {"parallel.cp_method", "round", "ring"});
  refused({"parallel.ep=2"}, {"parallel.ep is 2", "model.experts.count is 0"});
  refused({"parallel.ep=4", "model.experts.count=3"},
          {"parallel.ep is 4", "model.experts.count is 3", "at most 3"});
  refused({"parallel.ep=3", "model.experts.count=3"},
          {"batch.micro_batches is 4", "parallel.ep 3", "a multiple of 3"});
  refused({"parallel.cp=2", "model.experts.count=3"},
          {"parallel.cp is 2", "model.experts.balance loss", "bias"});
  refused({"parallel.tp=2", "parallel.sequence=true", "model.experts.count=3"},
          {"parallel.sequence is true", "model.experts.count is 3"});
  refused({"parallel.ep=2", "model.experts.count=3", "optimizer.name=adafactor"},
          {"optimizer.name is adafactor", "parallel.ep 2"});
  refused({"parallel.ep=2", "parallel.cp=2", "model.experts.count=3", "--workers", "6",
           "model.experts.balance=none"},
          {"parallel.ep 2 and parallel.cp 2", "a multiple of 4 workers", "there are 6"});
}

}  // namespace
}  // namespace trireme::testing
