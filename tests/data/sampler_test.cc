// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/sampler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>
#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

std::vector<std::int64_t> epoch_of(const Sampler& sampler, std::int64_t epoch) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t i = 0; i < sampler.samples_per_epoch(); ++i) {
    offsets.push_back(sampler.token_offset(epoch * sampler.samples_per_epoch() + i));
  }
  return offsets;
}

RC_GTEST_PROP(Sampler, VisitsEachSampleOncePerEpoch, ()) {
  const auto context = *rc::gen::inRange<std::int64_t>(1, 40);
  const auto num_tokens = context + *rc::gen::inRange<std::int64_t>(1, 900);
  const auto epoch = *rc::gen::inRange<std::int64_t>(0, 1000);
  const Sampler sampler(num_tokens, context, *rc::gen::arbitrary<std::uint64_t>(),
                        *rc::gen::arbitrary<bool>());
  const std::vector<std::int64_t> offsets = epoch_of(sampler, epoch);
  const std::set<std::int64_t> distinct(offsets.begin(), offsets.end());
  RC_ASSERT(static_cast<std::int64_t>(distinct.size()) == (num_tokens - 1) / context);
  for (const std::int64_t offset : distinct) {
    RC_ASSERT(offset >= 0 && offset % context == 0 && offset + context + 1 <= num_tokens);
  }
}

TEST(Sampler, TheOrderDependsOnSeedAndEpoch) {
  const Sampler sampler(1001, 10, 5);
  const Sampler same(1001, 10, 5);
  const Sampler other_seed(1001, 10, 6);
  EXPECT_EQ(epoch_of(sampler, 3), epoch_of(same, 3));
  EXPECT_NE(epoch_of(sampler, 3), epoch_of(sampler, 4));
  EXPECT_NE(epoch_of(sampler, 3), epoch_of(other_seed, 3));
  EXPECT_FALSE(std::is_sorted(epoch_of(sampler, 0).begin(), epoch_of(sampler, 0).end()));
}

// A change here changes every run that is resumed.
TEST(Sampler, TheOrderIsFrozen) {
  const Sampler sampler(1000 * 7 + 1, 7, 42);
  std::vector<std::int64_t> first;
  for (const std::int64_t sample : {0, 1, 2, 999, 1000, 123456}) {
    first.push_back(sampler.token_offset(sample) / 7);
  }
  EXPECT_EQ(first, (std::vector<std::int64_t>{648, 409, 572, 858, 491, 362}));
}

TEST(Sampler, WithoutShufflingGoesInOrder) {
  const Sampler sampler(31, 10, 1, /*shuffle=*/false);
  std::vector<std::int64_t> offsets;
  for (std::int64_t sample = 0; sample < 5; ++sample) {
    offsets.push_back(sampler.token_offset(sample));
  }
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 10, 20, 0, 10}));
}

TEST(Sampler, NeedsOneSample) {
  EXPECT_EQ(Sampler(11, 10, 1).samples_per_epoch(), 1);
  try {
    Sampler(10, 10, 1);
    FAIL() << "10 tokens make no sample of 10 and the next";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("has 10 tokens"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("needs 11"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace trireme
