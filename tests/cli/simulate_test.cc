// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme simulate, and the timeline of a run beside what it says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

const std::vector<std::string> kStages = {"parallel.pp=3", "model.layers=6",
                                          "parallel.pipeline.layers=[2,3,1]"};

constexpr const char* kPicture =
    "mesh: pp 3, 3 workers\n"
    "\n"
    "stage  blocks   and              rank       F ms       I ms       W ms\n"
    "0      0-1      embedding           0      0.018      0.019      0.017\n"
    "1      2-4                          1      0.027      0.028      0.025\n"
    "2      5        head                2      0.037      0.010      0.009\n"
    "Times are estimated from sizes, of one micro-batch; --measure measures them here.\n"
    "\n"
    "1f1b: 3 ranks, 4 micro-batches, step 405.274 us, bubble 37.4 %\n"
    "rank 0 |F0F1F2...........B0--F3..B1--.....B2--..B3--|\n"
    "rank 1 |..F0-F1-...B0----F2-B1---F3-B2----B3----....|\n"
    "rank 2 |.....F0--B0F1--B1...F2--B2..F3--B3..........|\n"
    "F forward  B backward  . idle\n";

// How often each name stands in a lane of a rank of a Chrome trace.
std::map<std::string, int> spans_of(const std::string& file, const std::string& lane, int rank) {
  const Json trace = Json::parse(read_text(file));
  std::map<int, std::string> lanes;
  std::map<std::string, int> spans;
  for (const Json& event : trace["traceEvents"]) {
    if (event["pid"] != rank) continue;
    if (event["name"] == "thread_name") lanes[event["tid"]] = event["args"]["name"];
    if (event["ph"] == "X" && lanes.at(event["tid"]) == lane) ++spans[event["name"]];
  }
  return spans;
}

class SimulateTest : public CliTest {
 protected:
  ProgramResult simulate(const std::vector<std::string>& more) const {
    std::vector<std::string> argv = {kTrireme, "simulate", config()};
    argv.insert(argv.end(), more.begin(), more.end());
    return run_program(argv);
  }
  static std::vector<std::string> with_stages(std::vector<std::string> more) {
    more.insert(more.begin(), kStages.begin(), kStages.end());
    return more;
  }
};

TEST_F(SimulateTest, DrawsTheScheduleOfARun) {
  const ProgramResult result = simulate(kStages);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith(kPicture));
  EXPECT_THAT(result.out, HasSubstr("* 1f1b "));
  for (const char* other : {"gpipe", "interleaved", "zb-h1", "zbv", "dualpipev"}) {
    EXPECT_THAT(result.out, HasSubstr(std::string("\n  ") + other));
  }
}

TEST_F(SimulateTest, SaysWhyASchedulesCannotBe) {
  const ProgramResult result = simulate({"parallel.pp=4", "model.layers=6"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              HasSubstr("  zbv          a pipeline of 8 stages needs a block for each"));
}

TEST_F(SimulateTest, TellsTheMemoryWithoutAPipeline) {
  const ProgramResult result = simulate({});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("no pipeline: parallel.pp is 1\n"));
  EXPECT_THAT(result.out, HasSubstr("weights"));
}

