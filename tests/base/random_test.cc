// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;

// Known answers published with the generator (Random123, kat_vectors, philox4x32 10 rounds).
TEST(Philox, KnownAnswers) {
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// The layout of counter and key is part of every checkpoint's history: these may never change.
TEST(RandomStream, BitsComeFromTheBlockOfIndexStreamAndSeed) {
  const std::uint64_t seed = 0x299f31d0a4093822, stream = 0x0370734413198a2e,
                      index = 0x85a308d3243f6a88;
  EXPECT_EQ(RandomStream(seed, stream).bits(index), 0x94fdccebd16cfe09u);
}

TEST(RandomStream, NamesAreHashedTheSameForEver) {
  EXPECT_EQ(RandomStream(7, "blocks.3.attn.q.weight").bits(5),
            RandomStream(7, std::string("blocks.3.attn.q.weight")).bits(5));
  EXPECT_EQ(RandomStream(0, "").bits(0),
            RandomStream(0, std::uint64_t{0x2d06800538d394c2}).bits(0));
}

// Fraction of equal bits of two streams; half of them, within 5 standard deviations, if
// independent.
void expect_unrelated(const RandomStream& a, const RandomStream& b) {
  constexpr int kValues = 4096;
  int equal = 0;
  for (std::uint64_t i = 0; i < kValues; ++i) equal += 64 - std::popcount(a.bits(i) ^ b.bits(i));
  const double bits = 64.0 * kValues;
  EXPECT_NEAR(equal, bits / 2, 5 * std::sqrt(bits) / 2);
}

TEST(RandomStream, StreamsSeedsAndIndicesAreUnrelated) {
  expect_unrelated(RandomStream(1, "a"), RandomStream(1, "b"));
  expect_unrelated(RandomStream(1, std::uint64_t{0}), RandomStream(1, std::uint64_t{1}));
  expect_unrelated(RandomStream(1, std::uint64_t{0}), RandomStream(2, std::uint64_t{0}));
  expect_unrelated(RandomStream(1, std::uint64_t{2}), RandomStream(2, std::uint64_t{1}));
  expect_unrelated(RandomStream(1, std::uint64_t{0}), RandomStream(1, std::uint64_t{1} << 32));
  expect_unrelated(RandomStream(1, std::uint64_t{0}),
                   RandomStream(std::uint64_t{1} << 63 | 1, std::uint64_t{0}));
}

struct Moments {
  double mean = 0, variance = 0, skew = 0, kurtosis = 0, lag = 0;
};

template <class Draw>
Moments moments(int count, Draw draw) {
  Moments sums;
  double last = 0;
  for (int i = 0; i < count; ++i) {
    const double x = draw(static_cast<std::uint64_t>(i));
    sums.mean += x / count;
    sums.variance += x * x / count;
    sums.skew += x * x * x / count;
    sums.kurtosis += x * x * x * x / count;
    sums.lag += x * last / count;
    last = x;
  }
  return sums;
}

// Bounds are 5 standard deviations of each estimate: of x^k the variance is E[x^2k] - E[x^k]^2.
TEST(RandomStream, NormalHasTheMomentsOfTheNormal) {
  constexpr int kCount = 200'000;
  const double unit = 5 / std::sqrt(double{kCount});
  for (const char* name : {"blocks.0.weight", "head"}) {
    const RandomStream stream(3, name);
    const Moments m = moments(kCount, [&](std::uint64_t i) { return stream.normal(i); });
    EXPECT_NEAR(m.mean, 0, unit);
    EXPECT_NEAR(m.variance, 1, unit * std::sqrt(2.0));
    EXPECT_NEAR(m.skew, 0, unit * std::sqrt(15.0));
    EXPECT_NEAR(m.kurtosis, 3, unit * std::sqrt(96.0));
    EXPECT_NEAR(m.lag, 0, unit);
  }
}

TEST(RandomStream, NormalTailsAreThere) {
  constexpr int kCount = 200'000;
  const RandomStream stream(9, "tails");
  int beyond_2 = 0, beyond_4 = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double x = stream.normal(i);
    ASSERT_TRUE(std::isfinite(x));
    beyond_2 += std::abs(x) > 2 ? 1 : 0;
    beyond_4 += std::abs(x) > 4 ? 1 : 0;
  }
  EXPECT_NEAR(beyond_2, 0.0455003 * kCount, 5 * std::sqrt(0.0455 * kCount));
  EXPECT_NEAR(beyond_4, 6.3342e-5 * kCount, 5 * std::sqrt(6.3342e-5 * kCount));
}

