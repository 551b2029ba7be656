// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Attention across ranks against attention on one.

#include "tests/support/context_attention.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <latch>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::ContextCase;
using testing::Evaluation;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::own_inputs;
using testing::packed_documents;
using testing::Precision;
using testing::run_threads;
using testing::run_whole;
using ::testing::StartsWith;
using testing::Tensors;

const std::vector<std::string> kMethods{"ring", "ulysses"};

void expect_as_on_one_rank(const ContextCase& c, int ranks, const Precision& precision) {
  const Evaluation whole = run_whole(c, precision.dtype);
  run_threads(ranks, [&](Group& group) {
    const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
    const Evaluation own = run_own(c, group, precision.dtype);
    expect_close(own, own_part_of(whole, parts), precision.tolerance,
                 c.name(ranks) + " rank " + std::to_string(group.rank()));
    EXPECT_EQ(own.outputs[0].scalar_type(), precision.dtype);
    EXPECT_EQ(own.gradients[1].scalar_type(), precision.dtype);
  });
}

// Sums of some hundred terms, in other orders than on one rank.
constexpr Precision kF64{at::kDouble, 1e-12};

TEST(TokenParts, EveryTokenIsOfOneRank) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    for (const std::int64_t tokens : {0, 1, 5, 24, 101}) {
      std::vector<int> owners(static_cast<std::size_t>(tokens), -1);
      for (int rank = 0; rank < ranks; ++rank) {
        const TokenParts parts = token_parts(tokens, rank, ranks);
        const at::Tensor positions = token_positions(parts);
        EXPECT_EQ(positions.size(0), num_tokens(parts));
        for (std::int64_t i = 0; i < positions.size(0); ++i) {
          const auto token = positions[i].item<std::int64_t>();
          int& owner = owners.at(static_cast<std::size_t>(token));
          EXPECT_EQ(owner, -1) << token;
          owner = rank;
          if (i > 0) {
            EXPECT_GT(token, positions[i - 1].item<std::int64_t>());
          }
        }
      }
      for (const int owner : owners) EXPECT_GE(owner, 0);
    }
  }
}

TEST(TokenParts, RanksMeetAsManyKeys) {
  for (int rank = 0; rank < 3; ++rank) {
    const at::Tensor positions = token_positions(token_parts(60, rank, 3));
    // Pairs under the causal rule: 60 x 61 / 2 / 3, which the cut shares out exactly.
    EXPECT_EQ((positions + 1).sum().item<std::int64_t>(), 610);
  }
  EXPECT_EQ(token_parts(12, 1, 3), (TokenParts{TokenRange{2, 4}, TokenRange{8, 10}}));
  const at::Tensor x = torch::arange(24, at::kLong).view({2, 12});
  const at::Tensor own = own_tokens(x, 1, token_parts(12, 1, 3));
  EXPECT_TRUE(own.equal(torch::tensor({2, 3, 8, 9, 14, 15, 20, 21}, at::kLong).view({2, 4})));
}

struct AcrossRanks : ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Methods, AcrossRanks, ::testing::ValuesIn(kMethods),
                         [](const auto& each) { return each.param; });

TEST_P(AcrossRanks, F64IsAsOnOneRank) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::int64_t kv_heads : {6, 2, 1}) {
      expect_as_on_one_rank({.method = GetParam(),
                             .sequences = 2,
                             .tokens = 29,
                             .heads = 6,
                             .kv_heads = kv_heads,
                             .head_width = 5},
                            ranks, kF64);
    }
    // Heads that no cut gives whole groups.
    expect_as_on_one_rank(
        {.method = GetParam(), .tokens = 24, .heads = 8, .kv_heads = 4, .head_width = 3}, ranks,
        kF64);
  }
}

TEST_P(AcrossRanks, FewTokensLeaveChunksEmpty) {
  for (const std::int64_t tokens : {3, 4, 7}) {
    expect_as_on_one_rank({.method = GetParam(), .tokens = tokens, .heads = 4, .kv_heads = 2}, 4,
                          kF64);
  }
}

