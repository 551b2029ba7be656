// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Pipelines with every other kind of parallelism: a run on any mesh leaves the bits of the same
// mesh without the pipeline, which other tests hold against one rank (mesh_layouts_test.cc,
// mesh_sharded_test.cc). In the long set all meshes that a run may have, else a part.

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "tests/support/mesh_table.h"

namespace trireme {
namespace {

using testing::all_meshes;
using testing::MeshCase;
using testing::train_on;
using testing::TrainedModel;

// The schedule goes round with the meshes, and what else a run may have.
TrainConfig config_of(const MeshCase& mesh, std::size_t number) {
  static const std::vector<std::string> one_stage = {"1f1b", "gpipe", "zb-h1"};
  static const std::vector<std::string> two_stages = {"interleaved", "zbv", "dualpipev", "zb-h1",
                                                      "1f1b"};
  TrainConfig config = testing::mesh_config(mesh);
  config.train.steps = 3;
  if (mesh.pp > 1) {
    const auto& names = mesh.pp <= 4 ? two_stages : one_stage;
    config.parallel.pipeline.schedule = names[number % names.size()];
  }
  return config;
}

// Of the mesh alone, not of its place among others.
void add_options(TrainConfig& config, const MeshCase& mesh) {
  const int mark = mesh.dp + 2 * mesh.cp + 3 * mesh.tp + mesh.ep + mesh.shard;
  if (mesh.tp > 1 && !mesh.experts) config.parallel.sequence = mark % 2 == 0;
  if (mesh.cp > 1 && mark % 3 == 0) config.parallel.cp_method = "ulysses";
  if (mark % 4 == 1) config.compute.recompute = "blocks";
  if (mark % 4 == 3) config.train.dropout = 0.1;
  config.model.tie_head = mark % 5 < 2 ? "yes" : "no";
  config.model.resolve(0);
}

const TrainedModel& without_pipeline(const MeshCase& mesh) {
  static std::map<MeshCase, TrainedModel> known;
  const MeshCase other = mesh.without_pipeline();
  const auto [found, is_new] = known.try_emplace(other);
  if (is_new) {
    TrainConfig config = config_of(other, 0);
    add_options(config, other);
    found->second = train_on(other.ranks(), config);
  }
  return found->second;
}

void expect_trains(const MeshCase& mesh, std::size_t number) {
  TrainConfig config = config_of(mesh, number);
  add_options(config, mesh);
  const TrainedModel& expected = without_pipeline(mesh);
  const TrainedModel found = train_on(mesh.ranks(), config);
  const std::string what = mesh.text() + ", " + config.parallel.pipeline.schedule;
  ASSERT_EQ(found.losses.size(), expected.losses.size()) << what;
  for (std::size_t i = 0; i < expected.losses.size(); ++i) {
    EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-6) << what;
    EXPECT_NEAR(found.norms[i], expected.norms[i], 1e-12) << what;  // sums of ranks in f64
  }
  EXPECT_NEAR(found.evaluation, expected.evaluation, 1e-12) << what;
  ASSERT_EQ(found.tensors.size(), expected.tensors.size()) << what;
  for (const auto& [name, tensor] : expected.tensors) {
    EXPECT_TRUE(found.tensors.at(name).equal(tensor)) << what << ": " << name;
  }
}

bool is_long_set() { return std::getenv("RC_PARAMS") != nullptr; }

void expect_all_train(bool experts, std::size_t every) {
  std::size_t number = 0, tested = 0;
  for (const MeshCase& mesh : all_meshes(experts)) {
    if (mesh.pp == 1 || !testing::refusal(mesh).empty()) continue;
    if (number++ % every != 0 && !is_long_set()) continue;
    expect_trains(mesh, number);
    ++tested;
  }
  EXPECT_GT(tested, 3);
}

TEST(PipelineMeshes, OfADenseModelLeaveTheBitsOfTheMeshWithoutPipeline) {
  expect_all_train(false, 13);
}

TEST(PipelineMeshes, OfAModelWithExpertsToo) { expect_all_train(true, 23); }

// Axes that mesh_layouts_test.cc has up to 4 only.
TEST(PipelineMeshes, EightRanksOfOneAxisTrainAsOneRank) {
  for (MeshCase mesh : {MeshCase{.dp = 8}, MeshCase{.cp = 8}, MeshCase{.tp = 8},
                        MeshCase{.ep = 8, .experts = true}}) {
    for (mesh.shard = is_long_set() ? 0 : 3; mesh.shard <= 3; ++mesh.shard) {
      const TrainedModel found = train_on(8, config_of(mesh, 0));
      const TrainedModel expected =
          train_on(1, config_of({.shard = 0, .experts = mesh.experts}, 0));
      for (std::size_t i = 0; i < expected.losses.size(); ++i) {
        EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-5) << mesh.text();
      }
      for (const auto& [name, tensor] : expected.tensors) {
        if (name.starts_with(kOptimizerFile)) continue;
        // Three steps of Adam at 0.01, whose first goes by the sign of gradients near 0.
        EXPECT_TRUE(found.tensors.at(name).allclose(tensor, 1e-3, 1e-3))
            << mesh.text() << ": " << name;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