TEST_F(SimulateTest, TellsMachinesTheSame) {
  const ProgramResult result = simulate(with_stages({"--json", "parallel.dp=2"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["workers"], 6);
  EXPECT_EQ(json["micro_batches"], 2);
  ASSERT_EQ(json["stages"].size(), 3U);
  EXPECT_EQ(json["stages"][1]["first_block"], 2);
  EXPECT_EQ(json["stages"][1]["blocks"], 3);
  EXPECT_EQ(json["stages"][2]["head"], true);
  ASSERT_EQ(json["ranks"].size(), 3U);
  double idle = 0;
  for (const Json& rank : json["ranks"]) {
    const double busy = rank["busy_us"], step = json["step_us"], bubble = rank["bubble"];
    EXPECT_NEAR(bubble, 1 - busy / step, 1e-9);
    idle += bubble / 3;
    EXPECT_GT(rank["memory"]["activations_bytes"], 0);
  }
  EXPECT_NEAR(json["bubble"], idle, 1e-9);
}

// A schedule that is written is one that can be read, and the same.
TEST_F(SimulateTest, WritesItsScheduleAndItsTimeline) {
  const std::string csv = path("mine.csv"), trace = path("mine.json");
  ASSERT_EQ(simulate(with_stages({"--csv", csv, "--trace", trace})).exit_code, 0);
  const std::map<std::string, int> first = spans_of(trace, "compute", 0);
  EXPECT_EQ(first.size(), 8U) << "forward and backward of 4 micro-batches";
  EXPECT_EQ(first.at("0F3"), 1);
  EXPECT_EQ(spans_of(trace, "send", 1).at("1SEND_B2"), 1);
  const std::vector<std::string> again = {"parallel.pipeline.schedule=" + csv, "--json"};
  const Json read = Json::parse(simulate(with_stages(again)).out);
  EXPECT_EQ(read["step_us"], Json::parse(simulate(with_stages({"--json"})).out)["step_us"]);
  EXPECT_EQ(read["schedules"][0]["chosen"], true);
  expect_refused(simulate(with_stages({"--csv", csv})), {"--csv", csv, "--force"});
  EXPECT_EQ(simulate(with_stages({"--csv", csv, "--force"})).exit_code, 0);
  expect_refused(simulate({"parallel.pp=2", "parallel.pipeline.schedule=" + csv}),
                 {csv, "for 3 ranks", "parallel.pp is 2"});
}

TEST_F(SimulateTest, MeasuresLayersHere) {
  const ProgramResult result = simulate(with_stages({"--measure", "--json"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["times"], "measured");
  EXPECT_GT(json["stages"][1]["forward_us"], 0);
}

TEST_F(SimulateTest, RefusesWhatNoRunCouldDo) {
  expect_refused(simulate({"parallel.pp=7", "model.layers=6"}),
                 {"parallel.pp is 7", "model.layers is 6", "at most 6"});
  expect_refused(simulate({"parallel.pp=2", "--workers", "3"}),
                 {"parallel.pp 2", "a multiple of 2 workers", "there are 3"});
  expect_refused(simulate({"parallel.pp=2", "parallel.pipeline.schedule=zbw"}), {"zbw", "zbv"});
  expect_refused(simulate({"parallel.pp=2", "parallel.pipeline.layers=[1,2]"}),
                 {"parallel.pipeline.layers", "2 stages with 3 blocks"});
  expect_refused(simulate({"parallel.pp=2", "parallel.dp=3"}), {"cannot share 4 micro-batches"});
  expect_refused(simulate({"--trace", path("no.json")}), {"parallel.pp is 1", "--trace"});
}

// The timeline of a step that ran has what the simulated one has, each once.
TEST_F(SimulateTest, ARunWritesTheTimelineOfAStep) {
  for (const std::string schedule : {"1f1b", "zbv"}) {
    const std::vector<std::string> settings = {"parallel.pp=2", "model.layers=4",
                                               "parallel.pipeline.schedule=" + schedule};
    std::vector<std::string> simulated = settings;
    simulated.insert(simulated.end(), {"--trace", path(schedule + ".json")});
    ASSERT_EQ(simulate(simulated).exit_code, 0);
    const ProgramResult run = train(schedule, settings);
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_THAT(run.err, HasSubstr("pipeline: bubble "));
    const std::string trace = path(schedule) + "/pipeline_trace.json";
    for (const int rank : {0, 1}) {
      for (const std::string lane : {"compute", "send", "receive"}) {
        EXPECT_EQ(spans_of(trace, lane, rank), spans_of(path(schedule + ".json"), lane, rank))
            << schedule << ", rank " << rank << ", " << lane;
      }
    }
    EXPECT_FALSE(spans_of(trace, "wait", 1).empty()) << "for the first activations";
  }
}

TEST_F(SimulateTest, ARunWritesNoTimelineWhereNoneIsWanted) {
  train_or_fail("none", {"parallel.pp=2", "parallel.pipeline.trace_step=0", "train.steps=4"});
  EXPECT_FALSE(std::filesystem::exists(path("none") + "/pipeline_trace.json"));
}

}  // namespace
}  // namespace trireme::testing
