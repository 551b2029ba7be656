// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/batch_loader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/temporary_folder.h"
#include "trireme/comm/world.h"
#include "trireme/data/token_shards.h"
#include "trireme/train/evaluator.h"

namespace trireme {
namespace {

// Tokens 0, 1, 2, ..., 29, but for a 7 at 9, 16 and 17.
class BatchLoading : public ::testing::Test {
 protected:
  BatchLoading() {
    std::vector<TokenId> ids(30);
    std::iota(ids.begin(), ids.end(), TokenId{0});
    ids[9] = ids[16] = ids[17] = 7;
    TokenShardWriter writer(folder_.path().string(), "train", 300, "0123456789abcdef");
    writer.append(ids);
    writer.finish();
  }

  BatchLoader loader(const TokenShards& shards, std::optional<TokenId> separator) const {
    return {shards, Sampler(shards.num_tokens(), 6, 1, /*shuffle=*/false), 6, separator};
  }

  const testing::TemporaryFolder folder_;
};

TEST_F(BatchLoading, TargetsAreTheNextTokens) {
  const TokenShards shards(folder_.path().string(), "train");
  const MicroBatch batch = loader(shards, {}).load(1, 2);
  EXPECT_TRUE(batch.inputs_BT.equal(
      at::tensor({6, 7, 8, 7, 10, 11, 12, 13, 14, 15, 7, 7}, at::kLong).view({2, 6})));
  EXPECT_TRUE(batch.targets_BT.equal(
      at::tensor({7, 8, 7, 10, 11, 12, 13, 14, 15, 7, 7, 18}, at::kLong).view({2, 6})));
  EXPECT_FALSE(batch.document_starts_BT.defined());
}

TEST_F(BatchLoading, SeparateDocumentsBeginWithTheSeparator) {
  const TokenShards shards(folder_.path().string(), "train");
  const MicroBatch batch = loader(shards, 7).load(1, 2);
  EXPECT_TRUE(batch.document_starts_BT.equal(
      at::tensor({0, 1, 1, 3, 3, 3, 0, 0, 0, 0, 4, 5}, at::kLong).view({2, 6})));
}

TEST_F(BatchLoading, AnEvaluationKeepsDocumentsApart) {
  const TokenShards shards(folder_.path().string(), "train");
  nn::ModelConfig config = testing::small_model_config("llama");
  config.separate_documents = true;
  nn::Transformer model(config);
  nn::initialize(*model, 7);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : model->parameters()) parameter.mul_(5);
  const std::unique_ptr<Group> alone = join_world({});
  const auto loss = [&](std::optional<TokenId> separator) {
    return Evaluator(shards, 6, {.separator = separator})
        .run(
            [&](const MicroBatch& batch) {
              return model->loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT)
                  .item<double>();
            },
            *alone)
        .loss;
  };
  const MicroBatch all = loader(shards, 7).load(0, 4);
  const auto expected =
      model->loss(all.inputs_BT, all.targets_BT, all.document_starts_BT).item<double>();
  EXPECT_DOUBLE_EQ(loss(7), expected);
  EXPECT_GT(std::abs(loss({}) - expected), 1e-4);
}

}  // namespace
}  // namespace trireme
