// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/generate_schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using trireme::testing::failure_of;

constexpr double kF = 1;
constexpr double kI = 1;
constexpr double kW = 1;
constexpr double kB = kI + kW;

std::string describe(const ScheduleRequest& r) {
  return fmt::format("{} p {} m {} v {}", r.name, r.ranks, r.micro_batches, r.chunks);
}

// Unit times.
ScheduleReport report_of(const Schedule& schedule) { return verify_schedule(schedule, {}, {}); }

// The most forwards whose B or W is not done, of all the rank's chunks.
int most_stored(const RankReport& rank) {
  int stored = 0;
  int most = 0;
  for (const Span& span : rank.timeline) {
    const Action action = span.instruction.action;
    if (action == Action::kForward) most = std::max(most, ++stored);
    if (action == Action::kBackward || action == Action::kBackwardWeight) --stored;
  }
  return most;
}

// Sizes that are no powers of two among them; m from one to beyond the steady state.
std::vector<ScheduleRequest> requests(const std::string& name,
                                      const std::vector<int>& chunks = {1}) {
  std::vector<ScheduleRequest> all;
  for (const int p : {1, 2, 3, 4, 5, 7, 8, 13}) {
    for (const int m : {1, 2, 3, p, p + 1, 2 * p, 2 * p + 1, 3 * p, 5 * p + 3}) {
      for (const int v : chunks) {
        all.push_back({.name = name, .ranks = p, .micro_batches = m, .chunks = v});
      }
    }
  }
  return all;
}

// What each rank of each schedule idles and stores, at most.
struct Figures {
  std::function<double(const ScheduleRequest&)> idle;
  std::function<int(const ScheduleRequest&, int rank)> stored;
};

void expect_figures(const ScheduleRequest& request, const Figures& figures) {
  SCOPED_TRACE(describe(request));
  const ScheduleReport report = report_of(generate_schedule(request));
  for (std::size_t rank = 0; rank < report.ranks.size(); ++rank) {
    EXPECT_EQ(report.ranks[rank].idle_us, figures.idle(request)) << "rank " << rank;
    EXPECT_EQ(most_stored(report.ranks[rank]), figures.stored(request, static_cast<int>(rank)))
        << "rank " << rank;
  }
}

TEST(GenerateSchedule, GpipeIdlesOnceThereAndBackAndStoresAll) {
  for (const ScheduleRequest& request : requests("gpipe")) {
    expect_figures(request, {.idle = [](const auto& r) { return (r.ranks - 1) * (kF + kB); },
                             .stored = [](const auto& r, int) { return r.micro_batches; }});
  }
}

TEST(GenerateSchedule, OneForwardOneBackwardIdlesAsGpipeAndStoresTheWayToTheLastRank) {
  for (const ScheduleRequest& request : requests("1f1b")) {
    expect_figures(request,
                   {.idle = [](const auto& r) { return (r.ranks - 1) * (kF + kB); },
                    .stored = [](const auto& r,
                                 int rank) { return std::min(r.micro_batches, r.ranks - rank); }});
  }
}

// The times are of a stage: a rank's whole F is v of them, so (p-1)(F+B)/v is (p-1)(kF+kB).
TEST(GenerateSchedule, InterleavedIdlesAChunkThereAndBack) {
  for (const ScheduleRequest& request : requests("interleaved", {1, 2, 3})) {
    if (request.micro_batches < request.ranks) continue;
    SCOPED_TRACE(describe(request));
    const int p = request.ranks;
    const bool equal_rounds = request.micro_batches % p == 0;
    const ScheduleReport report = report_of(generate_schedule(request));
    for (int rank = 0; rank < p; ++rank) {
      const RankReport& mine = report.ranks[static_cast<std::size_t>(rank)];
      EXPECT_EQ(mine.idle_us, (p - 1) * (kF + kB)) << "rank " << rank;
      if (!equal_rounds) continue;
      const int most =
          request.chunks == 1 ? p - rank : (request.chunks - 1) * p + 2 * (p - 1 - rank) + 1;
      EXPECT_EQ(most_stored(mine), std::min(most, request.micro_batches * request.chunks))
          << "rank " << rank;
    }
  }
}

