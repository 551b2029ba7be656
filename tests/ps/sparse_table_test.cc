// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/sparse_table.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/flat_optimizer.h"
#include "trireme/base/random.h"

namespace trireme::ps {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 11;

// Value i of gradient number n.
float gradient(std::uint64_t n, std::int64_t i) {
  return static_cast<float>(RandomStream(5, n).uniform(static_cast<std::uint64_t>(i)) - 0.5);
}

std::vector<float> gradients(std::span<const std::uint64_t> numbers, std::int64_t width) {
  std::vector<float> all;
  for (const std::uint64_t n : numbers) {
    for (std::int64_t i = 0; i < width; ++i) all.push_back(gradient(n, i));
  }
  return all;
}

SparseTableConfig config_of(const std::string& optimizer, std::int64_t width) {
  SparseTableConfig config{.name = "users", .width = width, .init = "normal", .init_scale = 0.3};
  config.optimizer = {.name = optimizer};
  return config;
}

std::vector<float> read(const SparseTable& table, const std::vector<std::uint64_t>& ids) {
  std::vector<float> out(ids.size() * static_cast<std::size_t>(table.config().width));
  table.read(ids, out.data());
  return out;
}

// All of a table, by id.
struct Row {
  std::vector<float> weights;
  std::vector<float> state;
  std::int64_t steps = 0;
  bool operator==(const Row&) const = default;
};
std::map<std::uint64_t, Row> rows_of(const SparseTable& table, std::int64_t most_rows = 7) {
  std::map<std::uint64_t, Row> rows;
  const auto part = [](std::span<const float> all, std::size_t i, std::int64_t width) {
    const float* const begin = all.data() + static_cast<std::int64_t>(i) * width;
    return std::vector<float>(begin, begin + width);
  };
  table.for_each_block(most_rows, [&](const SparseTable::Block& block) {
    EXPECT_LE(block.ids.size(), static_cast<std::size_t>(most_rows));
    for (std::size_t i = 0; i < block.ids.size(); ++i) {
      const Row row{part(block.weights, i, table.config().width),
                    part(block.state, i, table.state_width()), block.steps[i]};
      EXPECT_TRUE(rows.emplace(block.ids[i], row).second) << "id " << block.ids[i] << " twice";
    }
  });
  EXPECT_EQ(static_cast<std::int64_t>(rows.size()), table.rows());
  return rows;
}

void copy_rows(const SparseTable& from, SparseTable& to, std::int64_t most_rows) {
  from.for_each_block(most_rows, [&](const SparseTable::Block& block) { to.import(block); });
}

struct Method {
  std::string name;
  optim::OptimizerConfig config;
};
void PrintTo(const Method& method, std::ostream* out) { *out << method.name; }

const std::vector<Method> kMethods = {
    {"sgd", {.name = "sgd", .momentum = 0.0}},
    {"sgd_momentum", {.name = "sgd", .momentum = 0.9, .weight_decay = 0.01}},
    {"adam", {.name = "adam", .weight_decay = 0.01}},
    {"adamw", {.name = "adamw"}},
    {"lion", {.name = "lion"}},
};

class SparseTableOptimizers : public ::testing::TestWithParam<Method> {};

// A row after n updates, of which the others take more or fewer, is a parameter after n steps.
TEST_P(SparseTableOptimizers, GiveTheBitsOfMakeOptimizer) {
  constexpr std::int64_t kWidth = 67;
  SparseTableConfig config = config_of("sgd", kWidth);
  config.optimizer = GetParam().config;
  SparseTable table(config, kSeed);
  const std::vector<std::uint64_t> ids = {3, 0, ~std::uint64_t{0}, 1234567};
  std::vector<std::vector<float>> expected;
  std::vector<std::unique_ptr<testing::FlatOptimizer>> optimizers;
  for (const std::uint64_t id : ids) {
    expected.push_back(read(table, {id}));
    optimizers.push_back(std::make_unique<testing::FlatOptimizer>(config.optimizer, kWidth,
                                                                  testing::Ranges{{0, kWidth}}));
  }
  for (std::uint64_t step = 0; step < 30; ++step) {
    std::vector<std::uint64_t> these, numbers;
    for (std::size_t r = 0; r < ids.size(); ++r) {
      if (step % (r + 1) != 0) continue;
      these.push_back(ids[r]);
      numbers.push_back(100 * step + r);
      std::vector<float> own = gradients({&numbers.back(), 1}, kWidth);
      optimizers[r]->step({.weights = at::from_blob(expected[r].data(), {kWidth}),
                           .gradients = at::from_blob(own.data(), {kWidth}),
                           .learning_rate = 0.01 / static_cast<double>(1 + step),
                           .gradient_scale = 0.25});
    }
    table.update(these, gradients(numbers, kWidth).data(), 0.01 / static_cast<double>(1 + step),
                 0.25);
    for (std::size_t r = 0; r < ids.size(); ++r) {
      ASSERT_EQ(read(table, {ids[r]}), expected[r]) << "row " << r << ", step " << step;
    }
  }
  // The state, too.
  const std::map<std::uint64_t, Row> rows = rows_of(table);
  for (std::size_t r = 0; r < ids.size(); ++r) {
    const Row& row = rows.at(ids[r]);
    EXPECT_EQ(row.steps, optimizers[r]->get().steps());
    std::vector<float> state;
    for (const optim::OptimizerState& part : optimizers[r]->get().state()) {
      const float* const values = part.values.data_ptr<float>();
      state.insert(state.end(), values, values + kWidth);
    }
    EXPECT_EQ(row.state, state);
  }
  EXPECT_EQ(table.state_width(),
            kWidth * static_cast<std::int64_t>(optimizers[0]->get().state().size()));
}

INSTANTIATE_TEST_SUITE_P(All, SparseTableOptimizers, ::testing::ValuesIn(kMethods),
                         [](const auto& method) { return method.param.name; });

// A step count at which the corrections are no longer kept.
TEST(SparseTable, CountsStepsBeyondWhatIsKept) {
  constexpr std::int64_t kSteps = 70'000;
  SparseTable table(config_of("adam", 3), kSeed);
  testing::FlatOptimizer optimizer({.name = "adam"}, 3, {{0, 3}});
  std::vector<float> weights = read(table, {9}), zeros(6, 0.5F);
  const std::vector<std::uint64_t> ids = {9};
  table.import({.ids = ids,
                .weights = weights,
                .state = zeros,
                .steps = std::array<std::int64_t, 1>{kSteps}});
  for (std::size_t m = 0; m < 2; ++m) optimizer.moment(m).fill_(0.5);
  optimizer.get().set_steps(kSteps);
  std::vector<float> g = {1, -2, 3};
  for (int i = 0; i < 3; ++i) {
    table.update(ids, g.data(), 0.1, 1.0);
    optimizer.step({.weights = at::from_blob(weights.data(), {3}),
                    .gradients = at::from_blob(g.data(), {3}),
                    .learning_rate = 0.1});
  }
  EXPECT_EQ(read(table, ids), weights);
  EXPECT_EQ(rows_of(table).at(9).steps, kSteps + 3);
}

// The model: a map, with the arithmetic of sgd with momentum in f32, as the kernel has it.
class Model {
 public:
  Model(std::int64_t width, const SparseTable& fresh) : width_(width), fresh_(fresh) {}

