// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What one RangeReplica does where protocol_test.cc does not lead, as there are too many ways.

#include "trireme/ps/protocol/range_replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace trireme::ps {
namespace {

using Kind = Effect::Kind;

constexpr ServerId kSelf = 1, kOther = 2;
const std::vector<WorkerView> kWorkers = {{.id = 11, .rank = 0}, {.id = 12, .rank = 1}};

std::vector<Effect> of_kind(const std::vector<Effect>& effects, Kind kind) {
  std::vector<Effect> found;
  std::copy_if(effects.begin(), effects.end(), std::back_inserter(found),
               [kind](const Effect& effect) { return effect.kind == kind; });
  return found;
}

RangeView held_by(ServerId primary, ServerId backup, Term since) {
  return {.primary = primary, .backup = backup, .backup_since = since, .backup_ready = true};
}

// A primary in its second term, which is one of handover. The backup lacks a change that the
// workers have been told of in no way.
RangeReplica in_handover() {
  RangeReplica replica(kSelf, {});
  replica.enter_view(1, held_by(kSelf, kOther, 1), {kWorkers[0]});
  replica.init(101, 1);
  RangeView range = held_by(kSelf, kOther, 1);
  range.handover = true;
  replica.enter_view(2, range, kWorkers);
  return replica;
}

TEST(RangeReplica, WaitsInAHandoverForAllThatItsBackupLacks) {
  RangeReplica replica = in_handover();
  EXPECT_TRUE(of_kind(replica.take_effects(), Kind::kReport).empty());
  replica.acknowledge(kOther, 2, 1);
  EXPECT_EQ(of_kind(replica.take_effects(), Kind::kReport).size(), 1U);
  // Once in a term.
  replica.acknowledge(kOther, 2, 1);
  EXPECT_TRUE(of_kind(replica.take_effects(), Kind::kReport).empty());
}

TEST(RangeReplica, TakesNobodyInDuringAHandover) {
  RangeReplica replica = in_handover();
  replica.acknowledge(kOther, 2, 1);
  replica.take_effects();
  replica.enter(102, 12, 2);
  EXPECT_TRUE(replica.take_effects().empty());
  replica.enter_view(3, held_by(kOther, kSelf, 3), kWorkers);
  const std::vector<Effect> answers = of_kind(replica.take_effects(), Kind::kAnswer);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].ticket, 102);
  EXPECT_EQ(answers[0].answer, Answer::kRetry);
  EXPECT_EQ(replica.state().applied, 1);
  // Once.
  replica.enter_view(4, held_by(kOther, kSelf, 3), kWorkers);
  EXPECT_TRUE(of_kind(replica.take_effects(), Kind::kAnswer).empty());
}

TEST(RangeReplica, SendsNothingAgainWhenItLeadsNoMore) {
  RangeReplica replica = in_handover();
  replica.take_effects();
  replica.resend();
  EXPECT_EQ(of_kind(replica.take_effects(), Kind::kReplicate).size(), 1U);
  replica.enter_view(3, held_by(kOther, kSelf, 3), kWorkers);
  replica.take_effects();
  replica.resend();
  EXPECT_TRUE(replica.take_effects().empty());
}

TEST(RangeReplica, IgnoresOlderViews) {
  RangeReplica replica = in_handover();
  replica.take_effects();
  replica.enter_view(1, held_by(kOther, kSelf, 1), kWorkers);
  replica.enter_view(2, held_by(kOther, kSelf, 1), kWorkers);
  EXPECT_TRUE(replica.take_effects().empty());
  EXPECT_EQ(replica.term(), 2);
  EXPECT_TRUE(replica.is_primary());
}

}  // namespace
}  // namespace trireme::ps
