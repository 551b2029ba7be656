// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What holds for every operation: neither threads nor vector units matter.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <set>
#include <string>

#include "tests/support/compute_threads.h"
#include "tests/support/operations_of_training.h"
#include "tests/support/vector_units.h"

namespace trireme {
namespace {

using testing::Evaluation;
using testing::Operation;
using testing::VectorUnits;

Evaluation evaluate_on(int threads, const Operation& operation, at::ScalarType dtype) {
  const testing::ComputeThreads compute_threads(threads);
  return testing::evaluate(operation, operation.inputs, dtype);
}

TEST(AllOperations, OutputsAndGradientsHaveTheSameBitsOnAnyNumberOfThreads) {
  for (const Operation& operation : testing::operations_of_training()) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const Evaluation expected = evaluate_on(1, operation, dtype);
      for (const int threads : {2, 3}) {
        EXPECT_TRUE(
            testing::same_bits(evaluate_on(threads, operation, dtype).all(), expected.all()))
            << operation.name << ", " << dtype << " on " << threads;
      }
    }
  }
}

// Every set of vector units has tiles and loops of its own.
TEST(AllOperations, KernelsFollowF64OnAllVectorUnits) {
  for (const std::int64_t target : VectorUnits::all()) {
    const VectorUnits units(target);
    SCOPED_TRACE(VectorUnits::name(target));
    testing::expect_follow_f64(testing::operations_of_training());
  }
}

// Whether the bf16 dot product pays or not on the processor at hand.
TEST(AllOperations, KernelsFollowF64WithEitherProductOfBf16) {
  for (const bool used : {false, true}) {
    const testing::Bf16DotProducts products(used);
    SCOPED_TRACE(ops::bf16_dot_in_use() ? "dot product" : "widened");
    EXPECT_EQ(ops::bf16_dot_in_use(), used && ops::detail::has_bf16_dot());
    testing::expect_follow_f64(testing::operations_of_training());
  }
}

// Operations without a sum over the elements of a vector; groups of a few rows have such sums.
TEST(AllOperations, ProductsRotationsAndEmbeddingsHaveTheSameBitsOnAllVectorUnits) {
  const testing::Bf16DotProducts never(false);  // its sums are pairs
  const auto evaluate_all = [] {
    testing::Tensors results;
    for (const Operation& operation : testing::operations_of_training()) {
      const std::string kind = operation.name.substr(0, operation.name.find(' '));
      if (!std::set<std::string>{"linear", "gelu_mlp", "swiglu_mlp", "embedding", "rotary",
                                 "gather", "router"}
               .count(kind)) {
        continue;
      }
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const auto all = testing::evaluate(operation, operation.inputs, dtype).all();
        results.insert(results.end(), all.begin(), all.end());
      }
    }
    return results;
  };
  const testing::Tensors expected = evaluate_all();
  for (const std::int64_t target : VectorUnits::all()) {
    if (!VectorUnits::fuses(target)) continue;
    const VectorUnits units(target);
    EXPECT_TRUE(testing::same_bits(evaluate_all(), expected)) << VectorUnits::name(target);
  }
}

}  // namespace
}  // namespace trireme
