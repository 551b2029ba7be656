// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "tests/support/error_text.h"
#include "trireme/plan/generate_schedule.h"

namespace trireme::plan {
namespace {

using ::testing::HasSubstr;
using trireme::testing::failure_of;

std::string picture(const ScheduleRequest& request, const PictureOptions& options) {
  const Schedule schedule = generate_schedule(request);
  return draw_schedule(schedule, verify_schedule(schedule, {}, {}), options);
}

TEST(SchedulePicture, ShowsWhatEachRankDoesWhen) {
  EXPECT_EQ(picture({.name = "1f1b", .ranks = 3, .micro_batches = 4}, {}),
            "1f1b: 3 ranks, 4 micro-batches, step 18 us, bubble 33.3 %\n"
            "rank 0 |F0F1F2........B0--F3B1--..B2--..B3--|\n"
            "rank 1 |..F0F1....B0--F2B1--F3B2--..B3--....|\n"
            "rank 2 |....F0B0--F1B1--F2B2--F3B3--........|\n"
            "F forward  B backward  . idle\n");
}

TEST(SchedulePicture, TellsChunksApartAndPartsOfABackward) {
  EXPECT_EQ(
      picture({.name = "zbv", .ranks = 2, .micro_batches = 4}, {.width = 80}),
      "zbv: 2 ranks, 4 micro-batches, step 25 us, bubble 4.0 %\n"
      "rank 0 |F0F1F2f0i0w0f1i1w1F3I0W0f2i2w2I1W1f3i3I2w3I3W2W3..|\n"
      "rank 1 |..F0f0F1f1i0w0F2I0W0f2i1w1F3I1W1f3i2I2i3I3w2w3W2W3|\n"
      "F forward  I backward of the input  W backward of the weights  . idle  small letters: the "
      "rank's later chunks\n");
}

TEST(SchedulePicture, ScalesToTheWidth) {
  EXPECT_EQ(picture({.name = "1f1b", .ranks = 3, .micro_batches = 4}, {.width = 30}),
            "1f1b: 3 ranks, 4 micro-batches, step 18 us, bubble 33.3 %\n"
            "rank 0 |FFF....BBFBB.BB.BB|\n"
            "rank 1 |.FF..BBFBBFBB.BB..|\n"
            "rank 2 |..FBBFBBFBBFBB....|\n"
            "F forward  B backward  . idle\n");
  EXPECT_EQ(picture({.name = "gpipe", .ranks = 12, .micro_batches = 3}, {.width = 28}),
            "gpipe: 12 ranks, 3 micro-batches, step 42 us, bubble 78.6 %\n"
            "rank 0  |F..............BBB|\n"
            "rank 1  |FF.............BB.|\n"
            "rank 2  |.F............BB..|\n"
            "rank 3  |.FF..........BB...|\n"
            "rank 4  |..F.........BBB...|\n"
            "rank 5  |..F........BBB....|\n"
            "rank 6  |...F......BBB.....|\n"
            "rank 7  |...F.....BBB......|\n"
            "rank 8  |...FF....BB.......|\n"
            "rank 9  |....F...BB........|\n"
            "rank 10 |....FF.BB.........|\n"
            "rank 11 |.....FBBB.........|\n"
            "F forward  B backward  . idle\n");
}

TEST(SchedulePicture, ColoursWhatItCannotName) {
  EXPECT_EQ(
      picture({.name = "1f1b", .ranks = 2, .micro_batches = 2}, {.width = 20, .colour = true}),
      "1f1b: 2 ranks, 2 micro-batches, step 9 us, bubble 33.3 %\n"
      "rank 0 |\x1b[30;44m01\x1b[0m..\x1b[30;42m00\x1b[0m.\x1b[30;42m11\x1b[0m|\n"
      "rank 1 |.\x1b[30;44m0\x1b[30;42m00\x1b[30;44m1\x1b[30;42m11\x1b[0m..|\n"
      "\x1b[30;44mF\x1b[0m forward  \x1b[30;42mB\x1b[0m backward  . idle\n");
}

TEST(SchedulePicture, NeverExceedsTheWidth) {
  for (const std::string& name : schedule_names()) {
    for (int width = 10; width < 200; width += 7) {
      std::istringstream rows(
          picture({.name = name, .ranks = 3, .micro_batches = 11}, {.width = width}));
      int ranks = 0;
      for (std::string row; std::getline(rows, row);) {
        if (!row.starts_with("rank ")) continue;
        ++ranks;
        EXPECT_LE(row.size(), static_cast<std::size_t>(width)) << name;
      }
      EXPECT_EQ(ranks, 3);
    }
  }
}

TEST(SchedulePicture, RefusesAWidthWithoutRoom) {
  EXPECT_EQ(failure_of([] { picture({.name = "gpipe", .ranks = 12}, {.width = 10}); }),
            "ConfigError: schedule gpipe: a picture 10 columns wide, wanted at least 11");
}

}  // namespace
}  // namespace trireme::plan
