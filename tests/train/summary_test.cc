// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/summary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace trireme {
namespace {

const Fields kFields = {{"parameters", 10'623'104}, {"loss", 3.14159265}, {"dtype", "bf16"},
                        {"finished", true},         {"rate", 1234567.8},  {"tiny", 1.5e-7},
                        {"negative", -1'234},       {"nan", std::nan("")}};

TEST(SummaryTest, FileHoldsEveryFieldInOrder) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder / "summary.json").string();
  testing::write_text(path, "older and longer than nothing");
  write_summary(path, kFields);
  EXPECT_EQ(testing::read_text(path),
            "{\n"
            "  \"parameters\": 10623104,\n"
            "  \"loss\": 3.14159265,\n"
            "  \"dtype\": \"bf16\",\n"
            "  \"finished\": true,\n"
            "  \"rate\": 1234567.8,\n"
            "  \"tiny\": 1.5e-07,\n"
            "  \"negative\": -1234,\n"
            "  \"nan\": null\n"
            "}\n");
}

TEST(SummaryTest, TableIsAligned) {
  EXPECT_EQ(format_table(kFields),
            "  parameters  10,623,104\n"
            "  loss        3.14159\n"
            "  dtype       bf16\n"
            "  finished    yes\n"
            "  rate        1,234,568\n"
            "  tiny        1.5e-07\n"
            "  negative    -1,234\n"
            "  nan         nan\n");
  EXPECT_EQ(format_table({}), "");
}

TEST(SummaryTest, GroupsOfThousands) {
  EXPECT_EQ(format_table({{"a", 0}, {"b", 999}, {"c", 1000}, {"d", -999}, {"e", 1'000'000'000}}),
            "  a  0\n  b  999\n  c  1,000\n  d  -999\n  e  1,000,000,000\n");
  EXPECT_EQ(format_table({{"a", 1e300}, {"b", -2e6}, {"c", 999999.4}}),
            "  a  1e+300\n  b  -2,000,000\n  c  999999\n");
}

}  // namespace
}  // namespace trireme