TEST(RandomStream, UniformStaysInItsRangeAndIsFlat) {
  constexpr int kCount = 200'000;
  const RandomStream stream(3, "uniform");
  std::vector<int> cells(64);
  const Moments m = moments(kCount, [&](std::uint64_t i) {
    const double x = stream.uniform(i);
    EXPECT_GE(x, 0.0);
    EXPECT_LT(x, 1.0);
    ++cells[static_cast<std::size_t>(x * 64)];
    return x;
  });
  EXPECT_NEAR(m.mean, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  for (const int cell : cells) EXPECT_NEAR(cell, kCount / 64.0, 5 * std::sqrt(kCount / 64.0));
}

RC_GTEST_PROP(RandomStream, ValuesDoNotDependOnTheOrderOfCalls,
              (std::uint64_t seed, std::uint64_t name, std::uint64_t index)) {
  const RandomStream stream(seed, name);
  const auto bits = stream.bits(index);
  const auto normal = stream.normal(index);
  stream.bits(index + 1);
  RC_ASSERT(stream.bits(index) == bits);
  RC_ASSERT(RandomStream(seed, name).normal(index) == normal);
}

bool is_bijection(const RandomPermutation& permutation) {
  std::vector<bool> seen(permutation.size(), false);
  for (std::uint64_t i = 0; i < permutation.size(); ++i) {
    const std::uint64_t value = permutation(i);
    if (value >= permutation.size() || seen[value]) return false;
    seen[value] = true;
  }
  return true;
}

TEST(RandomPermutation, EachResultComesOnceForSizesTo1000) {
  for (std::uint64_t size = 1; size <= 1000; ++size) {
    ASSERT_TRUE(is_bijection(RandomPermutation(size, 11, size))) << size;
  }
}

RC_GTEST_PROP(RandomPermutation, EachResultComesOnce, (std::uint64_t seed, std::uint64_t stream)) {
  const auto size = *rc::gen::inRange<std::uint64_t>(1001, 20'000);
  RC_ASSERT(is_bijection(RandomPermutation(size, seed, stream)));
}

// Too large to go through: distinct arguments give distinct results in range.
RC_GTEST_PROP(RandomPermutation, HugeSizesStayInRangeAndApart, (std::uint64_t seed)) {
  const auto size = *rc::gen::suchThat<std::uint64_t>([](std::uint64_t n) { return n >= 2; }) |
                    std::uint64_t{1} << *rc::gen::inRange(20, 64);
  const RandomPermutation permutation(size, seed, 0);
  const auto i = *rc::gen::arbitrary<std::uint64_t>() % size;
  const auto j = *rc::gen::arbitrary<std::uint64_t>() % size;
  RC_ASSERT(permutation(i) < size);
  RC_ASSERT((i == j) == (permutation(i) == permutation(j)));
}

// Each of the 6 orders of 3 elements comes up as often as the others.
TEST(RandomPermutation, SmallSizesReachEveryOrderAlike) {
  constexpr int kDraws = 12'000;
  std::vector<int> count(9);
  for (std::uint64_t stream = 0; stream < kDraws; ++stream) {
    const RandomPermutation permutation(3, 5, stream);
    ++count[permutation(0) * 3 + permutation(1)];
  }
  for (const std::size_t order : {1u, 2u, 3u, 5u, 6u, 7u}) {
    EXPECT_NEAR(count[order], kDraws / 6.0, 0.1 * kDraws / 6.0) << order;
  }
}

TEST(RandomPermutation, SeedAndStreamChangeTheOrder) {
  constexpr std::uint64_t kSize = 1000;
  const RandomPermutation first(kSize, 1, 0), seed(kSize, 2, 0), stream(kSize, 1, 1);
  int same_seed = 0, same_stream = 0, fixed = 0;
  for (std::uint64_t i = 0; i < kSize; ++i) {
    same_seed += first(i) == seed(i) ? 1 : 0;
    same_stream += first(i) == stream(i) ? 1 : 0;
    fixed += first(i) == i ? 1 : 0;
  }
  // Expected is one of each, Poisson distributed.
  EXPECT_LT(same_seed, 8);
  EXPECT_LT(same_stream, 8);
  EXPECT_LT(fixed, 8);
}

TEST(RandomPermutation, BrokenPromisesAreInternalErrors) {
  EXPECT_THROW(RandomPermutation(0, 1, 1), InternalError);
  EXPECT_THROW(RandomPermutation(5, 1, 1)(5), InternalError);
}

}  // namespace
}  // namespace trireme
