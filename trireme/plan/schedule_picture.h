// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A schedule drawn for a terminal: a row for each rank, time from left to right.
//
//   1f1b: 3 ranks, 4 micro-batches, step 18 us, bubble 33.3 %
//   rank 0 |F0F1F2........B0--F3B1--..B2--..B3--|
//   rank 1 |..F0F1....B0--F2B1--F3B2--..B3--....|
//   rank 2 |....F0B0--F1B1--F2B2--F3B3--........|
//   F forward  B backward  . idle
#pragma once

#include <string>

#include "trireme/plan/schedule.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {

struct PictureOptions {
  int width = 100;      // of a row, columns
  bool colour = false;  // ANSI escape sequences: a background for each of F, B, I and W
};

// The picture of what the report says, each line with its end.
//
// If there is room, the shortest instruction has as many columns as its letter and the highest
// micro-batch need, and each instruction says both; else a column is the shortest instruction's
// time, or as much more as makes the step fit, and shows the letter of what runs in its middle;
// with colour, which tells the letter, the micro-batch's last digit. Letters of a rank's chunks
// after its first are small. Throws ConfigError for a width in which a row has no room for time.
std::string draw_schedule(const Schedule& schedule, const ScheduleReport& report,
                          const PictureOptions& options);

}  // namespace trireme::plan
