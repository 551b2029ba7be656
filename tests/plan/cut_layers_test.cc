// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/cut_layers.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"
#include "trireme/plan/generate_schedule.h"

namespace trireme::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using trireme::testing::failure_of;

std::size_t at(int number) { return static_cast<std::size_t>(number); }

std::vector<LayerCost> layers_of(const std::vector<double>& times) {
  std::vector<LayerCost> layers(times.size());
  for (std::size_t layer = 0; layer < times.size(); ++layer) layers[layer].time_us = times[layer];
  return layers;
}

std::vector<int> stage_per_rank(int stages) {
  std::vector<int> placement(at(stages));
  std::iota(placement.begin(), placement.end(), 0);
  return placement;
}

// The slowest rank, the slowest stage, squares of ranks, squares of stages; nothing for a cut that
// does not fit.
using Score = std::tuple<double, double, double, double>;

std::optional<Score> score_of(const std::vector<LayerCost>& layers, const CutRequest& request,
                              const std::vector<int>& cut) {
  std::vector<double> times(request.rank_of_stage.size(), 0);
  std::vector<double> rank_times(times.size(), 0);
  std::vector<std::int64_t> bytes(times.size(), 0);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    std::size_t stage = cut.size() - 1;
    while (at(cut[stage]) > layer) --stage;
    const std::size_t rank = at(request.rank_of_stage[stage]);
    times[stage] += layers[layer].time_us;
    rank_times[rank] += layers[layer].time_us;
    bytes[rank] += layers[layer].weight_bytes;
    if (!request.stored.empty()) {
      bytes[rank] += request.stored[stage] * layers[layer].activation_bytes;
    }
  }
  for (std::size_t rank = 0; rank < request.memory_bytes.size(); ++rank) {
    if (bytes[rank] > request.memory_bytes[rank]) return std::nullopt;
  }
  const auto squares = [](const std::vector<double>& of) {
    return std::inner_product(of.begin(), of.end(), of.begin(), 0.0);
  };
  return Score{*std::max_element(rank_times.begin(), rank_times.end()),
               *std::max_element(times.begin(), times.end()), squares(rank_times), squares(times)};
}

// Of all cuts there are.
std::optional<Score> best_score(const std::vector<LayerCost>& layers, const CutRequest& request) {
  const std::size_t stages = request.rank_of_stage.size();
  std::optional<Score> best;
  std::vector<bool> starts(layers.size() - 1, false);  // whether a stage begins at layer i + 1
  std::fill(starts.end() - static_cast<std::ptrdiff_t>(stages - 1), starts.end(), true);
  do {
    std::vector<int> cut = {0};
    for (std::size_t i = 0; i < starts.size(); ++i) {
      if (starts[i]) cut.push_back(static_cast<int>(i) + 1);
    }
    const std::optional<Score> score = score_of(layers, request, cut);
    if (score && (!best || *score < *best)) best = score;
  } while (std::next_permutation(starts.begin(), starts.end()));
  return best;
}

TEST(CutLayers, MakesTheSlowestStageFastAndTheRestEven) {
  // A head as slow as three layers.
  EXPECT_THAT(cut_layers(layers_of({1, 1, 1, 1, 1, 1, 3}), {.rank_of_stage = {0, 1, 2}}),
              ElementsAre(0, 3, 6));
  // 5 is the least there is; the other three layers are cut 2 and 1, not 3 and 0.
  EXPECT_THAT(cut_layers(layers_of({5, 1, 1, 1}), {.rank_of_stage = {0, 1, 2}}),
              ElementsAre(0, 1, 2));
  EXPECT_THAT(cut_layers(layers_of({4}), {.rank_of_stage = {0}}), ElementsAre(0));
}

TEST(CutLayers, BalancesRanksThatHaveSeveralStages) {
  // Rank 0 has the slow first layer and the slow last one, so rank 1 takes what is between.
  EXPECT_THAT(
      cut_layers(layers_of({4, 1, 1, 1, 1, 1, 1, 1, 1, 4}), {.rank_of_stage = {0, 1, 1, 0}}),
      ElementsAre(0, 1, 5, 9));
  // The same stages on ranks of their own.
  EXPECT_THAT(
      cut_layers(layers_of({4, 1, 1, 1, 1, 1, 1, 1, 1, 4}), {.rank_of_stage = {0, 1, 2, 3}}),
      ElementsAre(0, 1, 5, 9));
  EXPECT_THAT(cut_layers(layers_of({4, 1, 1, 1, 1, 1, 1, 1, 1}), {.rank_of_stage = {0, 1, 0, 1}}),
              ElementsAre(0, 1, 4, 6));
}

