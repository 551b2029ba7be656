// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Values of dense ranges: their sums are those of an all_reduce, and their state goes on elsewhere.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/ps/training.h"
#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "trireme/ps/range_storage.h"

namespace trireme::ps {
namespace {

using ::testing::HasSubstr;
using trireme::testing::failure_of;

// Of magnitudes so far apart that another order of the additions has other bits; the least of them
// are denormal.
std::vector<float> contribution_of(int rank) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < kDenseSize; ++i) {
    const auto exponent = static_cast<int>((i * 7 + rank * 5) % 40) - (i % 11 == 0 ? 140 : 20);
    values.push_back(std::ldexp(gradient_of(rank, 3, i), exponent));
  }
  return values;
}

Bytes bytes_of(std::span<const float> values) { return std::as_bytes(values); }

std::vector<std::byte> sum_of(RangeStorage& storage, const std::vector<Contribution>& all) {
  std::vector<std::byte> memory;
  const std::span<std::byte> sum = storage.sum(all, [&](std::size_t bytes) {
    memory.resize(bytes);
    return std::span(memory);
  });
  return {sum.begin(), sum.end()};
}

// All ranges' sums of what these ranks contribute, one after the other.
std::vector<float> sum_of_ranges(const JobLayout& layout, int ranks) {
  std::vector<std::vector<float>> values;
  for (int rank = 0; rank < ranks; ++rank) values.push_back(contribution_of(rank));
  std::vector<float> sum(static_cast<std::size_t>(kDenseSize));
  const std::vector<FlatSegment> segments = layout.dense_ranges();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const auto begin = static_cast<std::size_t>(segments[i].begin);
    const auto count = static_cast<std::size_t>(segments[i].end) - begin;
    std::vector<Contribution> all;
    for (const auto& of_rank : values) {
      all.push_back({bytes_of(std::span(of_rank).subspan(begin, count))});
    }
    const std::vector<std::byte> bytes = sum_of(*make_dense_storage(layout, i), all);
    EXPECT_EQ(bytes.size(), count * sizeof(float));
    std::memcpy(sum.data() + begin, bytes.data(), bytes.size());
  }
  return sum;
}

class SumOfDenseRanges : public ::testing::TestWithParam<const char*> {};

TEST_P(SumOfDenseRanges, HasTheBitsOfAnAllReduce) {
  for (const int ranks : {1, 2, 3, 5, 6, 7}) {
    const std::vector<float> expected = sum_of_ranges(dense_layout(), ranks);
    trireme::testing::run_threads(
        ranks,
        [&](Group& group) {
          std::vector<float> values = contribution_of(group.rank());
          group.all_reduce(buffer_of(std::span(values)));
          EXPECT_TRUE((Values{values, {}} == Values{expected, {}})) << ranks << " ranks";
        },
        GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, SumOfDenseRanges, ::testing::Values("shm", "gloo"));

class StateOfDenseRanges : public ::testing::TestWithParam<const char*> {};

// As a new backup gets it, and as a snapshot has it.
TEST_P(StateOfDenseRanges, GoesOnElsewhereBitForBit) {
  const JobLayout layout = dense_layout(GetParam());
  const std::vector<FlatSegment> segments = layout.dense_ranges();
  for (std::size_t range = 0; range < segments.size(); ++range) {
    const auto count = static_cast<std::size_t>(segments[range].end - segments[range].begin);
    std::vector<float> values(count);
    const auto update = [&](RangeStorage& storage, int step) {
      for (std::size_t i = 0; i < count; ++i) {
        values[i] = gradient_of(static_cast<int>(range), step, static_cast<std::int64_t>(i));
      }
      storage.apply({bytes_of(values)}, {.learning_rate = 0.01, .gradient_scale = 0.5});
    };
    const auto state_of = [](const RangeStorage& storage) {
      std::vector<std::byte> state;
      storage.export_state(
          [&](Bytes part) { state.insert(state.end(), part.begin(), part.end()); });
      return state;
    };
    const auto first = make_dense_storage(layout, range),
               second = make_dense_storage(layout, range);
    for (std::size_t i = 0; i < count; ++i) values[i] = first_weight(static_cast<std::int64_t>(i));
    first->init(bytes_of(values));
    for (int step = 0; step < 3; ++step) update(*first, step);
    const std::vector<std::byte> state = state_of(*first);
    EXPECT_NE(state_of(*second), state);
    second->import_state(state);
    EXPECT_EQ(state_of(*second), state) << "range " << range;
    for (RangeStorage* storage : {first.get(), second.get()}) update(*storage, 3);
    EXPECT_NE(state_of(*first), state);
    EXPECT_EQ(state_of(*second), state_of(*first)) << "range " << range;
    EXPECT_THAT(failure_of([&] { second->import_state(Bytes(state).first(state.size() - 4)); }),
                HasSubstr(fmt::format("state of {} bytes", state.size() - 4)));
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, StateOfDenseRanges,
                         ::testing::Values("sgd", "adagrad", "adam", "adamw", "lion", "lamb",
                                           "adafactor", "muon"));

}  // namespace
}  // namespace trireme::ps
