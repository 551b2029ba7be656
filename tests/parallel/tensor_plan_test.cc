// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/tensor_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(TensorPlan, PatternsStandForLettersButDots) {
  EXPECT_TRUE(matches_pattern("head", "head"));
  EXPECT_FALSE(matches_pattern("head", "heads"));
  EXPECT_FALSE(matches_pattern("heads", "head"));
  EXPECT_TRUE(matches_pattern("blocks.*.attn.q", "blocks.12.attn.q"));
  EXPECT_FALSE(matches_pattern("blocks.*.attn.q", "blocks.1.2.attn.q"));
  EXPECT_FALSE(matches_pattern("blocks.*.attn.q", "blocks.1.attn.k"));
  EXPECT_TRUE(matches_pattern("*_norm", "final_norm"));
  EXPECT_TRUE(matches_pattern("a*b*c", "axbbxc"));
  EXPECT_TRUE(matches_pattern("a*", "a"));
  EXPECT_FALSE(matches_pattern("", "a"));
  EXPECT_TRUE(matches_pattern("", ""));
}

using Parts = std::vector<std::pair<std::int64_t, std::int64_t>>;

Parts parts_of(const TensorRule& rule, std::int64_t size, int ranks) {
  Parts parts;
  for (int rank = 0; rank < ranks; ++rank) {
    const DimPart part = dim_part(rule, "layer", size, rank, ranks);
    parts.emplace_back(part.begin, part.end);
  }
  return parts;
}

TEST(TensorPlan, DimsAreCutEvenlyButForOne) {
  const TensorRule rule{"layer", TensorCut::kOutputs};
  EXPECT_EQ(parts_of(rule, 7, 1), (Parts{{0, 7}}));
  EXPECT_EQ(parts_of(rule, 7, 3), (Parts{{0, 2}, {2, 4}, {4, 7}}));
  EXPECT_EQ(parts_of(rule, 3, 3), (Parts{{0, 1}, {1, 2}, {2, 3}}));
}

// 6 heads of 5, 3 of keys: each rank has the queries of its keys.
TEST(TensorPlan, QueriesStayWithTheirKeys) {
  const AttentionHeads heads{.heads = 6, .kv_heads = 3, .width = 5};
  const TensorRule queries{"q", TensorCut::kOutputs, heads};
  const TensorRule keys{"k", TensorCut::kOutputs, heads, true};
  EXPECT_EQ(parts_of(queries, 30, 2), (Parts{{0, 10}, {10, 30}}));
  EXPECT_EQ(parts_of(keys, 15, 2), (Parts{{0, 5}, {5, 15}}));
  EXPECT_EQ(parts_of(queries, 30, 3), (Parts{{0, 10}, {10, 20}, {20, 30}}));
  EXPECT_EQ(parts_of(keys, 15, 3), (Parts{{0, 5}, {5, 10}, {10, 15}}));
}

// 10 heads, 2 of keys, on 4 ranks: two ranks share the 5 queries of a kv head, which both have.
TEST(TensorPlan, FewKeyHeadsAreOnSeveralRanks) {
  const AttentionHeads heads{.heads = 10, .kv_heads = 2, .width = 3};
  const TensorRule queries{"q", TensorCut::kOutputs, heads};
  const TensorRule keys{"k", TensorCut::kOutputs, heads, true};
  EXPECT_EQ(parts_of(queries, 30, 4), (Parts{{0, 6}, {6, 15}, {15, 21}, {21, 30}}));
  EXPECT_EQ(parts_of(keys, 6, 4), (Parts{{0, 3}, {0, 3}, {3, 6}, {3, 6}}));
  EXPECT_EQ(dim_part(queries, "q", 30, 3, 4).copies, 1);
  EXPECT_EQ(dim_part(keys, "k", 6, 3, 4).copies, 2);
  EXPECT_EQ(dim_part(keys, "k", 6, 3, 4).first_rank, 2);
  EXPECT_EQ(dim_part(keys, "k", 6, 1, 4).first_rank, 0);
}

TEST(TensorPlan, RefusalsSayTheDimAndTheDivisor) {
  const auto refusal = [](const TensorRule& rule, std::int64_t size, int ranks) {
    return testing::failure_of([&] { dim_part(rule, "blocks.1.x", size, 0, ranks); });
  };
  EXPECT_EQ(refusal({"x", TensorCut::kOutputs}, 3, 4),
            "ConfigError: blocks.1.x has 3 outputs, which 4 ranks of tp cannot share: at most 3 "
            "ranks");
  EXPECT_THAT(refusal({"x", TensorCut::kInputs}, 3, 4), HasSubstr("3 inputs"));
  const AttentionHeads heads{.heads = 12, .kv_heads = 3, .width = 2};
  EXPECT_THAT(refusal({"x", TensorCut::kOutputs, heads}, 24, 13), HasSubstr("12 heads"));
  EXPECT_EQ(refusal({"x", TensorCut::kOutputs, heads, true}, 6, 4),
            "ConfigError: blocks.1.x has 3 kv heads and tp 4 ranks: the kv heads must be as many "
            "as the ranks at least, or divide them");
  EXPECT_EQ(refusal({"x", TensorCut::kOutputs, heads}, 25, 2),
            "ConfigError: blocks.1.x is 25 elements wide, but the plan says 12 heads of 2");
}

}  // namespace
}  // namespace trireme