  void update(std::uint64_t id, const float* g, float rate, float scale) {
    Row& row = rows_.try_emplace(id, begun(id)).first->second;
    ++row.steps;
    for (std::size_t i = 0; i < row.weights.size(); ++i) {
      row.state[i] = 0.9F * row.state[i] + g[i] * scale;
      row.weights[i] -= rate * row.state[i];
    }
  }
  std::vector<float> read(std::uint64_t id) const {
    const auto found = rows_.find(id);
    return found == rows_.end() ? begun(id).weights : found->second.weights;
  }
  const std::map<std::uint64_t, Row>& rows() const { return rows_; }
  void clear() { rows_.clear(); }

 private:
  Row begun(std::uint64_t id) const {
    Row row{std::vector<float>(static_cast<std::size_t>(width_)),
            std::vector<float>(static_cast<std::size_t>(width_)), 0};
    fresh_.read({&id, 1}, row.weights.data());
    return row;
  }

  std::int64_t width_;
  const SparseTable& fresh_;  // no row is ever made in it
  std::map<std::uint64_t, Row> rows_;
};

// Ids that meet often, and some at the ends.
rc::Gen<std::vector<std::uint64_t>> any_ids() {
  const auto id = rc::gen::oneOf(
      rc::gen::inRange<std::uint64_t>(0, 40), rc::gen::inRange<std::uint64_t>(0, 100'000),
      rc::gen::element(std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0} - 1),
      rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 40),
                   [](std::uint64_t i) { return i << 48; }));
  return rc::gen::container<std::vector<std::uint64_t>>(id);
}

