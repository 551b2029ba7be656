// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/sparse_table.h"

#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/ps/table_model.h"
#include "tests/support/error_text.h"
#include "tests/support/flat_optimizer.h"
#include "trireme/base/error.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using trireme::testing::bits_of;
using trireme::testing::failure_of;
using trireme::testing::gradient_of;
using trireme::testing::Rows;
using trireme::testing::rows_of;
using trireme::testing::TableModel;

constexpr std::uint64_t kSeed = 41;

const std::vector<optim::OptimizerConfig> kMethods = {
    {.name = "sgd", .momentum = 0.0},         {.name = "sgd", .weight_decay = 0.02},
    {.name = "adam", .weight_decay = 0.03},   {.name = "adamw"},
    {.name = "adagrad", .weight_decay = 0.1}, {.name = "lion"},
};

SparseTableConfig config_of(const optim::OptimizerConfig& optimizer, std::int64_t width = 10) {
  return {.name = "words", .width = width, .init = "normal", .optimizer = optimizer};
}

std::vector<float> read(const SparseTable& table, const std::vector<std::uint64_t>& ids,
                        std::int64_t width) {
  std::vector<float> rows(ids.size() * static_cast<std::size_t>(width), -7.0F);
  table.read(ids, rows.data());
  return rows;
}