// Fewer micro-batches than ranks cost something, but no more than without chunks.
TEST(GenerateSchedule, InterleavedTakesFewMicroBatches) {
  for (const ScheduleRequest& request : requests("interleaved", {2, 3})) {
    if (request.micro_batches >= request.ranks) continue;
    SCOPED_TRACE(describe(request));
    const ScheduleReport report = report_of(generate_schedule(request));
    const double plain = request.chunks * (request.ranks - 1) * (kF + kB);
    EXPECT_LE(report.ranks[0].idle_us, plain);
  }
}

TEST(GenerateSchedule, ZeroBubbleH1IdlesForwardsOnly) {
  for (const ScheduleRequest& request : requests("zb-h1")) {
    if (request.micro_batches < request.ranks) continue;
    SCOPED_TRACE(describe(request));
    const ScheduleReport report = report_of(generate_schedule(request));
    for (const RankReport& rank : report.ranks) {
      EXPECT_EQ(rank.idle_us, (request.ranks - 1) * (kF + kI - kW));
      EXPECT_LE(most_stored(rank), request.ranks);
    }
  }
}

// All that is left is what no order avoids: the first micro-batch reaches rank r after r forwards,
// and the last one leaves rank 0 last.
TEST(GenerateSchedule, ZeroBubbleVIdlesOnlyAtItsEnds) {
  for (const ScheduleRequest& request : requests("zbv")) {
    SCOPED_TRACE(describe(request));
    const int p = request.ranks;
    const ScheduleReport report = report_of(generate_schedule(request));
    for (int rank = 0; rank < p; ++rank) {
      const RankReport& mine = report.ranks[static_cast<std::size_t>(rank)];
      EXPECT_LE(most_stored(mine), 2 * p);
      if (request.micro_batches < 2 * p) continue;
      EXPECT_EQ(mine.idle_us, p - 1);
      double inner = mine.timeline.back().end_us - mine.timeline.front().start_us - mine.busy_us;
      EXPECT_EQ(inner, 0) << "rank " << rank << " waits between its instructions";
      EXPECT_EQ(mine.timeline.front().start_us, rank);
    }
  }
}

TEST(GenerateSchedule, DualPipeVIdlesAndStoresLessThanItsReport) {
  for (const ScheduleRequest& request : requests("dualpipev")) {
    SCOPED_TRACE(describe(request));
    const int p = request.ranks;
    const ScheduleReport report = report_of(generate_schedule(request));
    for (const RankReport& rank : report.ranks) {
      EXPECT_LE(most_stored(rank), 2 * p + 1);
      if (request.micro_batches < 2 * p) continue;
      EXPECT_EQ(rank.idle_us, p - 1);
      EXPECT_LE(rank.idle_us, (p - 1) * ((kF + kB) + kB - 3 * kW));
    }
  }
}

// From the first pair to the last a forward of a chunk stands beside the backward of the other.
TEST(GenerateSchedule, DualPipeVPairsForwardsWithBackwardsOfTheOtherChunk) {
  const int p = 5;
  const int m = 17;
  const Schedule schedule =
      generate_schedule({.name = "dualpipev", .ranks = p, .micro_batches = m});
  for (int rank = 0; rank < p; ++rank) {
    const std::vector<Instruction>& list = schedule.of_rank[static_cast<std::size_t>(rank)];
    int pairs = 0;
    for (std::size_t i = 0; i + 1 < list.size(); ++i) {
      pairs += list[i].action == Action::kForward && list[i + 1].action == Action::kBackward &&
               list[i].stage != list[i + 1].stage;
    }
    EXPECT_GE(pairs, 2 * (m - 2 * p)) << "rank " << rank;
  }
}

TEST(GenerateSchedule, StreamingGoesForwardOnly) {
  for (const ScheduleRequest& request : requests("streaming")) {
    SCOPED_TRACE(describe(request));
    const Schedule schedule = generate_schedule(request);
    EXPECT_FALSE(has_backward(schedule));
    for (const RankReport& rank : report_of(schedule).ranks) {
      EXPECT_EQ(rank.idle_us, (request.ranks - 1) * kF);
    }
  }
}