RC_GTEST_PROP(SparseTable, IsAMap, ()) {
  const auto width = *rc::gen::inRange<std::int64_t>(1, 40);
  SparseTableConfig config = config_of("sgd", width);
  config.init = *rc::gen::element<std::string>("uniform", "normal", "zeros");
  const SparseTable fresh(config, kSeed);
  SparseTable table(config, kSeed);
  Model model(width, fresh);
  std::uint64_t number = 0;
  for (int action = 0; action < 12; ++action) {
    const int kind = *rc::gen::weightedElement<int>({{5, 0}, {4, 1}, {2, 2}, {1, 3}});
    const std::vector<std::uint64_t> ids = kind < 2 ? *any_ids() : std::vector<std::uint64_t>();
    // Where each row lies with the caller.
    std::vector<std::uint32_t> positions(ids.size());
    std::iota(positions.begin(), positions.end(), 0U);
    const bool in_order = *rc::gen::arbitrary<bool>();
    if (!in_order) std::reverse(positions.begin(), positions.end());
    const std::span<const std::uint32_t> given =
        in_order ? std::span<const std::uint32_t>() : positions;
    const auto at = [&](std::size_t i) { return std::int64_t{positions[i]} * width; };
    if (kind == 0) {
      std::vector<std::uint64_t> numbers(ids.size());
      for (std::uint64_t& n : numbers) n = number++;
      const std::vector<float> g = gradients(numbers, width);
      table.update(ids, g.data(), 0.125, 0.5, given);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        model.update(ids[i], g.data() + at(i), 0.125F, 0.5F);
      }
    } else if (kind == 1) {
      std::vector<float> out(ids.size() * static_cast<std::size_t>(width));
      table.read(ids, out.data(), given);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const std::vector<float> row(out.data() + at(i), out.data() + at(i) + width);
        RC_ASSERT(row == model.read(ids[i]));
      }
    } else if (kind == 2) {
      SparseTable other(config, kSeed);
      copy_rows(table, other, *rc::gen::inRange<std::int64_t>(1, 50));
      table = std::move(other);
    } else {
      table.clear();
      model.clear();
    }
    RC_ASSERT(table.rows() == static_cast<std::int64_t>(model.rows().size()));
  }
  RC_ASSERT(rows_of(table) == model.rows());
}

