// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/error_text.h"
#include "tests/support/temporary_folder.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;
using trireme::testing::failure_of;

Schedule read(const std::string& text) {
  std::istringstream input(text);
  return read_schedule(input, "mine", "mine.csv");
}

std::string refusal(const std::string& text) {
  return failure_of([&] { read(text); });
}

std::string written(const Schedule& schedule) {
  std::ostringstream output;
  write_schedule(output, schedule);
  return output.str();
}

TEST(ScheduleFile, KeepsEverySchedule) {
  for (const std::string& name : schedule_names()) {
    const Schedule compute = generate_schedule({.name = name, .ranks = 3, .micro_batches = 5});
    for (const bool whole : {false, true}) {
      Schedule schedule = compute;
      if (whole) {
        schedule = with_communication(compute,
                                      {.tied = true, .gather = true, .train = name != "streaming"});
      }
      schedule.name = "mine";
      EXPECT_TRUE(read(written(schedule)) == schedule) << name;
    }
  }
}

// As PyTorch writes them: empty cells for idle time, at the ends too; a fused pair.
TEST(ScheduleFile, ReadsThePyTorchForm) {
  const Schedule schedule = read(
      "0F0,0F1,,(3F0;0B0)OVERLAP_F_B,3I0,3W0,3F1,3B1,0I1,0W1\r\n"
      " , 1F0 ,2F0,1F1,2F1,2B0,1B0,2B1,1B1,,\n"
      "\n");
  EXPECT_EQ(schedule.ranks, 2);
  EXPECT_EQ(schedule.micro_batches, 2);
  EXPECT_THAT(schedule.rank_of_stage, ElementsAre(0, 1, 1, 0));
  EXPECT_EQ(written(schedule),
            "0F0,0F1,3F0,0B0,3I0,3W0,3F1,3B1,0I1,0W1\n"
            "1F0,2F0,1F1,2F1,2B0,1B0,2B1,1B1\n");
}

TEST(ScheduleFile, NamesTheCellThatIsWrong) {
  EXPECT_EQ(refusal("0F0,0B0\n,1F0,1B0,1G1\n"),
            "ConfigError: mine.csv, line 2, column 4 (rank 1): '1G1' is no instruction; wanted one "
            "like 0F3, 1I0, 2RECV_F4, 0UNSHARD or STEP");
  for (const char* cell : {"(0F1;0B0)", "(0F1)OVERLAP_F_B", "(0F1;0B0;0F2)OVERLAP_F_B",
                           "(0F1;)OVERLAP_F_B", "(OVERLAP_F_B", "0F1 0B0", "F0", "99999999999F0"}) {
    EXPECT_THAT(refusal(std::string("0F0,,") + cell),
                StartsWith(std::string("ConfigError: mine.csv, line 1, column 3 (rank 0): '") +
                           cell + "' is no instruction"));
  }
  EXPECT_EQ(refusal("0F0,0B0\n1F0,0B1\n"),
            "ConfigError: mine.csv, line 2, column 2 (rank 1): '0B1', but stage 0 is on rank 0: "
            "line 1");
  EXPECT_EQ(refusal("0F0\n3F0\n"),
            "ConfigError: mine.csv: stage 3 is on rank 1, but stage 1 is on no rank");
  EXPECT_EQ(refusal("STEP\n,\n"),
            "ConfigError: mine.csv: no instruction of a stage in 2 row(s); wanted a row for each "
            "rank");
  EXPECT_EQ(refusal(""),
            "ConfigError: mine.csv: no instruction of a stage in 0 row(s); wanted a "
            "row for each rank");
}

// A row without cells, but others after it, is a rank that does nothing: for the verifier to
// refuse.
TEST(ScheduleFile, CountsARankForEachRow) {
  const Schedule schedule = read("0F0,0B0\n\n1F0,1B0\n");
  EXPECT_THAT(schedule.rank_of_stage, ElementsAre(0, 2));
  EXPECT_EQ(failure_of([&] { verify_schedule(schedule, {}, {}); }),
            "ConfigError: schedule mine: rank 1 has no stage; 2 stages are on 3 ranks");
}

TEST(ScheduleFile, LoadsAFileUnderItsName) {
  const trireme::testing::TemporaryFolder folder;
  const auto file = folder.path() / "v_shape.csv";
  std::ofstream(file) << "0F0,0B0\n";
  EXPECT_EQ(load_schedule(file).name, "v_shape");
  EXPECT_EQ(
      failure_of([&] { load_schedule("/nowhere/x.csv"); }),
      "ConfigError: schedule file /nowhere/x.csv cannot be opened: No such file or directory");
}

}  // namespace
}  // namespace trireme::plan
