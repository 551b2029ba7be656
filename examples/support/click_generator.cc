// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/click_generator.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

constexpr std::int64_t kSignal = ClickGenerator::kSignalRanks;

// Draws of a sample: one for each category, two for each number, one for the label.
constexpr std::int64_t kDraws = 64;
constexpr std::int64_t kNumberDraws = kClickCategories;
constexpr std::int64_t kMissingDraws = kNumberDraws + kClickNumbers;
constexpr std::int64_t kLabelDraw = kMissingDraws + kClickNumbers;
static_assert(kLabelDraw < kDraws);

// A tail this long is left empty in its commonest category, as the public logs are.
constexpr std::int64_t kLongTail = 1'000'000;

// Counts are exp of a normal number with this mean and deviation, rounded down.
constexpr double kCountMean = 1.5;
constexpr double kCountDeviation = 1.2;
// Number c is missing in c % 4 of these parts of the samples.
constexpr double kMissingParts = 10;

// The size of the rule's terms. With these about a quarter of the samples are clicks, and the
// reachable area under the curve is about 0.8, as it is for the public logs.
constexpr double kBias = -1.4;
constexpr double kWeight = 0.15;
constexpr double kEffect = 0.25;
constexpr double kFactor = 0.4;

// Columns whose categories' factors are multiplied.
struct Pair {
  std::int64_t left;
  std::int64_t right;
};
constexpr std::array<Pair, 6> kPairs{{{0, 13}, {1, 24}, {4, 5}, {7, 8}, {16, 21}, {19, 22}}};

// The rank that Zipf's law gives for a uniform number, by inverting the integral of the density.
std::int64_t zipf_rank(double uniform, const ClickColumn& column) {
  const double end = static_cast<double>(column.cardinality) + 1, power = 1 - column.skew;
  const double x = std::abs(power) < 1e-9
                       ? std::pow(end, uniform)
                       : std::pow(1 + uniform * (std::pow(end, power) - 1), 1 / power);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(x) - 1, 0, column.cardinality - 1);
}

// What the log has for a rank: eight digits that look like a hash; an odd factor makes no two the
// same. Nothing for the commonest of a long tail.
std::optional<std::uint32_t> category_value(std::int64_t column, std::int64_t rank,
                                            std::int64_t cardinality) {
  if (rank == 0 && cardinality >= kLongTail) return {};
  return static_cast<std::uint32_t>(rank) * 0x9E3779B1U +
         static_cast<std::uint32_t>(column) * 0x85EBCA77U;
}

}  // namespace

struct ClickGenerator::Drawn {
  bool click = false;
  double logit = 0;
  std::array<std::optional<std::int64_t>, kClickNumbers> counts = {};
  std::array<std::int64_t, kClickCategories> ranks = {};
};

std::vector<ClickColumn> ClickGeneratorOptions::public_columns() {
  // Source: the counts that the authors of DLRM give for the log of the Kaggle challenge.
  constexpr std::array<std::int64_t, kClickCategories> kCardinalities = {
      1460,  583,  10131227, 2202608, 305, 24,     12517,   633,   3,
      93145, 5683, 8351593,  3194,    27,  14992,  5461306, 10,    5652,
      2173,  4,    7046547,  18,      15,  286181, 105,     142572};
  // Skews: tails long enough that some million samples meet more than ten million categories.
  constexpr double kTailSkew = 0.6, kHeadSkew = 1.1;
  std::vector<ClickColumn> columns;
  for (const std::int64_t cardinality : kCardinalities) {
    columns.push_back({cardinality, cardinality >= kLongTail ? kTailSkew : kHeadSkew});
  }
  return columns;
}

ClickGenerator::ClickGenerator(const ClickGeneratorOptions& options)
    : columns_(options.columns), draws_(options.seed, "clicks") {
  if (std::ssize(columns_) != kClickCategories) {
    throw_error<ConfigError>("{} columns of categories; a click log has {}", columns_.size(),
                             kClickCategories);
  }
  for (const ClickColumn& column : columns_) {
    if (column.cardinality < 1 || column.cardinality > std::int64_t{1} << 32 ||
        !std::isfinite(column.skew) || column.skew < 0) {
      throw_error<ConfigError>(
          "a column of {} categories with a skew of {}: 1 to 2^32, and 0 or more, would be right",
          column.cardinality, column.skew);
    }
  }
  const auto normals = [&](std::string_view name, std::int64_t count, double deviation) {
    const RandomStream stream(options.seed, name);
    std::vector<double> values;
    for (std::int64_t i = 0; i < count; ++i) {
      values.push_back(deviation * stream.normal(static_cast<std::uint64_t>(i)));
    }
    return values;
  };
  weights_ = normals("weights", kClickNumbers, kWeight);
  effects_ = normals("effects", kClickCategories * kSignal, kEffect);
  factors_ = normals("factors", std::ssize(kPairs) * 2 * kSignal, std::sqrt(kFactor));
  bias_ = kBias;
  for (const double weight : weights_) bias_ -= weight * kCountMean;
}