// The index divides many times, and the rows lie in many blocks.
TEST(SparseTable, GrowsToManyRows) {
  constexpr std::uint64_t kRows = 300'000, kBatch = 7001;
  constexpr std::int64_t kWidth = 2;
  SparseTableConfig config = config_of("sgd", kWidth);
  config.init = "zeros";
  config.optimizer.momentum = 0.0;
  SparseTable table(config, kSeed);
  const auto id_of = [](std::uint64_t i) { return i * i * 2654435761U; };
  std::int64_t bytes = table.memory_bytes();
  for (std::uint64_t begin = 0; begin < kRows; begin += kBatch) {
    std::vector<std::uint64_t> ids;
    std::vector<float> g;
    for (std::uint64_t i = begin; i < std::min(begin + kBatch, kRows); ++i) {
      ids.push_back(id_of(i));
      g.insert(g.end(), {static_cast<float>(i), -static_cast<float>(i) / 2});
    }
    table.update(ids, g.data(), 1.0, -1.0);
    EXPECT_GT(table.memory_bytes(), bytes);
    bytes = table.memory_bytes();
  }
  ASSERT_EQ(table.rows(), static_cast<std::int64_t>(kRows));
  EXPECT_GT(bytes, static_cast<std::int64_t>(kRows * (16 + 2 * sizeof(float))));
  EXPECT_LT(bytes, static_cast<std::int64_t>(kRows * 80));
  for (std::uint64_t i = 0; i < kRows; ++i) {
    const std::vector<float> row = read(table, {id_of(i)});
    ASSERT_EQ(row, (std::vector<float>{static_cast<float>(i), -static_cast<float>(i) / 2}));
  }
  EXPECT_EQ(read(table, {1, ~std::uint64_t{0}})[2], 0.0F);
  table.clear();
  EXPECT_EQ(table.rows(), 0);
  EXPECT_LT(table.memory_bytes(), 10'000);
  EXPECT_EQ(read(table, {id_of(7)}), (std::vector<float>{0.0F, 0.0F}));
}

TEST(SparseTable, DoesNotDependOnTheOrderOfIds) {
  constexpr std::int64_t kWidth = 5;
  std::vector<std::uint64_t> ids(100);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = i * i;
  std::vector<std::uint64_t> backwards(ids.rbegin(), ids.rend());
  SparseTable one(config_of("adamw", kWidth), kSeed), other(config_of("adamw", kWidth), kSeed);
  for (int step = 0; step < 3; ++step) {
    one.update(ids, gradients(ids, kWidth).data(), 0.1, 1.0);
    other.update(backwards, gradients(backwards, kWidth).data(), 0.1, 1.0);
  }
  EXPECT_EQ(rows_of(one), rows_of(other));
}

TEST(SparseTable, GoesOnAfterExportAndImport) {
  constexpr std::int64_t kWidth = 9;
  std::vector<std::uint64_t> ids(50);
  std::iota(ids.begin(), ids.end(), std::uint64_t{0});
  SparseTable table(config_of("adam", kWidth), kSeed);
  table.update(ids, gradients(ids, kWidth).data(), 0.1, 1.0);
  table.update({ids.data(), 20}, gradients(ids, kWidth).data(), 0.1, 2.0);
  SparseTable copy(config_of("adam", kWidth), kSeed);
  // A row that is there already is replaced.
  copy.update({ids.data() + 3, 1}, gradients(ids, kWidth).data(), 7.0, 1.0);
  copy_rows(table, copy, 13);
  for (SparseTable* each : {&table, &copy}) {
    each->update(ids, gradients(ids, kWidth).data(), 0.1, 1.0);
  }
  EXPECT_EQ(rows_of(copy), rows_of(table));
}

TEST(SparseTable, IsRefusedWithAReason) {
  const auto refusal = [](auto change) {
    SparseTableConfig config = config_of("sgd", 8);
    change(config);
    return testing::failure_of([&] { SparseTable table(config, kSeed); });
  };
  EXPECT_EQ(refusal([](auto&) {}), "no error");
  EXPECT_EQ(refusal([](auto& c) { c.name = ""; }), "ConfigError: a sparse table has no name");
  EXPECT_THAT(refusal([](auto& c) { c.width = 0; }), HasSubstr("'users': width is 0; it must"));
  EXPECT_THAT(refusal([](auto& c) { c.width = 65537; }), HasSubstr("width is 65537"));
  EXPECT_THAT(refusal([](auto& c) { c.init = "ones"; }), HasSubstr("init is 'ones'; known"));
  EXPECT_THAT(refusal([](auto& c) { c.init_scale = -1; }), HasSubstr("init_scale is -1"));
  for (const char* method : {"lamb", "adafactor", "muon"}) {
    EXPECT_THAT(refusal([&](auto& c) { c.optimizer = {.name = method}; }),
                HasSubstr(std::string("the optimizer ") + method + " looks at whole"));
  }
  EXPECT_THAT(refusal([](auto& c) { c.optimizer.state = "8bit"; }), HasSubstr("take state f32"));
  EXPECT_THAT(refusal([](auto& c) { c.optimizer = {.name = "sgdd"}; }),
              HasSubstr("'users': optimizer.name is 'sgdd'"));
}

TEST(SparseTable, RefusesWhatDoesNotFit) {
  SparseTable table(config_of("adam", 2), kSeed);
  const std::vector<std::uint64_t> ids = {1, 2};
  const std::vector<float> weights(4), state(8);
  const std::vector<std::uint32_t> positions = {0};
  std::vector<float> out(4);
  EXPECT_EQ(testing::failure_of([&] { table.update(ids, weights.data(), 1, 1, positions); }),
            "ShapeError: an update of 2 rows with 1 positions: one for each, or none");
  EXPECT_EQ(testing::failure_of([&] { table.read(ids, out.data(), positions); }),
            "ShapeError: a read of 2 rows with 1 positions: one for each, or none");
  const auto import = [&](std::span<const float> w, std::span<const float> s,
                          const std::vector<std::int64_t>& steps) {
    return testing::failure_of(
        [&] { table.import({.ids = ids, .weights = w, .state = s, .steps = steps}); });
  };
  EXPECT_THAT(import({weights.data(), 3}, state, {1, 1}), HasSubstr("3 weights and 8 values"));
  EXPECT_THAT(import(weights, {state.data(), 6}, {1, 1}), HasSubstr("4 weights and 6 values"));
  EXPECT_THAT(import(weights, state, {1}), HasSubstr("2 ids with 1 steps"));
  EXPECT_THAT(import(weights, state, {1, -1}), HasSubstr("row 2 after -1 steps"));
  EXPECT_THAT(import(weights, state, {std::int64_t{1} << 32, 1}), HasSubstr("after 4294967296"));
  EXPECT_EQ(table.rows(), 0);
}

}  // namespace
}  // namespace trireme::ps
