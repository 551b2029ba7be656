// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/masked_text.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <vector>

#include "tests/support/temporary_folder.h"

namespace trireme::examples {
namespace {

constexpr std::int64_t kTokens = 64 * 301, kVocab = 97, kContext = 64;

class MaskedTextTest : public ::testing::Test {
 protected:
  MaskedTextTest() {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < kTokens; ++i) ids.push_back(static_cast<TokenId>(i * 31 % kVocab));
    TokenShardWriter writer(folder.path().string(), "train", kVocab, "0123456789abcdef");
    writer.append(ids);
    writer.finish();
  }
  MaskedText masked(std::int64_t round, std::int64_t first = 0) const {
    return mask(TokenShards(folder.path().string(), "train"), torch::arange(first, 301), kContext,
                round);
  }
  testing::TemporaryFolder folder;
};

TEST_F(MaskedTextTest, HidesFifteenPercentInThreeWays) {
  const MaskedText sample = masked(1);
  EXPECT_EQ(sample.text[7][3].item<std::int64_t>(), (7 * kContext + 3) * 31 % kVocab);
  const auto share = [](const at::Tensor& of) { return of.to(at::kDouble).mean().item<double>(); };
  const at::Tensor text = sample.text.index({sample.hidden});
  const at::Tensor shown = sample.shown.index({sample.hidden});
  // Five standard errors of some 19,000 tokens, and of 2,900 hidden ones.
  EXPECT_NEAR(share(sample.hidden), 0.15, 0.013);
  EXPECT_NEAR(share(shown.eq(kVocab)), 0.8, 0.037);
  EXPECT_NEAR(share(shown.eq(text)), 0.1 + 0.1 / kVocab, 0.028);
  EXPECT_TRUE(sample.shown.index({~sample.hidden}).equal(sample.text.index({~sample.hidden})));
  const at::Tensor others = shown.index({shown.ne(kVocab)});
  EXPECT_GE(others.min().item<std::int64_t>(), 0);
}

TEST_F(MaskedTextTest, IsAFunctionOfRoundAndNumber) {
  EXPECT_TRUE(masked(1).shown.narrow(0, 100, 201).equal(masked(1, 100).shown));
  EXPECT_FALSE(masked(1).hidden.equal(masked(2).hidden));
  EXPECT_FALSE(masked(1).hidden[3].equal(masked(1).hidden[4]));
}

}  // namespace
}  // namespace trireme::examples
