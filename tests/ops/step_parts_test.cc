// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/step_parts.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>

#include "trireme/base/error.h"

namespace trireme {
namespace {

class StepPartsTest : public ::testing::Test {
 protected:
  double now_ = 100;
  StepParts parts_{[this] { return now_; }};
};

const PartTotal& find(const std::vector<PartTotal>& totals, const std::string& name) {
  for (const PartTotal& total : totals) {
    if (total.name == name) return total;
  }
  throw std::out_of_range("no part " + name);
}

TEST_F(StepPartsTest, APartInsideAnotherCountsForItselfAlone) {
  parts_.start();
  now_ += 1;
  for (int call = 0; call < 2; ++call) {
    const TimedPart outer("attention forward", 1000);
    now_ += 2;
    {
      const TimedPart inner("linear forward", 30);
      now_ += 16;
    }
    now_ += 4;
  }
  now_ += 8;
  const std::vector<PartTotal> totals = parts_.stop();
  ASSERT_EQ(totals.size(), 3U);
  EXPECT_EQ(totals[0].name, kRestOfStep);
  EXPECT_EQ(totals[0].seconds, 9);
  EXPECT_EQ(totals[0].flops, 0);
  EXPECT_EQ(totals[1].name, "attention forward");
  EXPECT_EQ(totals[1].calls, 2);
  EXPECT_EQ(totals[1].seconds, 12);
  EXPECT_EQ(totals[1].flops, 2000);
  EXPECT_EQ(totals[2].calls, 2);
  EXPECT_EQ(totals[2].seconds, 32);
  EXPECT_EQ(totals[2].flops, 60);
}

TEST_F(StepPartsTest, APartInsideItselfCountsOnce) {
  parts_.start();
  {
    const TimedPart outer("block backward");
    now_ += 1;
    const TimedPart inner("block backward");
    now_ += 2;
  }
  const std::vector<PartTotal> totals = parts_.stop();
  EXPECT_EQ(find(totals, "block backward").seconds, 3);
  EXPECT_EQ(find(totals, "block backward").calls, 2);
}

TEST_F(StepPartsTest, NamesAreComparedByTheirText) {
  const std::string same[] = {"gelu forward", "gelu forward"};
  parts_.start();
  for (const std::string& name : same) {
    const TimedPart part(name.c_str());
  }
  EXPECT_EQ(find(parts_.stop(), "gelu forward").calls, 2);
}

TEST_F(StepPartsTest, NothingIsRecordedBeforeStartAndAfterStop) {
  {
    const TimedPart before("before");
    parts_.start();
    now_ += 1;
  }  // began before the recorder did, so it is no part of it
  EXPECT_EQ(parts_.stop().size(), 1U);
  const TimedPart after("after");
  parts_.start();
  const std::vector<PartTotal> again = parts_.stop();
  EXPECT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].seconds, 0);
}

TEST_F(StepPartsTest, OtherThreadsAreNotRecorded) {
  parts_.start();
  std::thread([] { const TimedPart part("elsewhere"); }).join();
  EXPECT_EQ(parts_.stop().size(), 1U);
}

TEST_F(StepPartsTest, AnExceptionClosesItsParts) {
  parts_.start();
  try {
    const TimedPart part("failing");
    now_ += 1;
    throw std::runtime_error("thrown inside a part");
  } catch (const std::runtime_error&) {
    now_ += 2;
  }
  const std::vector<PartTotal> totals = parts_.stop();
  EXPECT_EQ(find(totals, "failing").seconds, 1);
  EXPECT_EQ(find(totals, kRestOfStep).seconds, 2);
}

TEST_F(StepPartsTest, ARecorderThatGoesAwayStopsRecording) {
  {
    StepParts gone;
    gone.start();
  }
  const TimedPart part("after");
  parts_.start();
  EXPECT_EQ(parts_.stop().size(), 1U);
}

TEST_F(StepPartsTest, MisuseIsFound) {
  EXPECT_THROW(parts_.stop(), InternalError);
  parts_.start();
  EXPECT_THROW(parts_.start(), InternalError);
  {
    const TimedPart open("open");
    EXPECT_THROW(parts_.stop(), InternalError);
  }
  parts_.stop();
}

}  // namespace
}  // namespace trireme
