// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every mesh of dp, ep, cp and tp of up to 8 ranks trains the model of one.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/mesh_training.h"
#include "tests/support/ranks.h"

namespace trireme {
namespace {

using testing::expect_trains_as_one_rank;
using testing::meshes_of;
using testing::MeshRun;
using testing::run_threads;
using testing::trained_whole;

TEST(MeshLayouts, OfOneTwoAndFourRanks) {
  for (const int ranks : {1, 2, 4}) {
    for (const MeshRun& run : meshes_of(ranks)) expect_trains_as_one_rank(run);
  }
}

TEST(LargeMeshLayouts, OfEightRanks) {
  for (const MeshRun& run : meshes_of(8)) expect_trains_as_one_rank(run);
}

// Experts and those that all tokens share are whole on ranks of tp, and are not summed.
TEST(MeshLayouts, ExchangesBesideProductsOfModelsWithExperts) {
  expect_trains_as_one_rank({.family = "experts", .tp = 2, .chunks = 2, .steps = 5});
  expect_trains_as_one_rank({.family = "experts", .ep = 2, .tp = 2, .chunks = 3, .steps = 5});
}

// A kind of mistake for each axis is seen.
TEST(MeshLayouts, MistakesShow) {
  const testing::TrainedSteps& expected = trained_whole("experts", 20);
  const auto differs = [&](MeshRun run) {
    run.family = "experts";
    run.steps = 1;
    run_threads(run.dp * run.ep * run.cp * run.tp, [&](Group& world) {
      EXPECT_GT(testing::train_parts(world, run, expected), 1e-3) << run.text();
    });
  };
  differs({.ep = 2, .spoil = [](ModelParts& parts) { parts.partial.pop_back(); }});
  differs({.ep = 2, .tp = 2, .spoil = [](ModelParts& parts) { parts.counted_elsewhere.clear(); }});
  differs({.ep = 2, .cp = 2, .spoil = [](ModelParts& parts) {
             parts.partial.back().parameters.pop_back();
           }});
}

}  // namespace
}  // namespace trireme
