// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/dense_codec.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/codec_values.h"
#include "tests/support/error_text.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using trireme::testing::failure_of;
using trireme::testing::heavy_tailed_values;

class DenseCodec : public ::testing::TestWithParam<std::string> {};

std::vector<std::byte> encode(DenseEncoder& encoder, std::vector<float> values) {
  std::vector<std::byte> bytes(encoder.encoded_bytes(values.size()));
  encoder.encode(values, bytes);
  return bytes;
}

// What the server has had after each push, and what the worker gave it: the difference is owed, and
// pushes of zeros pay it.
TEST_P(DenseCodec, BringsInTheEndWhatItWasGiven) {
  rc::detail::checkGTest([] {
    const auto count = *rc::gen::inRange<std::size_t>(1, 2000);
    const auto stream = *rc::gen::arbitrary<std::uint32_t>();
    DenseEncoder encoder(GetParam());
    std::vector<double> given(count), had(count);
    double largest = 0;
    const auto push = [&](const std::vector<float>& values) {
      const std::vector<std::byte> bytes = encode(encoder, values);
      RC_ASSERT(bytes.size() == encoded_dense_bytes(GetParam(), static_cast<std::int64_t>(count)));
      std::vector<float> decoded(count, -7.0F);
      decode_dense(GetParam(), bytes, decoded);
      for (std::size_t i = 0; i < count; ++i) {
        given[i] += double{values[i]};
        had[i] += double{decoded[i]};
        largest = std::max(largest, std::abs(given[i]));
      }
    };
    for (std::uint64_t step = 0; step < 3; ++step) {
      push(heavy_tailed_values(count, 3 * stream + step));
    }
    // topk(0.3) brings each element within four pushes, and what bf16 then owes in the next four.
    for (int i = 0; i < 12; ++i) push(std::vector<float>(count));
    for (std::size_t i = 0; i < count; ++i) {
      RC_ASSERT(std::abs(given[i] - had[i]) <= 1e-5 * largest);
    }
  });
}

// An error, or as many values as there are.
TEST_P(DenseCodec, ReadsNothingOutOfDamagedBytes) {
  rc::detail::checkGTest([] {
    const auto count = *rc::gen::inRange<std::size_t>(1, 2000);
    DenseEncoder encoder(GetParam());
    std::vector<std::byte> bytes = encode(encoder, heavy_tailed_values(count, 3));
    const auto changes = *rc::gen::inRange(1, 6);
    for (int i = 0; i < changes; ++i) {
      // The front, where topk has its counts and indices, more often than the rest.
      const auto most = *rc::gen::element<std::size_t>(8, bytes.size());
      bytes[*rc::gen::inRange<std::size_t>(0, std::min(most, bytes.size()))] =
          static_cast<std::byte>(*rc::gen::arbitrary<std::uint8_t>());
    }
    std::vector<float> decoded(count);
    try {
      decode_dense(GetParam(), bytes, decoded);
    } catch (const ProtocolError&) {
    }
  });
}

TEST_P(DenseCodec, RefusesOtherSizes) {
  DenseEncoder encoder(GetParam());
  std::vector<std::byte> bytes = encode(encoder, heavy_tailed_values(100, 3));
  std::vector<float> decoded(100);
  bytes.resize(bytes.size() - 1);
  EXPECT_THROW(decode_dense(GetParam(), bytes, decoded), ProtocolError);
  bytes.resize(bytes.size() + 2);
  EXPECT_THROW(decode_dense(GetParam(), bytes, decoded), ProtocolError);
}

INSTANTIATE_TEST_SUITE_P(Names, DenseCodec, ::testing::Values("bf16", "int8", "topk(0.3)"));

TEST(DenseCodecs, OfOtherNamesAreRefused) {
  for (const std::string name :
       {"", "f32", "BF16", "int8 ", "gzip", "topk", "topk()", "topk(0)", "topk(-1)", "topk(1.5)",
        "topk(nan)", "topk(0.1", "topk(0.1x)", "topk( 0.1)", "topk(1e-999)", "lowrank(4)"}) {
    EXPECT_THAT(failure_of([&] { DenseEncoder encoder(name); }),
                AllOf(HasSubstr("ConfigError"), HasSubstr(fmt::format("codec '{}'", name)),
                      HasSubstr("bf16, int8, or topk(f)")));
    std::vector<float> values(10);
    EXPECT_THROW(encoded_dense_bytes(name, 10), ProtocolError) << name;
    EXPECT_THROW(decode_dense(name, std::vector<std::byte>(40), values), ProtocolError) << name;
  }
}

}  // namespace
}  // namespace trireme::ps
