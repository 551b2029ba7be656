// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/slurm_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(SlurmLists, FirstHost) {
  const std::pair<const char*, const char*> cases[] = {
      {"node7", "node7"},
      {"node7,node8", "node7"},
      {"login-1.cluster.example,x2", "login-1.cluster.example"},
      {"node[003-005,7],x1", "node003"},
      {"node[7]", "node7"},
      {"node[7,003-005]", "node7"},
      {"node[0010-0099]-ib", "node0010-ib"},
      {"rack[1-2]node[01-16]", "rack1node01"},
      {"[5-6]", "5"},
      {"a[1,2]b[3,4]c,d", "a1b3c"},
      {"n[18446744073709551614-18446744073709551615]", "n18446744073709551614"},
  };
  for (const auto& [list, host] : cases) {
    EXPECT_EQ(first_slurm_host(list, "SLURM_STEP_NODELIST"), host) << list;
  }
}

TEST(SlurmLists, RefusesMalformedHosts) {
  for (const char* list : {"", ",node1", "node[1", "node1]", "node[]", "node[1-]", "node[-3]",
                           "node[5-3]", "node[a-b]", "node[1,]", "node[,1]", "node[1-2-3]",
                           "node[1[2]]", "node[ 1]", "n[99999999999999999999]", "]"}) {
    try {
      first_slurm_host(list, "SLURM_STEP_NODELIST");
      ADD_FAILURE() << list << " passed";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("SLURM_STEP_NODELIST=" + std::string(list) + ":"));
    }
  }
}

TEST(SlurmLists, TaskCounts) {
  EXPECT_THAT(slurm_task_counts("3", "V"), ElementsAre(3));
  EXPECT_THAT(slurm_task_counts("2(x3),1", "V"), ElementsAre(2, 2, 2, 1));
  EXPECT_THAT(slurm_task_counts("1,2,3(x2),5", "V"), ElementsAre(1, 2, 3, 3, 5));
  EXPECT_EQ(slurm_task_counts("4(x1000000)", "V").size(), 1000000U);
}

TEST(SlurmLists, RefusesMalformedCounts) {
  for (const char* list : {"",
                           ",",
                           "2,",
                           ",2",
                           "a",
                           "2(",
                           "2(x",
                           "2(x)",
                           "2(x3",
                           "2(xa)",
                           "2(3)",
                           "2(x3)1",
                           "-1",
                           "0",
                           "2(x0)",
                           "1.5",
                           " 2",
                           "2 ",
                           "4(x1000001)",
                           "1,4(x1000000)",
                           "9999999999",
                           "2(x99999999999999999999)"}) {
    EXPECT_THROW(slurm_task_counts(list, "SLURM_STEP_TASKS_PER_NODE"), ConfigError) << list;
  }
}

}  // namespace
}  // namespace trireme
