// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the plan of a pipeline says that each rank's memory is used for, against the ledgers of
// ranks that are processes of their own.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

constexpr double kBound = 0.1;
// With blocks computed again in two parts, what is computed and what waits for W overlap in ways
// that are not counted.
constexpr double kBlocksBound = 0.25;
// A head's gradient, f32 [1003, 96]: how many of them wait for the first rank's answers is also a
// matter of chance.
constexpr double kTiedBytes = 4.0 * 1003 * 96;

// With ZeRO on two copies of the pipeline.
void expect_as_planned(int ranks, const std::string& recompute, int shard = 0) {
  const int workers = shard > 0 ? 2 * ranks : ranks;
  // Of 40 cases; all of them in the long set.
  const int every = std::getenv("RC_PARAMS") != nullptr ? 1 : 3;
  const ProgramResult result = run_program(
      {kTrireme, "launch", "--workers", std::to_string(workers), "--", TRIREME_PIPELINE_MEMORY,
       recompute, std::to_string(shard), std::to_string(every)});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with('{')) continue;
    ++count;
    const nlohmann::json record = nlohmann::json::parse(line);
    for (const char* category : {"weights", "gradients", "optimizer"}) {
      const double planned = record[category][0], measured = record[category][1];
      if (shard == 0) {
        EXPECT_EQ(planned, measured) << category << ": " << line;
        continue;
      }
      // Shares are of whole blocks; of pieces of sums, the most there can be are counted.
      EXPECT_GE(planned, measured) << category << ": " << line;
      EXPECT_LE(planned, (std::string(category) == "gradients" ? 1.5 : 1.05) * measured)
          << category << ": " << line;
    }
    const double planned = record["activations"][0], measured = record["activations"][1];
    const bool tied = record["case"].get<std::string>().find("tied=yes") != std::string::npos;
    const double bound = (recompute == "blocks" ? kBlocksBound : kBound) * measured +
                         (tied && record["rank"] == ranks - 1 ? kTiedBytes : 0);
    EXPECT_LE(std::abs(planned - measured), bound) << line;
  }
  EXPECT_EQ(count, (40 + every - 1) / every * ranks);
}

TEST(PipelineMemory, OfTwoRanksIsAsPlanned) { expect_as_planned(2, "none"); }
TEST(PipelineMemory, OfFourRanksIsAsPlanned) { expect_as_planned(4, "none"); }
TEST(PipelineMemory, WithZeRO) { expect_as_planned(2, "none", 3); }
TEST(PipelineMemory, WithHiddenValuesComputedAgain) { expect_as_planned(2, "activations"); }
TEST(PipelineMemory, WithBlocksComputedAgain) { expect_as_planned(2, "blocks"); }

}  // namespace
}  // namespace trireme::testing
