// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/timeline_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/timeline_stats.h"

namespace trireme::plan {
namespace {

using Json = nlohmann::json;

Json parsed(const std::vector<TraceSpan>& spans) {
  std::ostringstream output;
  TraceWriter writer(output);
  for (const TraceSpan& span : spans) writer.add(span);
  writer.close();
  return Json::parse(output.str());
}

TEST(TimelineTrace, NamesRanksAndLanesOnceAndKeepsEachSpan) {
  const Json trace =
      parsed({{3, "compute", "3F0", 1.5, 2.25, {{"stage", "3"}, {"note", "a \"b\"\n"}}},
              {3, "send", "3SEND_F0", 3.75, 0, {}},
              {1, "compute", "1F7", 0, 1e9, {}},
              {3, "compute", "3B0", 4, 1, {}}});
  EXPECT_EQ(trace.at("displayTimeUnit"), "ms");
  std::map<std::pair<int, int>, std::string> threads;
  std::map<int, std::string> processes;
  std::vector<Json> spans;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") {
      spans.push_back(event);
    } else if (event.at("name") == "process_name") {
      EXPECT_TRUE(processes.emplace(event.at("pid"), event.at("args").at("name")).second);
    } else {
      ASSERT_EQ(event.at("name"), "thread_name");
      EXPECT_TRUE(threads
                      .emplace(std::pair<int, int>(event.at("pid"), event.at("tid")),
                               event.at("args").at("name"))
                      .second);
    }
  }
  EXPECT_EQ(processes, (std::map<int, std::string>{{1, "rank 1"}, {3, "rank 3"}}));
  ASSERT_EQ(spans.size(), 4U);
  const auto lane = [&](const Json& span) { return threads.at({span.at("pid"), span.at("tid")}); };
  EXPECT_EQ(lane(spans[0]), "compute");
  EXPECT_EQ(lane(spans[1]), "send");
  EXPECT_EQ(lane(spans[2]), "compute");
  EXPECT_EQ(lane(spans[3]), "compute");
  EXPECT_EQ(spans[0].at("name"), "3F0");
  EXPECT_EQ(spans[0].at("ts"), 1.5);
  EXPECT_EQ(spans[0].at("dur"), 2.25);
  EXPECT_EQ(spans[0].at("args"), (Json{{"stage", "3"}, {"note", "a \"b\"\n"}}));
  EXPECT_EQ(spans[2].at("dur"), 1e9);
  EXPECT_FALSE(spans[3].contains("args"));
}

TEST(TimelineTrace, IsWholeWithoutSpansAndWithoutClose) {
  EXPECT_TRUE(parsed({}).at("traceEvents").empty());
  std::ostringstream output;
  {
    TraceWriter writer(output);
    writer.add({.rank = 2, .lane = "compute", .name = "bad \xff byte", .duration_us = 1});
  }
  EXPECT_EQ(Json::parse(output.str()).at("traceEvents").back().at("name"), "bad \xEF\xBF\xBD byte");
}

TEST(TimelineTrace, RefusesTimesThatAreNone) {
  std::ostringstream output;
  TraceWriter writer(output);
  EXPECT_THROW(writer.add({.name = "x", .start_us = std::nan("")}), InternalError);
  EXPECT_THROW(writer.add({.name = "x", .duration_us = -1}), InternalError);
  writer.close();
  writer.close();
  EXPECT_THROW(writer.add({.name = "x"}), InternalError);
  EXPECT_TRUE(Json::parse(output.str()).at("traceEvents").empty());
}

TEST(TimelineTrace, ShowsASimulatedStep) {
  const Schedule schedule =
      with_communication(generate_schedule({.name = "1f1b", .ranks = 3, .micro_batches = 4}), {});
  const ScheduleReport report =
      verify_schedule(schedule, std::vector<StageCosts>(3, {.send_us = 2}), {});
  const std::vector<TraceSpan> spans = trace_spans(report);
  std::map<std::string, int> lanes;
  for (const TraceSpan& span : spans) ++lanes[span.lane];
  EXPECT_EQ(lanes,
            (std::map<std::string, int>{{"compute", 3 * 8}, {"receive", 2 * 8}, {"send", 2 * 8}}));
  // And the names of 3 ranks and of 3 lanes of each.
  EXPECT_EQ(parsed(spans).at("traceEvents").size(), spans.size() + 12U);

  // What the spans say of each rank is what the report does.
  const std::vector<RankUse> uses = rank_uses(spans);
  ASSERT_EQ(uses.size(), 3U);
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(uses[rank].rank, static_cast<int>(rank));
    EXPECT_DOUBLE_EQ(uses[rank].busy_us, report.ranks[rank].busy_us);
    EXPECT_DOUBLE_EQ(uses[rank].bubble, report.ranks[rank].bubble);
  }
}

}  // namespace
}  // namespace trireme::plan