std::string orders_of(const Schedule& schedule) {
  std::string text;
  for (const std::vector<Instruction>& list : schedule.of_rank) {
    for (const Instruction& instruction : list) text += to_string(instruction) + " ";
    text.back() = '\n';
  }
  return text;
}

TEST(GenerateSchedule, HasTheWellKnownOrders) {
  const auto orders = [](const char* name, int ranks, int micro_batches, int chunks) {
    return orders_of(generate_schedule(
        {.name = name, .ranks = ranks, .micro_batches = micro_batches, .chunks = chunks}));
  };
  EXPECT_EQ(orders("gpipe", 2, 3, 1),
            "0F0 0F1 0F2 0B0 0B1 0B2\n"
            "1F0 1F1 1F2 1B0 1B1 1B2\n");
  EXPECT_EQ(orders("1f1b", 3, 4, 1),
            "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3\n"
            "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3\n"
            "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3\n");
  EXPECT_EQ(orders("interleaved", 2, 4, 2),
            "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3\n"
            "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3\n");
  EXPECT_EQ(
      orders("zbv", 2, 4, 1),
      "0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0F3 0I0 0W0 3F2 3I2 3W2 0I1 0W1 3F3 3I3 0I2 3W3 0I3 "
      "0W2 0W3\n"
      "1F0 2F0 1F1 2F1 2I0 2W0 1F2 1I0 1W0 2F2 2I1 2W1 1F3 1I1 1W1 2F3 2I2 1I2 2I3 1I3 2W2 2W3 "
      "1W2 1W3\n");
}

// Every name, size and way to communicate: the verifier proves it.
TEST(GenerateSchedule, IsProvenWithAndWithoutCommunication) {
  for (const std::string& name : schedule_names()) {
    for (const ScheduleRequest& request :
         requests(name, name == "interleaved" ? std::vector<int>{1, 2, 4} : std::vector<int>{1})) {
      SCOPED_TRACE(describe(request));
      const Schedule schedule = generate_schedule(request);
      const double step_us = verify_schedule(schedule, {}, {}).step_us;
      for (int choice = 0; choice < 4; ++choice) {
        const CommunicationOptions options{
            .tied = (choice & 1) != 0, .gather = (choice & 2) != 0, .train = name != "streaming"};
        const Schedule whole = with_communication(schedule, options);
        const VerifyOptions strict{.max_receives = 1, .tied = options.tied};
        EXPECT_EQ(verify_schedule(whole, {}, strict).step_us, step_us);
      }
    }
  }
}

// The step's time under the request's times.
double step_of(const Schedule& schedule, const std::vector<StageTimes>& times) {
  std::vector<StageCosts> costs(times.size());
  for (std::size_t stage = 0; stage < times.size(); ++stage) {
    const StageTimes& of = times[stage];
    costs[stage] = {of.forward, of.backward_input, of.backward_weight};
  }
  return verify_schedule(schedule, costs, {}).step_us;
}

RC_GTEST_PROP(GenerateSchedule, IsNeverSlowerForKnowingTheTimes, ()) {
  ScheduleRequest request{.name = *rc::gen::elementOf(schedule_names())};
  request.ranks = *rc::gen::inRange(1, 7);
  request.micro_batches = *rc::gen::inRange(1, 18);
  const Schedule equal = generate_schedule(request);
  for (int stage = 0; stage < equal.stages(); ++stage) {
    const auto time = [] { return *rc::gen::inRange(1, 40) / 10.0; };
    request.times.push_back({time(), time(), time()});
  }
  const Schedule fitted = generate_schedule(request);
  RC_ASSERT(step_of(fitted, request.times) <= step_of(equal, request.times));
}