TEST(CutLayers, MovesLayersToWhereThereIsMemory) {
  std::vector<LayerCost> layers(6, {.time_us = 1, .weight_bytes = 10, .activation_bytes = 5});
  CutRequest request{.rank_of_stage = {0, 1, 2}, .stored = {3, 2, 1}};
  EXPECT_THAT(cut_layers(layers, request), ElementsAre(0, 2, 4));
  // A layer takes 25, 20 and 15 bytes on ranks 0, 1 and 2.
  request.memory_bytes = {49, 49, 60};
  EXPECT_THAT(cut_layers(layers, request), ElementsAre(0, 1, 3));
}

TEST(CutLayers, FindsTheOnlyCutThatFits) {
  const std::vector<LayerCost> layers = {{.time_us = 1, .weight_bytes = 7},
                                         {.time_us = 9, .weight_bytes = 1},
                                         {.time_us = 9, .weight_bytes = 1},
                                         {.time_us = 9, .weight_bytes = 1},
                                         {.time_us = 1, .weight_bytes = 9}};
  EXPECT_THAT(cut_layers(layers, {.rank_of_stage = {0, 1}, .memory_bytes = {10, 9}}),
              ElementsAre(0, 4));
}

struct Model {
  std::vector<LayerCost> layers;
  CutRequest request;
};

// Some stages on any ranks, few enough to try all cuts; with and without limits of memory.
Model arbitrary_model(std::mt19937& random) {
  const auto below = [&](int end) { return std::uniform_int_distribution(0, end - 1)(random); };
  const int stages = 1 + below(6);
  const int ranks = 1 + below(stages);
  Model model{.layers = std::vector<LayerCost>(at(stages + below(12 - stages))),
              .request = {.rank_of_stage = stage_per_rank(ranks)}};
  CutRequest& request = model.request;
  while (request.rank_of_stage.size() < at(stages)) request.rank_of_stage.push_back(below(ranks));
  for (LayerCost& layer : model.layers) {
    layer = {.time_us = static_cast<double>(below(9)),
             .weight_bytes = below(9),
             .activation_bytes = below(5)};
  }
  for (int stage = 0; stage < stages; ++stage) request.stored.push_back(below(4));
  if (below(2) == 0) return model;
  for (int rank = 0; rank < ranks; ++rank) {
    request.memory_bytes.push_back(1 + below(1 + 100 / ranks));
  }
  return model;
}

TEST(CutLayers, FindsTheBestOfAllCuts) {
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    const Model model = arbitrary_model(random);
    const std::optional<Score> best = best_score(model.layers, model.request);
    if (best) {
      const std::vector<int> cut = cut_layers(model.layers, model.request);
      ASSERT_EQ(score_of(model.layers, model.request, cut), best) << "model " << i;
      continue;
    }
    ++refused;
    ASSERT_THAT(failure_of([&] { cut_layers(model.layers, model.request); }),
                HasSubstr("no cut found that fits into the memory"));
  }
  EXPECT_GT(refused, 100);
}

// More cuts than the search can keep: a model of an embedding, equal layers and a head.
TEST(CutLayers, IsCloseToEvenForLargeModels) {
  for (const char* name : {"1f1b", "zbv", "interleaved"}) {
    for (const int blocks : {32, 61, 94}) {
      std::vector<LayerCost> layers(static_cast<std::size_t>(blocks) + 2, {.time_us = 10});
      layers.front().time_us = 1;
      layers.back().time_us = 17;
      const ScheduleRequest schedule{.name = name, .ranks = 8, .chunks = name[0] == 'i' ? 3 : 1};
      const CutRequest request{.rank_of_stage = rank_of_stage(schedule)};
      const auto score = score_of(layers, request, cut_layers(layers, request));
      // No cut has less than the mean, and layers are not divided.
      EXPECT_LE(std::get<0>(*score), (blocks * 10 + 18) / 8.0 + 10) << name << " " << blocks;
    }
  }
}

