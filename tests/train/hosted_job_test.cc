// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/hosted_job.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

// As where a program's arguments are refused: what it says of them is not lost among other lines.
TEST(HostedJob, EndsInSilenceWhereNoWorkerHasCome) {
  ::testing::internal::CaptureStderr();
  {
    HostedJob job({.servers = 3, .workers = 2});
    EXPECT_GT(job.port(), 0);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace trireme