TEST_P(AcrossRanks, WindowsHideWholeChunks) {
  for (const int ranks : {2, 3, 4}) {
    for (const std::int64_t window : {1, 3, 11}) {
      expect_as_on_one_rank({.method = GetParam(),
                             .sequences = 2,
                             .tokens = 31,
                             .heads = 4,
                             .kv_heads = 2,
                             .mask = {.window = window}},
                            ranks, kF64);
    }
  }
}

// 48 tokens on 2, 3 and 4 ranks are chunks of 12, 8 and 6: seams inside of them, at their edges,
// and documents over several.
TEST_P(AcrossRanks, DocumentsDoNotSeeEachOther) {
  for (const int ranks : {2, 3, 4}) {
    for (const std::vector<std::int64_t>& lengths :
         std::vector<std::vector<std::int64_t>>{{24, 24}, {12, 8, 6}, {5, 1, 31, 2}, {48}}) {
      for (const std::int64_t window : {0, 7}) {
        expect_as_on_one_rank(
            {.method = GetParam(),
             .sequences = 2,
             .tokens = 48,
             .heads = 4,
             .kv_heads = 2,
             .mask = {.window = window, .document_starts_BS = packed_documents(2, 48, lengths)}},
            ranks, kF64);
      }
    }
  }
}

// The kernels, across their blocks of 96 queries and 192 keys.
TEST_P(AcrossRanks, KernelsFollowF64) {
  for (const int ranks : {2, 3}) {
    for (const Precision& precision : {testing::kF32, testing::kBf16}) {
      for (const ops::AttentionMask& mask :
           {ops::AttentionMask{}, ops::AttentionMask{.window = 150,
                                  .document_starts_BS = packed_documents(2, 701, {330, 100, 2})}}) {
        expect_as_on_one_rank({.method = GetParam(),
                               .sequences = 2,
                               .tokens = 701,
                               .heads = 6,
                               .kv_heads = 2,
                               .head_width = 20,
                               .mask = mask},
                              ranks, precision);
      }
    }
  }
}

TEST_P(AcrossRanks, MessagesMayGoByAnotherEngine) {
  const ContextCase c{.method = GetParam(), .tokens = 31, .heads = 6, .kv_heads = 2};
  const Evaluation whole = run_whole(c, at::kDouble);
  run_threads(
      3,
      [&](Group& group) {
        const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
        expect_close(run_own(c, group, at::kDouble), own_part_of(whole, parts), kF64.tolerance,
                     "gloo");
      },
      "gloo");
}

TEST_P(AcrossRanks, ManyOfThemMayBeUnderWay) {
  const ContextCase c{.method = GetParam(), .tokens = 22, .heads = 3, .kv_heads = 3};
  run_threads(3, [&](Group& group) {
    const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
    const Tensors whole = testing::attention_operation(c.sizes()).inputs;
    Tensors own;
    for (const at::Tensor& each : own_inputs(whole, parts)) {
      own.push_back(testing::leaf(each, at::kDouble));
    }
    // Two layers: what the first one gives is the second one's queries and values.
    const at::Tensor first = attention_across_ranks(c, own, {}, group);
    const at::Tensor second =
        attention_across_ranks(c, {first, own[1], first.transpose(1, 2)}, {}, group);
    second.sum().backward();
    const auto leaves = testing::leaves_of(whole, at::kDouble);
    const at::Tensor whole_first = ops::causal_attention(leaves[0], leaves[1], leaves[2]);
    const at::Tensor whole_second =
        ops::causal_attention(whole_first, leaves[1], whole_first.transpose(1, 2));
    whole_second.sum().backward();
    testing::expect_close(second, own_tokens(whole_second, 1, parts), 1e-12, "second");
    testing::expect_close(own[0].grad(), own_tokens(leaves[0].grad(), 1, parts), 1e-12, "q");
    testing::expect_close(own[1].grad(), own_tokens(leaves[1].grad(), 2, parts), 1e-12, "k");
  });
}

