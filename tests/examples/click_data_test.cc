// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

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

// Step by step, for workers whose number divides neither the batch nor the samples.
TEST(ClickData, PlantedClicksAreDealtAsThoseOfTheirLog) {
  const TemporaryFolder folder;
  const std::string path = (folder / "clicks").string();
  const ClickGenerator clicks({.seed = 3});
  write_click_log(clicks, 100, path);
  for (const std::int64_t worker : {0, 1, 2}) {
    const ClickLogOptions options{.batch = 14, .worker = worker, .num_workers = 3};
    ClickLog log(path, options);
    const ClickStream planted = planted_clicks(clicks, {.first = 0, .count = 100}, options);
    int steps = 0;
    for (auto read = log.next(); read; read = log.next(), ++steps) {
      const auto made = planted();
      ASSERT_TRUE(made) << steps;
      EXPECT_TRUE(equal(*read, *made)) << worker << " " << steps;
    }
    EXPECT_EQ(steps, 8);
    EXPECT_FALSE(planted());
    EXPECT_FALSE(planted());
  }
}

TEST(ClickData, WorkersHaveTheSamplesBetweenThem) {
  ClickData first = open_clicks({"--small"}, 0, 2), second = open_clicks({"--small"}, 1, 2);
  std::int64_t samples = 0, held_out = 0;
  const auto one = first.train(), other = second.train();
  ASSERT_TRUE(one && other);
  EXPECT_FALSE(equal(*one, *other));
  EXPECT_EQ(one->labels.size(0) + other->labels.size(0), first.batch);
  while (const auto batch = first.train()) samples += batch->labels.size(0);
  while (const auto batch = second.train()) samples += batch->labels.size(0);
  EXPECT_EQ(samples, 400'000 - first.batch);
  while (const auto batch = second.held_out()) held_out += batch->labels.size(0);
  EXPECT_EQ(held_out, 50'000);
  EXPECT_EQ(first.reachable, second.reachable);
  EXPECT_GT(first.reachable.value_or(0), 0.8);
}

TEST(ClickData, ReadsTheLogsThatItIsTold) {
  const TemporaryFolder folder;
  const std::string train = (folder / "train").string(), held_out = (folder / "test").string();
  write_click_log(ClickGenerator({.seed = 3}), 10, train);
  write_click_log(ClickGenerator({.seed = 4}), 7, held_out);
  ClickData data = open_clicks({"--log", train, held_out}, 1, 2);
  EXPECT_EQ(data.train()->labels.size(0), 5);
  EXPECT_FALSE(data.train());
  EXPECT_EQ(data.held_out()->labels.size(0), 7);
  EXPECT_FALSE(data.reachable);
}

TEST(ClickData, RefusesOtherArguments) {
  EXPECT_THAT(
      [] {
        open_clicks({"--log", "day_0"}, 0, 1);
      },
      ThrowsMessage<ConfigError>(HasSubstr("'--log day_0'")));
}

}  // namespace
}  // namespace trireme::examples
