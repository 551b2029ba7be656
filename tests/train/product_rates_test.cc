// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/product_rates.h"

#include <ATen/ops/matmul.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/train/bench/step_bench.h"
#include "trireme/train/bench/timing.h"

namespace trireme {
namespace {

constexpr BenchTiming kQuick = {.max_samples = 5, .seconds = 0};

int calls = 0;

void plain(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out) {
  ++calls;
  out.copy_(at::matmul(a.to(at::kFloat), b.to(at::kFloat)));  // LibTorch's sums of bf16 are in bf16
}
void slow(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out) {
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  plain(a, b, out);
}
// The rows in another order.
void wrong(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out) {
  plain(a.flip(0), b, out);
}

std::vector<MatrixProduct> products() {
  std::vector<MatrixProduct> all = linear_products(5, 7, 3);
  for (const MatrixProduct& product : attention_products({2, 5, 6, 3, 4})) all.push_back(product);
  return all;
}

TEST(ProductRates, OneForEachProductAndEngineOfTheList) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const ProductEngine engines[] = {{"plain", plain}};
    const auto rates = measure_product_rates(products(), dtype, kQuick, engines);
    ASSERT_EQ(rates.size(), products().size());
    double seconds = 0;
    for (std::size_t i = 0; i < rates.size(); ++i) {
      EXPECT_EQ(rates[i].product.name, products()[i].name);
      EXPECT_EQ(rates[i].product.shape(), products()[i].shape());
      EXPECT_EQ(rates[i].product.count, products()[i].count);
      EXPECT_EQ(rates[i].engine, "plain");
      seconds += products()[i].needed_flops() / rates[i].flops_per_s;
    }
    EXPECT_DOUBLE_EQ(seconds_at_rates(rates), seconds);
  }
}

TEST(ProductRates, OursTakeEveryStorageOfAStep) {
  for (const ProductRate& rate : measure_product_rates(products(), at::kFloat, kQuick)) {
    EXPECT_GT(rate.flops_per_s, 0) << rate.product.shape();
    EXPECT_TRUE(rate.engine == "oneDNN" || rate.engine == "trireme") << rate.engine;
  }
}

TEST(ProductRates, TheFastestEngineCounts) {
  const ProductEngine engines[] = {{"slow", slow}, {"plain", plain}, {"slow too", slow}};
  for (const ProductRate& rate :
       measure_product_rates(linear_products(5, 7, 3), at::kFloat, kQuick, engines)) {
    EXPECT_EQ(rate.engine, "plain");
  }
}

TEST(ProductRates, EqualShapesAreMeasuredOnce) {
  const ProductEngine engines[] = {{"plain", plain}};
  const auto once = linear_products(5, 7, 3);
  auto twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  calls = 0;
  measure_product_rates(once, at::kFloat, kQuick, engines);
  const int calls_of_once = calls;
  measure_product_rates(twice, at::kFloat, kQuick, engines);
  EXPECT_EQ(calls, 2 * calls_of_once);
}

TEST(ProductRates, AWrongResultIsAnError) {
  const ProductEngine engines[] = {{"wrong", wrong}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    try {
      measure_product_rates(linear_products(50, 70, 30), dtype, kQuick, engines);
      FAIL() << "not found wrong in " << c10::toString(dtype);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("wrong multiplies [50, 70] x [30, 70]^T"));
    }
  }
}

TEST(BenchTimes, AtLeastFiveRunsAndOneUnmeasured) {
  int runs = 0;
  const auto count = [&] { ++runs; };
  EXPECT_EQ(time_runs(count, {.max_samples = 1, .seconds = 0}).size(), 5U);
  EXPECT_EQ(runs, 6);
  EXPECT_EQ(time_runs(count, {.max_samples = 9, .seconds = 60}).size(), 9U);
}

TEST(BenchTimes, ARateIsSmallWhereTheTimeIsLong) {
  const Spread rate = rate_spread(6, {.median = 3, .p10 = 2, .p90 = 6});
  EXPECT_EQ(rate.median, 2);
  EXPECT_EQ(rate.p10, 1);
  EXPECT_EQ(rate.p90, 3);
}

TEST(StepBench, OptimizerBytesAreArraysOfAdamW) {
  EXPECT_EQ(optimizer_bytes_per_parameter(at::kFloat), 4 * 7);
  EXPECT_EQ(optimizer_bytes_per_parameter(at::kBFloat16), 4 * 7 + 2);
}

}  // namespace
}  // namespace trireme