// ---- bytes

TEST(RingTraffic, IsTheKeysAndValuesOfTheOthersAndTheirGradients) {
  for (const int ranks : {1, 2, 3, 4}) {
    const ContextCase c{.sequences = 2,
                        .tokens = 24 * ranks,
                        .heads = 6,
                        .kv_heads = 2,
                        .head_width = 8,
                        .mask = {.window = 5}};
    for (const auto dtype : {at::kDouble, at::kBFloat16}) {
      run_threads(ranks, [&](Group& group) {
        const std::int64_t elements = 2 * 2 * 24 * 2 * 8;  // k and v, B, T / n, K, D
        const std::int64_t size = dtype == at::kDouble ? 8 : 2, wide = dtype == at::kDouble ? 8 : 4;
        const std::int64_t before = group.bytes_sent();
        run_own(c, group, dtype);
        EXPECT_EQ(group.bytes_sent() - before,
                  (ranks - 1) * elements * (size /*forward*/ + size + wide /*backward*/));
      });
    }
  }
}

TEST(UlyssesTraffic, IsAllButTheOwnShareOfQueriesKeysValuesAndResults) {
  for (const int ranks : {1, 2, 4}) {
    const ContextCase c{.method = "ulysses",
                        .sequences = 2,
                        .tokens = 24 * ranks,
                        .heads = 8,
                        .kv_heads = 4,
                        .head_width = 6};
    for (const auto dtype : {at::kDouble, at::kBFloat16}) {
      run_threads(ranks, [&](Group& group) {
        const std::int64_t tokens = 2 * 24;  // B T / n
        const std::int64_t others = tokens * (8 + 4 + 4 + 8) * 6 * (ranks - 1) / ranks;
        const std::int64_t before = group.bytes_sent();
        run_own(c, group, dtype);
        EXPECT_EQ(group.bytes_sent() - before, 2 * others * (dtype == at::kDouble ? 8 : 2));
      });
    }
  }
}

// ---- memory

TEST(RingMemory, TwoRanksKeysAndValuesBesideTheOwn) {
  install_caching_allocator();
  constexpr int kRanks = 4;
  const ContextCase c{.sequences = 2, .tokens = 64, .heads = 4, .kv_heads = 4, .head_width = 16};
  const std::int64_t one = 2 * 2 * 16 * 4 * 16 * 8;  // k and v, B, T / n, K, D, f64
  const auto peak = [] { return process_memory().report().peaks[MemoryCategory::kWorkspace]; };
  const std::int64_t before = process_memory().report().current[MemoryCategory::kWorkspace];
  process_memory().reset_peak();
  run_threads(kRanks, [&](Group& group) {
    const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
    const Tensors own = own_inputs(testing::attention_operation(c.sizes()).inputs, parts);
    attention_across_ranks(c, own, {}, group);
  });
  EXPECT_LE(peak() - before, kRanks * 2 * one);
  EXPECT_GE(peak() - before, 2 * one);

  process_memory().reset_peak();
  run_threads(kRanks, [&](Group& group) { run_own(c, group, at::kDouble); });
  // Backward: gradients, in f64 as well: own, computed, arriving, leaving.
  EXPECT_LE(peak() - before, kRanks * (2 + 4) * one);
  EXPECT_GE(peak() - before, (2 + 3) * one);
}

// ---- errors

