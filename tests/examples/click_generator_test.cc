// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "examples/support/auc.h"
#include "examples/support/click_log.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using trireme::testing::TemporaryFolder;

bool equal(const ClickBatch& a, const ClickBatch& b) {
  return a.labels.equal(b.labels) && a.numbers.equal(b.numbers) && a.categories.equal(b.categories);
}

TEST(ClickGenerator, TheLogHasWhatIsMade) {
  const TemporaryFolder folder;
  const ClickGenerator clicks({.seed = 7});
  write_click_log(clicks, 333, (folder / "clicks").string());
  for (const std::int64_t worker : {0, 1}) {
    ClickLog log((folder / "clicks").string(), {.batch = 333, .worker = worker, .num_workers = 2});
    const auto read = log.next();
    ASSERT_TRUE(read);
    const PlantedClicks made = clicks.make({.first = worker, .count = 167 - worker, .stride = 2});
    EXPECT_TRUE(equal(*read, made.batch));
  }
}

TEST(ClickGenerator, ASampleIsAFunctionOfTheSeedAndItsNumber) {
  const ClickGenerator clicks({.seed = 7});
  const PlantedClicks whole = clicks.make({.first = 1000, .count = 100});
  const PlantedClicks thirds = clicks.make({.first = 1001, .count = 33, .stride = 3});
  const auto third = [](const at::Tensor& tensor) { return tensor.slice(0, 1, 100, 3); };
  EXPECT_TRUE(equal(thirds.batch, {third(whole.batch.labels), third(whole.batch.numbers),
                                   third(whole.batch.categories)}));
  EXPECT_TRUE(thirds.logits.equal(third(whole.logits)));
  EXPECT_FALSE(
      equal(ClickGenerator({.seed = 8}).make({.first = 1000, .count = 100}).batch, whole.batch));
}

// Clicks come as often as the logits say, in each tenth of them.
TEST(ClickGenerator, LabelsFollowTheLogits) {
  constexpr std::int64_t kSamples = 40'000;
  const PlantedClicks made = ClickGenerator({}).make({.first = 0, .count = kSamples});
  const at::Tensor order = made.logits.argsort();
  for (std::int64_t tenth = 0; tenth < 10; ++tenth) {
    const at::Tensor part = order.narrow(0, tenth * kSamples / 10, kSamples / 10);
    const double said = made.logits.index_select(0, part).sigmoid().mean().item<double>();
    const double came = made.batch.labels.index_select(0, part).mean().item<double>();
    const double deviation = std::sqrt(said * (1 - said) * 10 / kSamples);
    EXPECT_NEAR(came, said, 5 * deviation) << tenth;
  }
  Auc reachable;
  reachable.add(made.logits, made.batch.labels);
  EXPECT_GT(reachable.value(), 0.78);
  EXPECT_LT(reachable.value(), 0.86);
}

TEST(ClickGenerator, CategoriesAreDrawnByZipfsLaw) {
  ClickGeneratorOptions options;
  options.columns[4] = {.cardinality = 5, .skew = 1};
  options.columns[5] = {.cardinality = 4, .skew = 0};
  options.columns[6] = {.cardinality = 2'000'000, .skew = 0.5};
  constexpr std::int64_t kSamples = 20'000;
  const at::Tensor ids =
      ClickGenerator(options).make({.first = 0, .count = kSamples}).batch.categories;
  const auto counts = [&](std::int64_t column) {  // the commonest first
    std::map<std::int64_t, std::int64_t> by_id;
    for (std::int64_t i = 0; i < kSamples; ++i) {
      const std::int64_t id = ids[i][column].item<std::int64_t>();
      EXPECT_EQ(id >> 40, column);
      ++by_id[id];
    }
    std::vector<double> sorted;
    for (const auto& [id, count] : by_id) sorted.push_back(static_cast<double>(count) / kSamples);
    std::sort(sorted.rbegin(), sorted.rend());
    return sorted;
  };
  const std::vector<double> harmonic = counts(4), even = counts(5), tail = counts(6);
  ASSERT_EQ(harmonic.size(), 5);
  ASSERT_EQ(even.size(), 4);
  constexpr double kTolerance = 0.02;  // five deviations of a share of 20 000 samples
  for (std::size_t r = 0; r < 5; ++r) {
    const auto rank = static_cast<double>(r);
    EXPECT_NEAR(harmonic[r], std::log((rank + 2) / (rank + 1)) / std::log(6), kTolerance) << r;
  }
  for (const double share : even) EXPECT_NEAR(share, 0.25, kTolerance);
  // Two million categories of which each has a share of its own in the order of 1 to 1000 in 10^6.
  EXPECT_GT(tail.size(), 0.97 * kSamples);
}

TEST(ClickGenerator, TheCommonestOfALongTailIsMissing) {
  ClickGeneratorOptions options;
  options.columns[2] = {.cardinality = 3'000'000, .skew = 1.1};
  const at::Tensor ids =
      ClickGenerator(options).make({.first = 0, .count = 1000}).batch.categories.select(1, 2);
  const double missing = ids.eq(category_id(2, {})).to(at::kDouble).mean().item<double>();
  EXPECT_GT(missing, 0.05);
  EXPECT_LT(missing, 0.2);
}

TEST(ClickGenerator, RefusesColumnsThatCannotBe) {
  ClickGeneratorOptions options;
  options.columns[3].cardinality = 0;
  EXPECT_THAT([&] { ClickGenerator{options}; },
              ThrowsMessage<ConfigError>(HasSubstr("a column of 0 categories")));
  options.columns.resize(25);
  EXPECT_THAT([&] { ClickGenerator{options}; },
              ThrowsMessage<ConfigError>(HasSubstr("25 columns")));
  EXPECT_THAT([] { write_click_log(ClickGenerator({}), 3, "/no/such/folder/clicks"); },
              ThrowsMessage<Error>(HasSubstr("/no/such/folder/clicks")));
}

}  // namespace
}  // namespace trireme::examples