ClickGenerator::Drawn ClickGenerator::draw(std::int64_t sample) const {
  const auto index = [&](std::int64_t draw) {
    return static_cast<std::uint64_t>(sample * kDraws + draw);
  };
  Drawn drawn;
  for (std::int64_t c = 0; c < kClickCategories; ++c) {
    const auto column = static_cast<std::size_t>(c);
    drawn.ranks[column] = zipf_rank(draws_.uniform(index(c)), columns_[column]);
  }
  for (std::int64_t c = 0; c < kClickNumbers; ++c) {
    const double missing = static_cast<double>(c % 4) / kMissingParts;
    if (draws_.uniform(index(kMissingDraws + c)) < missing) continue;
    const double normal = draws_.normal(index(kNumberDraws + c));
    drawn.counts[static_cast<std::size_t>(c)] =
        static_cast<std::int64_t>(std::exp(kCountMean + kCountDeviation * normal));
  }
  drawn.logit = logit(drawn);
  drawn.click = draws_.uniform(index(kLabelDraw)) < 1 / (1 + std::exp(-drawn.logit));
  return drawn;
}

double ClickGenerator::logit(const Drawn& drawn) const {
  const auto has_signal = [&](std::int64_t c) {
    return drawn.ranks[static_cast<std::size_t>(c)] < kSignal;
  };
  // Of a table [n, kSignal], row i, for the category of column c.
  const auto entry = [&](const std::vector<double>& table, std::int64_t i, std::int64_t c) {
    return table[static_cast<std::size_t>(i * kSignal + drawn.ranks[static_cast<std::size_t>(c)])];
  };
  double sum = bias_;
  for (std::size_t c = 0; c < drawn.counts.size(); ++c) {
    sum += weights_[c] * static_cast<double>(click_number(drawn.counts[c]));
  }
  for (std::int64_t c = 0; c < kClickCategories; ++c) {
    if (has_signal(c)) sum += entry(effects_, c, c);
  }
  for (std::int64_t p = 0; p < std::ssize(kPairs); ++p) {
    const auto [left, right] = kPairs[static_cast<std::size_t>(p)];
    if (!has_signal(left) || !has_signal(right)) continue;
    sum += entry(factors_, 2 * p, left) * entry(factors_, 2 * p + 1, right);
  }
  return sum;
}

PlantedClicks ClickGenerator::make(const ClickRange& range) const {
  const std::int64_t count = range.count;
  PlantedClicks made{{at::empty({count}, at::kFloat), at::empty({count, kClickNumbers}, at::kFloat),
                      at::empty({count, kClickCategories}, at::kLong)},
                     at::empty({count}, at::kFloat)};
  auto* labels = made.batch.labels.data_ptr<float>();
  auto* numbers = made.batch.numbers.data_ptr<float>();
  auto* categories = made.batch.categories.data_ptr<std::int64_t>();
  auto* logits = made.logits.data_ptr<float>();
  constexpr std::int64_t kGrain = 64;  // samples: 0.1 ms
  at::parallel_for(0, count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Drawn drawn = draw(range.first + i * range.stride);
      labels[i] = drawn.click ? 1.0F : 0.0F;
      logits[i] = static_cast<float>(drawn.logit);
      for (std::int64_t c = 0; c < kClickNumbers; ++c) {
        numbers[i * kClickNumbers + c] = click_number(drawn.counts[static_cast<std::size_t>(c)]);
      }
      for (std::int64_t c = 0; c < kClickCategories; ++c) {
        const auto column = static_cast<std::size_t>(c);
        const auto value = category_value(c, drawn.ranks[column], columns_[column].cardinality);
        categories[i * kClickCategories + c] = category_id(c, value);
      }
    }
  });
  return made;
}

std::string ClickGenerator::line(std::int64_t sample) const {
  const Drawn drawn = draw(sample);
  std::string line = drawn.click ? "1" : "0";
  for (const auto& count : drawn.counts) {
    line += count ? fmt::format("\t{}", *count) : "\t";
  }
  for (std::size_t c = 0; c < drawn.ranks.size(); ++c) {
    const auto value =
        category_value(static_cast<std::int64_t>(c), drawn.ranks[c], columns_[c].cardinality);
    line += value ? fmt::format("\t{:08x}", *value) : "\t";
  }
  return line;
}

void write_click_log(const ClickGenerator& generator, std::int64_t count, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) throw_error<Error>("{}: cannot be made: {}", path, std::strerror(errno));
  for (std::int64_t i = 0; i < count; ++i) file << generator.line(i) << '\n';
  file.close();
  if (!file) throw_error<Error>("{}: cannot be written to its end: {}", path, std::strerror(errno));
}

}  // namespace trireme::examples
