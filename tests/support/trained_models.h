// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// All that a Model gives away, to be compared between strategies.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/support/fitted_models.h"
#include "trireme/train/model.h"

namespace trireme::testing {

struct Trained {
  History history;
  Logs evaluation;
  at::Tensor predictions;
};

inline void expect_same(const Trained& found, const Trained& expected, const std::string& where) {
  EXPECT_TRUE(found.history.epochs == expected.history.epochs) << where;
  EXPECT_TRUE(found.evaluation == expected.evaluation) << where;
  EXPECT_TRUE(found.predictions.equal(expected.predictions)) << where;
}

inline FitOptions with_validation(std::int64_t epochs) {
  FitOptions options = quiet(epochs);
  options.validation = dataset(17, 5);
  return options;
}

struct Training {
  CompileOptions compile = {};
  Dataset data = dataset(kSamples, 1);
  FitOptions fit = with_validation(3);
  Loss loss = MeanSquaredError();
};

inline Trained train(Strategy& strategy, const torch::nn::Sequential& net,
                     const OptimizerRecipe& optimizer, const Training& training = {}) {
  const auto scope = strategy.scope();
  Model model(scope, net);
  model.compile(optimizer, training.loss, {BinaryAccuracy(), MeanAbsoluteError()},
                training.compile);
  Trained result;
  result.history = model.fit(training.data, training.fit);
  result.evaluation = model.evaluate(dataset(kSamples, 1), 7);
  result.predictions = model.predict(samples(kSamples, 2).inputs, 7);
  return result;
}

}  // namespace trireme::testing