TEST(CutLayers, SaysWhatWouldFit) {
  const std::vector<LayerCost> layers(
      8, {.name = "block", .time_us = 1, .weight_bytes = 10, .activation_bytes = 5});
  const CutRequest request{.rank_of_stage = {0, 1}, .stored = {2, 1}, .memory_bytes = {50, 50}};
  // With two micro-batches a layer takes 20 bytes, so a rank holds two of them.
  EXPECT_EQ(
      failure_of([&] { cut_layers(layers, request); }),
      "ConfigError: 8 layers in 2 stages: no cut found that fits into the memory; the nearest "
      "takes, in bytes: rank 0 60 of 50, rank 1 75 of 50; 4 ranks with one stage and at most 2 "
      "stored micro-batches each would do");
  CutRequest small = request;
  small.memory_bytes = {50, 19};
  EXPECT_THAT(failure_of([&] { cut_layers(layers, small); }),
              HasSubstr("layer block alone takes 20 bytes with 2 stored micro-batches"));
}

TEST(CutLayers, RefusesWhatDoesNotGoTogether) {
  const auto refusal = [](const std::vector<LayerCost>& layers, const CutRequest& request) {
    return failure_of([&] { cut_layers(layers, request); });
  };
  const std::vector<LayerCost> three(3, {.time_us = 1});
  EXPECT_EQ(refusal(three, {.rank_of_stage = {0, 1, 2, 3}}),
            "ConfigError: 3 layers in 4 stages: a stage has at least one layer, and there is at "
            "least one stage");
  EXPECT_THAT(refusal(three, {}), StartsWith("ConfigError: 3 layers in 0 stages: a stage has"));
  EXPECT_EQ(
      refusal({{.name = "head", .time_us = -1}}, {.rank_of_stage = {0}}),
      "ConfigError: 1 layers in 1 stages: layer 0 (head) costs -1 us, 0 and 0 bytes, wanted 0 "
      "or more");
  EXPECT_EQ(
      refusal(three, {.rank_of_stage = {0, 2}}),
      "ConfigError: 3 layers in 2 stages: the ranks of stages are 0, 2, wanted 0 to 2, each at "
      "least once");
  EXPECT_EQ(refusal(three, {.rank_of_stage = {0, -1}}),
            "ConfigError: 3 layers in 2 stages: the ranks of stages are 0, -1, wanted 0 to 0, each "
            "at least once");
  EXPECT_EQ(refusal(three, {.rank_of_stage = {0, 1}, .stored = {1}}),
            "ConfigError: 3 layers in 2 stages: stored micro-batches of 1 stages");
  EXPECT_EQ(refusal(three, {.rank_of_stage = {0, 1}, .stored = {1, -4}}),
            "ConfigError: 3 layers in 2 stages: -4 stored micro-batches, wanted 0 or more");
  EXPECT_EQ(refusal(three, {.rank_of_stage = {0, 1}, .memory_bytes = {1}}),
            "ConfigError: 3 layers in 2 stages: memory of 1 ranks, but the stages are on 2");
}

TEST(MostStored, CountsTheMicroBatchesOfEachStage) {
  EXPECT_THAT(most_stored(generate_schedule({.name = "1f1b", .ranks = 3, .micro_batches = 7})),
              ElementsAre(3, 2, 1));
  EXPECT_THAT(most_stored({.ranks = 1,
                           .rank_of_stage = {0},
                           .micro_batches = 3,
                           .of_rank = {{{Action::kForward, 0, 0},
                                        {Action::kForward, 0, 1},
                                        {Action::kBackwardInput, 0, 0},
                                        {Action::kBackwardWeight, 0, 0},
                                        {Action::kBackward, 0, 1},
                                        {Action::kForward, 0, 2},
                                        {Action::kBackward, 0, 2}}}}),
              ElementsAre(2));
  EXPECT_THAT(most_stored(generate_schedule({.name = "gpipe", .ranks = 2, .micro_batches = 5})),
              ElementsAre(5, 5));
  const std::vector<int> v =
      most_stored(generate_schedule({.name = "zbv", .ranks = 2, .micro_batches = 9}));
  EXPECT_LE(v[0], 4);
  EXPECT_LE(v[3], 2);
}

}  // namespace
}  // namespace trireme::plan
