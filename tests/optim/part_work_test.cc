// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Gradients that are made part by part, and weights that are used when theirs is updated
// (PartWork), beside whole buffers.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/operation.h"
#include "trireme/optim/optimizer.h"

namespace trireme::optim {
namespace {

// Two pieces with a gap between them, of several parts each; the last ends anywhere.
const std::vector<FlatSegment> kSegments = {{0, 5 * kShardBlock},
                                            {7 * kShardBlock, 12 * kShardBlock + 123}};

std::vector<at::Tensor> values(std::uint64_t stream) {
  std::vector<at::Tensor> pieces;
  for (const FlatSegment& segment : kSegments) {
    pieces.push_back(testing::normal({segment.end - segment.begin}, stream++).to(at::kFloat));
  }
  return pieces;
}

// Gives gradients in memory of its own for each part, and copies what the part becomes.
class Parts final : public PartWork {
 public:
  Parts(const std::vector<at::Tensor>& gradients, const std::vector<at::Tensor>& weights)
      : gradients_(gradients), weights_(weights) {
    for (const at::Tensor& piece : weights) read.push_back(torch::zeros_like(piece));
  }
  float* gradients(std::size_t piece, std::int64_t begin, std::int64_t end) override {
    const std::lock_guard lock(mutex_);
    const float* const from = gradients_[piece].data_ptr<float>();
    return open_.insert({{piece, begin, end}, {from + begin, from + end}}).first->second.data();
  }
  void done(std::size_t piece, std::int64_t begin, std::int64_t end) override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(open_.erase({piece, begin, end}), 1U) << "a part that was not begun";
    std::memcpy(read[piece].data_ptr<float>() + begin, weights_[piece].data_ptr<float>() + begin,
                static_cast<std::size_t>(end - begin) * sizeof(float));
    ++parts;
  }

  std::vector<at::Tensor> read;
  int parts = 0;

 private:
  const std::vector<at::Tensor>& gradients_;
  const std::vector<at::Tensor>& weights_;
  std::mutex mutex_;
  std::map<std::tuple<std::size_t, std::int64_t, std::int64_t>, std::vector<float>> open_;
};

TEST(PartWork, GivesTheBitsOfWholeBuffers) {
  for (const std::string name : {"sgd", "adagrad", "adam", "adamw", "lion"}) {
    for (const std::string state : {"f32", "8bit"}) {
      if (name == "adagrad" && state == "8bit") continue;
      OptimizerSpace space;
      space.segments = kSegments;
      space.parameters = {{.entry = {"first", {3, 5000}, 0, 15'000}, .decays = true},
                          {.entry = {"second", {7000}, 8 * kShardBlock, 7000}}};
      const OptimizerConfig config{.name = name, .weight_decay = 0.1, .state = state};
      const auto whole = make_optimizer(config, space), by_parts = make_optimizer(config, space);
      ASSERT_TRUE(by_parts->works_by_parts());
      const std::vector<at::Tensor> expected = values(1), weights = values(1);
      for (std::uint64_t step = 0; step < 3; ++step) {
        const std::vector<at::Tensor> gradients = values(10 + 2 * step);
        const std::vector<PieceUpdate> pieces = {{expected[0], gradients[0]},
                                                 {expected[1], gradients[1]}};
        whole->step({.pieces = pieces, .learning_rate = 0.01, .gradient_scale = 0.5});
        Parts parts(gradients, weights);
        const std::vector<PieceUpdate> without = {{.weights = weights[0]}, {.weights = weights[1]}};
        by_parts->step(
            {.pieces = without, .learning_rate = 0.01, .gradient_scale = 0.5, .parts = &parts});
        EXPECT_GT(parts.parts, 3);
        for (std::size_t i = 0; i < 2; ++i) {
          EXPECT_TRUE(weights[i].equal(expected[i])) << name << " " << state << ", step " << step;
          EXPECT_TRUE(parts.read[i].equal(expected[i])) << name << " " << state;
        }
      }
    }
  }
}

TEST(PartWork, IsForElementwiseMethods) {
  OptimizerSpace space;
  space.segments = {{0, kShardBlock}};
  space.parameters = {{.entry = {"matrix", {3, 5}, 0, 15}, .decays = true, .hidden_matrix = true}};
  for (const std::string name : {"lamb", "muon", "adafactor"}) {
    EXPECT_FALSE(make_optimizer({.name = name}, space)->works_by_parts()) << name;
  }
}

}  // namespace
}  // namespace trireme::optim