TEST_P(AcrossRanks, WrongShapesAreRefusedBeforeAnythingIsSent) {
  run_threads(2, [&](Group& group) {
    const auto ones = [](at::IntArrayRef shape) { return torch::ones(shape, at::kFloat); };
    const auto q = ones({1, 4, 4, 6}), k = ones({1, 2, 4, 6});
    const auto error = [&](const Tensors& own, std::int64_t tokens,
                           const ops::AttentionMask& mask) {
      return failure_of([&] {
        testing::attention_across_ranks({.method = GetParam(), .tokens = tokens}, own, mask, group);
      });
    };
    const std::string rank = "rank " + std::to_string(group.rank());
    EXPECT_THAT(error({q, k, k}, 12, {}),
                AllOf(StartsWith("ShapeError"), HasSubstr(rank), HasSubstr("6 of 12 tokens")));
    EXPECT_THAT(error({q, ones({1, 3, 4, 6}), ones({1, 3, 4, 6})}, 8, {}), HasSubstr("[1, 3, 4"));
    const auto longer = ones({1, 2, 8, 6});
    EXPECT_THAT(error({q, longer, longer}, 8, {}),
                AllOf(HasSubstr(rank), HasSubstr("[1, 2, 8, 6]")));
    EXPECT_THAT(error({q, k, k.to(at::kDouble)}, 8, {}), HasSubstr("Double"));
    EXPECT_THAT(error({q, k, k}, 8, {.window = -1}), HasSubstr("window of -1"));
    EXPECT_THAT(error({q, k, k}, 8, {.document_starts_BS = torch::zeros({1, 8}, at::kLong)}),
                AllOf(HasSubstr(rank), HasSubstr("i64 [1, 4]; got Long [1, 8]")));
    EXPECT_THAT(error({q, k, k}, 8, {.document_starts_BS = torch::full({1, 4}, 5, at::kLong)}),
                AllOf(HasSubstr(rank), HasSubstr("a document must start at")));
  });
}

TEST_P(AcrossRanks, ShapesThatDifferBetweenRanksAreNamed) {
  run_threads(2, [&](Group& group) {
    const std::int64_t heads = group.rank() == 0 ? 4 : 2;
    const ContextCase c{.method = GetParam(), .tokens = 16, .heads = 4, .kv_heads = heads};
    const std::string error = failure_of([&] { run_own(c, group, at::kFloat); });
    EXPECT_THAT(error, AllOf(StartsWith("CommError"), HasSubstr("rank")));
  });
}

TEST_P(AcrossRanks, ARankThatIsGoneIsNamed) {
  for (const bool in_backward : {false, true}) {
    run_threads(3, [&](Group& group) {
      const ContextCase c{.method = GetParam(), .tokens = 24, .heads = 3, .kv_heads = 3};
      const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
      Tensors own;
      for (const at::Tensor& each :
           own_inputs(testing::attention_operation(c.sizes()).inputs, parts)) {
        own.push_back(testing::leaf(each, at::kFloat));
      }
      at::Tensor out;
      if (in_backward) out = attention_across_ranks(c, own, {}, group);
      group.barrier();  // the messages of the forward pass are all there
      if (group.rank() == 1) return group.abandon("out of luck");
      const std::string error = failure_of([&] {
        if (!in_backward) out = attention_across_ranks(c, own, {}, group);
        out.sum().backward();
      });
      EXPECT_THAT(error,
                  AllOf(StartsWith("CommError"), HasSubstr("rank 1"), HasSubstr("out of luck")));
    });
  }
}

// One that does not come is named at the deadline.
TEST_P(AcrossRanks, ARankThatIsLateIsNamed) {
  std::latch failed(1);
  run_threads(2, [&](Group& group) {
    if (group.rank() == 1) return failed.wait();
    group.set_timeout(std::chrono::milliseconds(300));
    const ContextCase c{.method = GetParam(), .tokens = 24, .heads = 3, .kv_heads = 3};
    const std::string error = failure_of([&] { run_own(c, group, at::kFloat); });
    failed.count_down();
    EXPECT_THAT(error, AllOf(StartsWith("TimeoutError"), HasSubstr("rank 1")));
  });
}

TEST(Ulysses, RefusesFewerHeadsThanRanks) {
  run_threads(3, [](Group& group) {
    const ContextCase c{.method = "ulysses", .tokens = 12, .heads = 2, .kv_heads = 2};
    EXPECT_THAT(failure_of([&] { run_own(c, group, at::kFloat); }),
                AllOf(StartsWith("ConfigError"), HasSubstr("2 heads for 3 ranks"),
                      HasSubstr("at most 2 ranks")));
  });
}

}  // namespace
}  // namespace trireme
