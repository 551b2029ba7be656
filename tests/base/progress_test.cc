// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace trireme {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Keeps what is written, a string per write; its clock stands still unless it is moved.
struct FakeOutput {
  std::vector<std::string> written;
  ProgressOutput::Clock::time_point now{};
  int columns = 100;

  ProgressOutput output(bool terminal) {
    ProgressOutput out;
    out.write = [this](std::string_view text) { written.emplace_back(text); };
    out.now = [this] { return now; };
    out.terminal = terminal;
    out.columns = [this] { return columns; };
    return out;
  }
};

TEST(Progress, PlainLinesComeFirstThenEveryTenSecondsThenLast) {
  FakeOutput fake;
  Progress progress("tokenizing", 2000, "files", 0, fake.output(false));
  for (int second = 0; second < 25; ++second) {
    progress.update(second * 20, "3 skipped");
    fake.now += 1s;
  }
  progress.finish();
  progress.finish();
  progress.update(1999);
  EXPECT_THAT(fake.written,
              ElementsAre("tokenizing: 0 of 2000 files (0%), 3 skipped\n",
                          "tokenizing: 200 of 2000 files (10%), 20 files/s, 1:30 left, 3 skipped\n",
                          "tokenizing: 400 of 2000 files (20%), 20 files/s, 1:20 left, 3 skipped\n",
                          "tokenizing: 480 files in 0:25, 19.2 files/s, 3 skipped\n"));
}

TEST(Progress, TerminalLineIsRedrawnAtMostTenTimesASecond) {
  FakeOutput fake;
  Progress progress("training", 1000, "steps", 0, fake.output(true));
  for (int i = 0; i < 1000; ++i) {
    progress.update(i);
    fake.now += 1ms;
  }
  EXPECT_THAT(fake.written, SizeIs(10));
  EXPECT_EQ(fake.written[5],
            "\r\x1b[Ktraining [##########----------]  50%  500 of 1000 steps  1000 steps/s  "
            "0:01 left");
  progress.finish();
  EXPECT_EQ(fake.written.back(), "\r\x1b[Ktraining: 999 steps in 0:01, 999 steps/s\n");
}

TEST(Progress, LinesNeverReachTheLastColumn) {
  FakeOutput fake;
  Progress progress("\xC3\xA9tude", 10, "steps", 0, fake.output(true));
  fake.columns = 30;
  progress.update(5, "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
  EXPECT_EQ(fake.written.back(), "\r\x1b[K\xC3\xA9tude  50%  5 of 10 steps  \xC3\xA9\xC3\xA9");
  fake.now += 1s;
  fake.columns = 3;
  progress.update(6);
  EXPECT_EQ(fake.written.back(), "\r\x1b[K\xC3\xA9t");
}

TEST(Progress, RateFollowsTheJobAndForgetsItsStart) {
  FakeOutput fake;
  Progress progress("x", 0, "B", 0, fake.output(false));
  std::int64_t done = 0;
  for (int second = 0; second <= 120; ++second) {
    progress.update(done);
    fake.now += 1s;
    done += second < 60 ? 1'000 : 5'000'000;
  }
  EXPECT_THAT(fake.written[3], HasSubstr("1.00 kB/s"));
  EXPECT_THAT(fake.written.back(), HasSubstr("5.00 MB/s"));
}

TEST(Progress, WhatAnEarlierRunDidIsNoRateOfThisOne) {
  FakeOutput fake;
  Progress progress("training", 1000, "steps", 500, fake.output(false));
  fake.now += 10s;
  progress.update(520);
  EXPECT_EQ(fake.written.back(), "training: 520 of 1000 steps (52%), 2 steps/s, 4:00 left\n");
  progress.finish();
  EXPECT_EQ(fake.written.back(), "training: 20 steps in 0:10, 2 steps/s\n");
}

TEST(Progress, UnknownTotalAndOvershootShowNoNonsense) {
  FakeOutput fake;
  Progress unknown("reading", 0, "B", 0, fake.output(true));
  fake.now += 2s;
  unknown.update(3'000'000);
  EXPECT_EQ(fake.written.back(), "\r\x1b[Kreading  3.00 MB  1.50 MB/s");

  Progress over("reading", 10, "B", 0, fake.output(false));
  fake.now += 2s;
  over.update(30);
  EXPECT_EQ(fake.written.back(), "reading: 30 B of 10 B (100%), 15 B/s\n");
}

TEST(Progress, OtherOutputGetsItsOwnLine) {
  FakeOutput fake;
  {
    Progress progress("x", 10, "steps", 0, fake.output(true));
    progress.clear();
    EXPECT_THAT(fake.written, SizeIs(0));
    progress.update(1);
    progress.clear();
    EXPECT_EQ(fake.written.back(), "\r\x1b[K");
    progress.update(2);  // at once, though no time has passed
    EXPECT_THAT(fake.written.back(), HasSubstr("2 of 10 steps"));
  }
  EXPECT_EQ(fake.written.back(), "\n");
  const std::size_t before = fake.written.size();
  { Progress never_drawn("x", 10, "steps", 0, fake.output(true)); }
  EXPECT_THAT(fake.written, SizeIs(before));
}

TEST(Progress, Quantities) {
  using detail::format_quantity;
  EXPECT_EQ(format_quantity(0, "B"), "0 B");
  EXPECT_EQ(format_quantity(999, "B"), "999 B");
  EXPECT_EQ(format_quantity(999.7, "B"), "1.00 kB");
  EXPECT_EQ(format_quantity(12'340, "B"), "12.3 kB");
  EXPECT_EQ(format_quantity(999'600, "B"), "1.00 MB");
  EXPECT_EQ(format_quantity(9999, "steps"), "9999 steps");
  EXPECT_EQ(format_quantity(10'000, "steps"), "10.0k steps");
  EXPECT_EQ(format_quantity(2.5e9, "tokens"), "2.50G tokens");
  EXPECT_EQ(format_quantity(0.31249, "steps"), "0.312 steps");
  EXPECT_EQ(format_quantity(12.6, "steps"), "12.6 steps");
  EXPECT_EQ(format_quantity(12, ""), "12");
}

TEST(Progress, Durations) {
  using detail::format_duration;
  EXPECT_EQ(format_duration(-5s), "0:00");
  EXPECT_EQ(format_duration(59s), "0:59");
  EXPECT_EQ(format_duration(3599s), "59:59");
  EXPECT_EQ(format_duration(3600s + 65s), "1:01:05");
  EXPECT_EQ(format_duration(std::chrono::hours(100)), "100:00:00");
}

}  // namespace
}  // namespace trireme
