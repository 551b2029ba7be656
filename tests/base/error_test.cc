// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <type_traits>

#include "trireme/base/check.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Error, ExitCodeTellsTheUsersMistakesFromOurs) {
  EXPECT_EQ(exit_code(ConfigError("x")), 2);
  EXPECT_EQ(exit_code(ShapeError("x")), 2);
  EXPECT_EQ(exit_code(DataError("x")), 2);
  EXPECT_EQ(exit_code(CheckpointError("x")), 2);
  EXPECT_EQ(exit_code(Error("x")), 1);
  EXPECT_EQ(exit_code(CommError("x")), 1);
  EXPECT_EQ(exit_code(TimeoutError("x")), 1);
  EXPECT_EQ(exit_code(PeerLostError(3, "x")), 1);
  EXPECT_EQ(exit_code(InternalError("x")), 1);
  EXPECT_EQ(exit_code(std::runtime_error("x")), 1);
}

// Who catches Error or CommError depends on these; a bug of ours is neither.
TEST(Error, FamiliesAreApart) {
  EXPECT_TRUE((std::is_base_of_v<CommError, TimeoutError>));
  EXPECT_TRUE((std::is_base_of_v<CommError, PeerLostError>));
  EXPECT_TRUE((std::is_base_of_v<Error, CommError>));
  EXPECT_FALSE((std::is_base_of_v<Error, InternalError>));
  EXPECT_FALSE((std::is_base_of_v<std::runtime_error, InternalError>));
}

TEST(Error, ThrowErrorFormats) {
  try {
    throw_error<DataError>("{} of {} samples", 3, 7);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), "3 of 7 samples");
  }
}

TEST(Error, PeerLostNamesTheRank) {
  const PeerLostError error(5, "rank 5 is gone");
  EXPECT_EQ(error.rank(), 5);
  EXPECT_STREQ(error.what(), "rank 5 is gone");
}

template <class Call>
std::string internal_error(Call call) {
  try {
    call();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

TEST(Check, AssertSaysWhatWhereAndWhoseFault) {
  const int held = 3;
  EXPECT_THAT(internal_error([&] { TRIREME_ASSERT(held == 4, "held {}", held); }),
              AllOf(HasSubstr("error_test.cc:"), HasSubstr("held == 4 does not hold: held 3"),
                    HasSubstr("bug in Trireme, please report it")));
  EXPECT_EQ(internal_error([&] { TRIREME_ASSERT(held == 3, "held {}", held); }), "");
}

TEST(Check, ComparisonsPrintBothValues) {
  const int small = 3, large = 7;
  EXPECT_THAT(internal_error([&] { TRIREME_CHECK_EQ(small, large, "frame {}", 9); }),
              HasSubstr("small (3) == large (7) does not hold: frame 9"));
  EXPECT_THAT(internal_error([&] { TRIREME_CHECK_LT(large, small, "x"); }),
              HasSubstr("large (7) < small (3)"));
  EXPECT_THAT(internal_error([&] { TRIREME_CHECK_LE(large, small, "x"); }),
              HasSubstr("large (7) <= small (3)"));
  EXPECT_EQ(internal_error([&] {
              TRIREME_CHECK_EQ(small, 3, "x");
              TRIREME_CHECK_LT(small, large, "x");
              TRIREME_CHECK_LE(small, small, "x");
            }),
            "");
}

TEST(Check, OperandsAreEvaluatedOnce) {
  int calls = 0;
  TRIREME_CHECK_EQ(++calls, 1, "x");
  TRIREME_ASSERT(++calls == 2, "x");
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace trireme