// [ids, width]: the gradient of each id at a step.
std::vector<float> gradients_of(const std::vector<std::uint64_t>& ids, std::int64_t width,
                                std::uint64_t step) {
  std::vector<float> all;
  for (const std::uint64_t id : ids) {
    const std::vector<float> one = gradient_of(id, width, step);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

// Rows of which the k-th takes every (k + 1)-th step, beside an optimizer for each.
void expect_bits_of_optimizers(const optim::OptimizerConfig& optimizer, std::int64_t width) {
  constexpr std::uint64_t kRows = 5, kSteps = 40;
  SparseTable table(config_of(optimizer, width), kSeed);
  std::vector<std::uint64_t> ids(kRows);
  for (std::uint64_t k = 0; k < kRows; ++k) ids[k] = k * 1'000'003;
  std::vector<float> expected = read(table, ids, width);
  std::vector<trireme::testing::FlatOptimizer> optimizers;
  for (std::uint64_t k = 0; k < kRows; ++k) {
    optimizers.emplace_back(optimizer, width, trireme::testing::Ranges{{0, width}});
  }
  for (std::uint64_t step = 0; step < kSteps; ++step) {
    const double rate = 0.01 / (1.0 + static_cast<double>(step)), scale = 1.0 / 3;
    std::vector<std::uint64_t> touched;
    for (std::uint64_t k = 0; k < kRows; ++k) {
      if (step % (k + 1) != 0) continue;
      touched.push_back(ids[k]);
      std::vector<float> gradient = gradient_of(ids[k], width, step);
      optimizers[k].step(
          {.weights = at::from_blob(expected.data() + static_cast<std::int64_t>(k) * width, width),
           .gradients = at::from_blob(gradient.data(), width),
           .learning_rate = rate,
           .gradient_scale = scale});
    }
    table.update(touched, gradients_of(touched, width, step).data(), rate, scale);
    ASSERT_EQ(bits_of(read(table, ids, width)), bits_of(expected))
        << optimizer.name << ", width " << width << ", step " << step;
  }
}

TEST(SparseTable, RowsHaveTheBitsOfAnOptimizer) {
  for (const optim::OptimizerConfig& method : kMethods) {
    for (const std::int64_t width : {1, 3, 17, 64, 131, 1100}) {
      expect_bits_of_optimizers(method, width);
    }
  }
}

// Moments below the least normal number become zeros there as here.
TEST(SparseTable, FlushesDenormalsAsAnOptimizerDoes) {
  constexpr std::int64_t kWidth = 33;
  const optim::OptimizerConfig method{.name = "sgd", .momentum = 0.5};
  SparseTable table(config_of(method, kWidth), kSeed);
  const std::vector<std::uint64_t> ids = {9};
  std::vector<float> expected = read(table, ids, kWidth);
  trireme::testing::FlatOptimizer optimizer(method, kWidth, {{0, kWidth}});
  for (int step = 0; step < 40; ++step) {
    std::vector<float> gradient(kWidth, step == 0 ? 1e-30F : 0.0F);
    optimizer.step({.weights = at::from_blob(expected.data(), kWidth),
                    .gradients = at::from_blob(gradient.data(), kWidth),
                    .learning_rate = 1.0});
    table.update(ids, gradient.data(), 1.0, 1.0);
  }
  EXPECT_EQ(bits_of(read(table, ids, kWidth)), bits_of(expected));
  EXPECT_EQ(rows_of(table).at(9).state, std::vector<float>(kWidth, 0.0F));
}

TEST(SparseTable, ARowThatIsNotThereReadsAsItsBeginningAndIsNotMade) {
  for (const char* init : {"uniform", "normal", "zeros"}) {
    SparseTableConfig config = config_of({.name = "adam"}, 20);
    config.init = init;
    config.init_scale = 0.25;
    SparseTable table(config, kSeed);
    const std::vector<float> before = read(table, {7, 8}, 20);
    EXPECT_EQ(table.rows(), 0);
    // A gradient of zeros leaves a row of Adam without decay as it is.
    table.update(std::vector<std::uint64_t>{7}, std::vector<float>(20, 0.0F).data(), 0.1, 1.0);
    EXPECT_EQ(table.rows(), 1);
    EXPECT_EQ(bits_of(read(table, {7, 8}, 20)), bits_of(before)) << init;
    SparseTable other(config, kSeed + 1);
    EXPECT_EQ(read(other, {7, 8}, 20) == before, config.init == "zeros") << init;
  }
}

TEST(SparseTable, TheOrderOfIdsDoesNotMatter) {
  constexpr std::int64_t kWidth = 6;
  std::vector<std::uint64_t> ids(3001);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = i * i * 31 + i;
  const std::vector<std::uint64_t> ascending = ids;
  SparseTable first(config_of({.name = "adamw"}, kWidth), kSeed);
  SparseTable second(config_of({.name = "adamw"}, kWidth), kSeed);
  for (std::uint64_t step = 0; step < 3; ++step) {
    first.update(ascending, gradients_of(ascending, kWidth, step).data(), 0.1, 1.0);
    std::rotate(ids.begin(), ids.begin() + 1111, ids.end());
    std::reverse(ids.begin() + 5, ids.begin() + 2000);
    second.update(ids, gradients_of(ids, kWidth, step).data(), 0.1, 1.0);
  }
  EXPECT_TRUE(rows_of(first) == rows_of(second));
}

TEST(SparseTable, TakesAndGivesRowsAtPositions) {
  constexpr std::int64_t kWidth = 19;
  constexpr std::size_t kIds = 1009;
  std::vector<std::uint64_t> ids(kIds);
  std::vector<std::uint32_t> positions(kIds);
  for (std::size_t i = 0; i < kIds; ++i) {
    ids[i] = i * 977;
    positions[i] = static_cast<std::uint32_t>(i * 331 % kIds * 2 + 1);  // odd ones alone
  }
  const std::vector<float> in_order = gradients_of(ids, kWidth, 3);
  std::vector<float> scattered(2 * kIds * kWidth, 1e9F);
  for (std::size_t i = 0; i < kIds; ++i) {
    std::copy_n(in_order.data() + i * kWidth, kWidth, scattered.data() + positions[i] * kWidth);
  }
  SparseTable first(config_of({.name = "lion"}, kWidth), kSeed);
  SparseTable second(config_of({.name = "lion"}, kWidth), kSeed);
  first.update(ids, in_order.data(), 0.1, 1.0);
  second.update(ids, scattered.data(), 0.1, 1.0, positions);
  EXPECT_TRUE(rows_of(first) == rows_of(second));

  const std::vector<float> rows = read(first, ids, kWidth);
  std::vector<float> out(2 * kIds * kWidth, -1.0F), expected = out;
  first.read(ids, out.data(), positions);
  for (std::size_t i = 0; i < kIds; ++i) {
    std::copy_n(rows.data() + i * kWidth, kWidth, expected.data() + positions[i] * kWidth);
  }
  EXPECT_EQ(out, expected);
}

TEST(SparseTable, GivesItsRowsInTheOrderInWhichTheyWereMade) {
  SparseTable table(config_of({.name = "adam"}, 4), kSeed);
  std::vector<std::uint64_t> ids(1000);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = (i * 617 % 1000) * 1'000'000'007;
  table.update(ids, gradients_of(ids, 4, 0).data(), 0.1, 1.0);
  std::vector<std::uint64_t> given;
  std::vector<std::size_t> sizes;
  table.for_each_block(300, [&](const SparseTable::Block& block) {
    given.insert(given.end(), block.ids.begin(), block.ids.end());
    sizes.push_back(block.ids.size());
  });
  EXPECT_EQ(given, ids);
  EXPECT_EQ(sizes, (std::vector<std::size_t>{300, 300, 300, 100}));
}

TEST(SparseTable, ClearedItGivesItsMemoryBackAndIsAsNew) {
  SparseTable table(config_of({.name = "adam"}, 16), kSeed),
      fresh = SparseTable(config_of({.name = "adam"}, 16), kSeed);
  const std::int64_t empty_bytes = table.memory_bytes();
  std::vector<std::uint64_t> ids(20'000);
  std::iota(ids.begin(), ids.end(), 5);
  table.update(ids, gradients_of(ids, 16, 0).data(), 0.1, 1.0);
  // Weights, two moments and the id: the least that rows need.
  EXPECT_GT(table.memory_bytes(), std::int64_t{20'000} * (3 * 16 * 4 + 8));
  table.clear();
  EXPECT_EQ(table.rows(), 0);
  EXPECT_EQ(table.memory_bytes(), empty_bytes);
  for (SparseTable* one : {&table, &fresh}) {
    one->update(ids, gradients_of(ids, 16, 1).data(), 0.1, 1.0);
  }
  EXPECT_TRUE(rows_of(table) == rows_of(fresh));
}

// Where counting ends, Adam's corrections have long been 1.
TEST(SparseTable, StepsEndAtTheirLargest) {
  SparseTable table(config_of({.name = "adam"}, 3), kSeed);
  const std::vector<std::uint64_t> ids = {4};
  const std::vector<float> weights(3, 0.5F), state(6, 0.25F);
  const std::vector<std::int64_t> steps = {0xFFFF'FFFE};
  table.import({ids, weights, state, steps});
  for (int i = 0; i < 3; ++i) {
    table.update(ids, weights.data(), 0.1, 1.0);
    EXPECT_EQ(rows_of(table).at(4).steps, 0xFFFF'FFFF);
  }
}

TEST(SparseTable, RefusesWhatDoesNotFit) {
  SparseTable table(config_of({.name = "adam"}, 3), kSeed);
  const std::vector<std::uint64_t> ids = {4, 5};
  const std::vector<std::uint32_t> one = {0};
  std::vector<float> values(6), state(12);
  EXPECT_THAT(failure_of([&] { table.update(ids, values.data(), 0.1, 1.0, one); }),
              AllOf(HasSubstr("ShapeError"), HasSubstr("'words'"), HasSubstr("2 ids with 1")));
  EXPECT_THAT(failure_of([&] { table.read(ids, values.data(), one); }), HasSubstr("ShapeError"));
  const std::vector<std::int64_t> steps = {0, 1}, negative = {1, -1},
                                  many = {0, std::int64_t{1} << 32};
  EXPECT_THAT(failure_of([&] {
                table.import({ids, values, values, steps});
              }),
              AllOf(HasSubstr("ShapeError"), HasSubstr("2 ids comes with 6 weights, 6 of state")));
  EXPECT_THAT(failure_of([&] { table.import({ids, state, state, steps}); }), HasSubstr("12 weigh"));
  EXPECT_THAT(failure_of([&] { table.import({ids, values, state, {}}); }), HasSubstr("0 steps"));
  EXPECT_THAT(failure_of([&] {
                table.import({ids, values, state, negative});
              }),
              HasSubstr("row 5 took -1 steps"));
  EXPECT_THAT(failure_of([&] {
                table.import({ids, values, state, many});
              }),
              HasSubstr("row 5 took 4294967296 steps"));
  EXPECT_EQ(table.rows(), 0);
}

TEST(SparseTableConfig, RefusesWhatATableCannotBe) {
  const auto refusal = [](const std::function<void(SparseTableConfig&)>& change) {
    SparseTableConfig config = config_of({.name = "sgd"});
    change(config);
    return failure_of([&] { SparseTable(config, kSeed); });
  };
  EXPECT_EQ(refusal([](SparseTableConfig&) {}), "no error");
  EXPECT_THAT(refusal([](auto& c) { c.name = ""; }), HasSubstr("has no name"));
  EXPECT_THAT(refusal([](auto& c) { c.width = 0; }), HasSubstr("width is 0"));
  EXPECT_THAT(refusal([](auto& c) { c.width = 65'537; }), HasSubstr("[1, 65536]"));
  EXPECT_THAT(refusal([](auto& c) { c.init = "ones"; }), HasSubstr("'ones'"));
  EXPECT_THAT(refusal([](auto& c) { c.init_scale = -1; }), HasSubstr("init_scale is -1"));
  EXPECT_THAT(refusal([](auto& c) { c.init_scale = 1e39; }), HasSubstr("finite"));
  for (const char* name : {"lamb", "adafactor", "muon"}) {
    EXPECT_THAT(refusal([&](auto& c) { c.optimizer = {.name = name}; }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("'words'"), HasSubstr(name),
                      HasSubstr("take sgd, adagrad, adam, adamw or lion")));
  }
  EXPECT_THAT(refusal([](auto& c) { c.optimizer.state = "8bit"; }), HasSubstr("take f32"));
  EXPECT_THAT(refusal([](auto& c) { c.optimizer.momentum = 1.5; }),
              AllOf(HasSubstr("'words'"), HasSubstr("optimizer.momentum is 1.5")));
}

TEST(SparseTableConfig, IsReadAndWritten) {
  SparseTableConfig config;
  bind_config(ConfigTree::parse("{name: users, width: 12, init: zeros, optimizer: {name: lion}}",
                                "job.yaml", {}),
              config);
  EXPECT_EQ(config.name, "users");
  EXPECT_EQ(config.width, 12);
  EXPECT_EQ(config.optimizer.name, "lion");
  SparseTableConfig again;
  bind_config(ConfigTree::parse(config_to_yaml(config), "again.yaml", {}), again);
  EXPECT_EQ(config_to_yaml(again), config_to_yaml(config));
}

// Any sequence of what can be done to a table does to it what it does to the model.
RC_GTEST_PROP(SparseTable, IsAMapOfRows, ()) {
  const auto method = *rc::gen::elementOf(kMethods);
  const auto width = *rc::gen::inRange<std::int64_t>(1, 40);
  const SparseTableConfig config = config_of(method, width);
  SparseTable table(config, kSeed);
  TableModel model(config, kSeed);
  const auto actions = *rc::gen::inRange(1, 12);
  for (int action = 0; action < actions; ++action) {
    const std::vector<std::uint64_t> ids = *trireme::testing::arbitrary_ids();
    const auto step = *rc::gen::inRange<std::uint64_t>(0, 1000);
    switch (*rc::gen::weightedElement<int>({{5, 0}, {3, 1}, {2, 2}, {1, 3}})) {
      case 0: {
        const std::vector<float> gradients = gradients_of(ids, width, step);
        table.update(ids, gradients.data(), 0.01, 0.5);
        model.update(ids, gradients.data(), 0.01, 0.5);
        break;
      }
      case 1:
        RC_ASSERT(bits_of(read(table, ids, width)) == bits_of(model.read(ids)));
        break;
      case 2: {  // goes on as another table
        SparseTable other(config, kSeed);
        table.for_each_block(*rc::gen::inRange<std::int64_t>(1, 500),
                             [&](const SparseTable::Block& block) { other.import(block); });
        table = std::move(other);
        break;
      }
      default:
        table.clear();
        model.clear();
    }
    RC_ASSERT(table.rows() == static_cast<std::int64_t>(model.rows().size()));
  }
  RC_ASSERT(rows_of(table) == model.rows());
}

}  // namespace
}  // namespace trireme::ps
