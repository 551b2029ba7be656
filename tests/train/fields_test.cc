// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/fields.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

namespace trireme {
namespace {

TEST(FieldsTest, OneObjectInOneLineInOrder) {
  const Fields fields = {
      {"step", 3},      {"loss", 1.5},          {"dtype", "bf16"},
      {"alone", true},  {"gone", false},        {"a\"b\n", "line\nbreak \\ \x01"},
      {"minus", -0.25}, {"big", INT64_MIN + 1}, {"none", std::string()}};
  EXPECT_EQ(to_json_line(fields),
            "{\"step\": 3, \"loss\": 1.5, \"dtype\": \"bf16\", \"alone\": true, \"gone\": false, "
            "\"a\\\"b\\n\": \"line\\nbreak \\\\ \\u0001\", \"minus\": -0.25, "
            "\"big\": -9223372036854775807, \"none\": \"\"}\n");
  EXPECT_EQ(to_json_line({}), "{}\n");
}

TEST(FieldsTest, WhatJsonLacks) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(to_json(std::nan("")), "null");
  EXPECT_EQ(to_json(infinity), "null");
  EXPECT_EQ(to_json(-infinity), "null");
  EXPECT_EQ(to_json(std::string("a\xff")), "\"a\xef\xbf\xbd\"");
}

TEST(FieldsTest, EveryFiniteNumberReadsBackAsTheSameBits) {
  std::mt19937_64 random(3);
  std::vector<double> values = {
      0.0,         -0.0,   0.1,     1e20, 1e16,
      123456789.0, 5e-324, 1.0 / 3, 1e15, std::numeric_limits<double>::max()};
  for (int i = 0; i < 10'000; ++i) {
    values.push_back(std::bit_cast<double>(random()));
  }
  for (const double value : values) {
    if (std::isfinite(value)) {
      const double read = nlohmann::json::parse(to_json(value)).get<double>();
      // A JSON parser may read "-0" as an integer; its sign is all that is lost.
      EXPECT_EQ(std::bit_cast<std::uint64_t>(read + 0.0), std::bit_cast<std::uint64_t>(value + 0.0))
          << to_json(value);
    }
  }
}

}  // namespace
}  // namespace trireme
