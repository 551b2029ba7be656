// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/reduction_tree.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/reference_tree.h"
#include "trireme/comm/float16.h"

namespace trireme {
namespace {

using testing::Bytes;

TEST(ReductionTree, SplitsAtTheLargestPowerOfTwoBelow) {
  EXPECT_EQ(tree_split(0, 2), 1);
  EXPECT_EQ(tree_split(0, 3), 2);
  EXPECT_EQ(tree_split(0, 4), 2);
  EXPECT_EQ(tree_split(0, 5), 4);
  EXPECT_EQ(tree_split(0, 8), 4);
  EXPECT_EQ(tree_split(4, 7), 6);
  EXPECT_EQ(tree_split(8, 17), 16);
}

// Sums that show their association: 2^24 + 1 + 1 depends on where the ones meet.
TEST(ReductionTree, AssociatesAsTheContractSays) {
  const float big = 16777216.0F;
  const std::vector<float> values{big, 1.0F, 1.0F, -big, 1.0F, 1.0F};
  std::vector<const void*> inputs;
  for (const float& value : values) inputs.push_back(&value);
  float sum = 0;
  reduce_tree(inputs, &sum, 1, DType::kF32, ReduceOp::kSum);
  EXPECT_EQ(sum, ((values[0] + values[1]) + (values[2] + values[3])) + (values[4] + values[5]));
  EXPECT_NE(sum, ((((values[0] + values[1]) + values[2]) + values[3]) + values[4]) + values[5]);
}

TEST(ReductionTree, EqualsTheReferenceForEveryNumberOfInputs) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    for (int n = 1; n <= 40; ++n) {
      std::vector<Bytes> inputs;
      std::vector<const void*> pointers;
      for (int i = 0; i < n; ++i) inputs.push_back(testing::distinct_data(i, 1033, dtype));
      for (const Bytes& input : inputs) pointers.push_back(input.data());
      const Bytes expected = testing::reference_reduce(inputs, dtype, ReduceOp::kSum);
      // The output may be any one of the inputs.
      Bytes& out = inputs[static_cast<std::size_t>(n / 2)];
      reduce_tree(pointers, out.data(), 1033, dtype, ReduceOp::kSum);
      ASSERT_TRUE(out == expected) << dtype_name(dtype) << " of " << n;
    }
  }
}

TEST(ReductionTree, NanWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> left{nan, 1.0F, nan};
  const std::vector<float> right{1.0F, nan, nan};
  const std::vector<const void*> inputs{left.data(), right.data()};
  for (const ReduceOp op : {ReduceOp::kMin, ReduceOp::kMax, ReduceOp::kSum}) {
    std::vector<float> out(3);
    reduce_tree(inputs, out.data(), 3, DType::kF32, op);
    for (const float value : out) EXPECT_TRUE(std::isnan(value));
  }
}

TEST(Float16, DecodesEveryWord) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    const auto f16 = static_cast<float>(testing::decode_small_float(word, 10));
    const auto bf16 = static_cast<float>(testing::decode_small_float(word, 7));
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(word)));
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(f16_to_f32(word)), std::bit_cast<std::uint32_t>(f16))
          << bits;
    }
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(word)));
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(bf16_to_f32(word)), std::bit_cast<std::uint32_t>(bf16))
          << bits;
    }
  }
}

// Every word, its neighbours in f32, and the midpoints between words, where ties are.
TEST(Float16, RoundsToNearestEven) {
  const auto check = [](float value) {
    const std::uint16_t f16 = f32_to_f16(value);
    const std::uint16_t bf16 = f32_to_bf16(value);
    if (std::isnan(value)) return std::isnan(f16_to_f32(f16)) && std::isnan(bf16_to_f32(bf16));
    return f16 == testing::encode_small_float(value, 10) &&
           bf16 == testing::encode_small_float(value, 7);
  };
  const float infinity = std::numeric_limits<float>::infinity();
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    const auto next = static_cast<std::uint16_t>(bits + 1);
    for (const float value :
         {f16_to_f32(word), bf16_to_f32(word), (f16_to_f32(word) + f16_to_f32(next)) / 2,
          bf16_to_f32(word) / 2 + bf16_to_f32(next) / 2}) {
      for (const float near :
           {value, std::nextafter(value, infinity), std::nextafter(value, -infinity)}) {
        ASSERT_TRUE(check(near)) << near << " " << std::hex << std::bit_cast<std::uint32_t>(near);
      }
    }
  }
}

}  // namespace
}  // namespace trireme
