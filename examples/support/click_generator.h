// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A click log out of nothing, with a rule in it that is known: so it is known too how well a model
// can do.
//
//   const ClickGenerator clicks({.seed = 3});
//   const PlantedClicks part = clicks.make({.first = 100, .count = 10});  // samples 100 to 109
//   Auc reachable;
//   reachable.add(part.logits, part.batch.labels);  // no model has a higher one, but for luck
//
// Sample i is a pure function of the seed and i, so every worker can make its part without files.
//
// The rule. A category is drawn from its column by Zipf's law; its rank there, counted from the
// commonest, says what it does. The logit of a click is the sum of
// - a bias;
// - for each number, a weight times click_number();
// - for each column, an effect of the category;
// - for some pairs of columns, the product of a factor of the one category and a factor of the
//   other: no sum of effects can tell it, a dot product of vectors can.
// The label is drawn with that probability.
//
// What is easier than life: only the kSignalRanks commonest categories of a column have effects and
// factors, all others have none. What is seen once in a run teaches nothing about what is seen
// next, so an effect there would only lower what any model can reach; without one, the millions of
// rare rows are noise that a model must learn to ignore.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "examples/support/click_batch.h"
#include "trireme/base/random.h"

namespace trireme::examples {

// Ids with ranks 0, 1, ... in [0, cardinality): rank r comes with the probability
// integral from r + 1 to r + 2 of x^-skew dx, over that up to cardinality + 1.
struct ClickColumn {
  std::int64_t cardinality = 1;
  double skew = 1.05;
};

struct ClickGeneratorOptions {
  std::uint64_t seed = 1;
  // How many categories each column has: those of the public log of seven days (Kaggle 2014), in
  // its order.
  std::vector<ClickColumn> columns = public_columns();

  static std::vector<ClickColumn> public_columns();
};

// Samples first, first + stride, ...: count of them.
struct ClickRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t stride = 1;
};

struct PlantedClicks {
  ClickBatch batch;
  at::Tensor logits;  // f32 [B]: the rule's own
};

// Constant after construction; any thread may call it.
class ClickGenerator {
 public:
  static constexpr std::int64_t kSignalRanks = 100;

  // Throws ConfigError: other than kClickCategories columns, or one that cannot be.
  explicit ClickGenerator(const ClickGeneratorOptions& options);

  // On the threads of at::parallel_for(), some 2 us a sample on one.
  PlantedClicks make(const ClickRange& range) const;
  // The sample as a line of a log, see click_log.h, without its end.
  std::string line(std::int64_t sample) const;

 private:
  struct Drawn;
  Drawn draw(std::int64_t sample) const;
  double logit(const Drawn& drawn) const;

  std::vector<ClickColumn> columns_;
  RandomStream draws_;
  std::vector<double> weights_;  // [kClickNumbers]
  std::vector<double> effects_;  // [kClickCategories, kSignalRanks]
  std::vector<double> factors_;  // [pairs, 2, kSignalRanks]
  double bias_ = 0;
};

// Makes a log of the samples [0, count) at path. Throws Error where it cannot be written.
void write_click_log(const ClickGenerator& generator, std::int64_t count, const std::string& path);

}  // namespace trireme::examples