// A head that takes longer than any other stage, and forwards and weights that take less than I.
TEST(GenerateSchedule, IsFasterForKnowingTheTimes) {
  ScheduleRequest request{.name = "zbv", .ranks = 4, .micro_batches = 16};
  const Schedule equal = generate_schedule(request);
  request.times.assign(8, {.forward = 2, .backward_input = 3, .backward_weight = 1});
  request.times.back().forward = 4;
  const Schedule fitted = generate_schedule(request);
  EXPECT_LT(step_of(fitted, request.times), step_of(equal, request.times));
}

TEST(WithCommunication, PutsEachMessageBesideItsCompute) {
  const Schedule schedule = generate_schedule({.name = "1f1b", .ranks = 2, .micro_batches = 2});
  EXPECT_EQ(orders_of(with_communication(schedule, {.tied = true, .gather = true})),
            "0UNSHARD 0F0 0SEND_F0 0RECV_B0 0F1 0SEND_F1 0RECV_B1 0B0 0SEND_T0 0B1 0SEND_T1 "
            "0RESHARD 0REDUCE_GRAD STEP\n"
            "1UNSHARD 1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1 1RESHARD 1RECV_T0 "
            "1RECV_T1 1REDUCE_GRAD STEP\n");
}

TEST(WithCommunication, SendsNothingBetweenStagesOfOneRank) {
  const Schedule schedule = generate_schedule({.name = "zbv", .ranks = 1, .micro_batches = 2});
  const std::string text = orders_of(with_communication(schedule, {.tied = true}));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("SEND")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("RECV")));
  EXPECT_THAT(text, ::testing::EndsWith("REDUCE_GRAD STEP\n"));
}

TEST(WithCommunication, RefusesWhatItCannotComplete) {
  const Schedule trains = generate_schedule({.name = "1f1b", .ranks = 2, .micro_batches = 2});
  const Schedule infers = generate_schedule({.name = "streaming", .ranks = 2, .micro_batches = 2});
  EXPECT_EQ(failure_of([&] { with_communication(with_communication(trains, {}), {}); }),
            "ConfigError: schedule 1f1b has its communication already");
  EXPECT_EQ(failure_of([&] { with_communication(infers, {}); }),
            "ConfigError: schedule streaming has no backward pass, but train is true");
  EXPECT_EQ(failure_of([&] { with_communication(trains, {.train = false}); }),
            "ConfigError: schedule 1f1b has a backward pass, but train is false");
}

TEST(GenerateSchedule, RefusesWhatItDoesNotKnow) {
  const auto refused = [](const ScheduleRequest& request) {
    return failure_of([&] { generate_schedule(request); });
  };
  EXPECT_THAT(refused({.name = "1f1"}),
              AllOf(HasSubstr("ConfigError: unknown schedule '1f1', known are gpipe, 1f1b"),
                    HasSubstr("did you mean '1f1b'?")));
  EXPECT_EQ(refused({.name = "gpipe", .ranks = 0}),
            "ConfigError: schedule gpipe: ranks 0, wanted at least 1");
  EXPECT_EQ(refused({.name = "gpipe", .micro_batches = -3}),
            "ConfigError: schedule gpipe: micro-batches -3, wanted at least 1");
  EXPECT_EQ(
      refused({.name = "interleaved", .ranks = 1 << 30, .micro_batches = 3, .chunks = 1 << 30}),
      "ConfigError: schedule interleaved: 1152921504606846976 stages by 3 micro-batches, wanted "
      "at most 16777216 in all");
  EXPECT_EQ(refused({.name = "zbv", .ranks = 2, .chunks = 3}),
            "ConfigError: schedule zbv has 2 chunks on a rank, not 3; interleaved has any number");
  EXPECT_EQ(refused({.name = "1f1b", .ranks = 3, .times = {{}, {}}}),
            "ConfigError: schedule 1f1b: times of 2 stages, but 3 ranks have 3");
  EXPECT_EQ(refused({.name = "1f1b", .ranks = 2, .times = {{}, {1, 0, 1}}}),
            "ConfigError: schedule 1f1b: stage 1 takes the times 1, 0 and 1, wanted above 0");
}

}  // namespace
}  // namespace trireme::plan
