// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/ps/training.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "trireme/comm/reduction_tree.h"
#include "trireme/optim/optimizer.h"

namespace trireme::ps {
namespace {

constexpr std::uint64_t kIds = 40;        // of each table
constexpr std::uint64_t kPushedIds = 10;  // in a step

std::uint64_t id_of(std::uint64_t table, std::uint64_t i) { return 1000 * table + 7 * i; }

// Rows of one step, which live as long as the calls that use them.
struct Rows {
  std::vector<std::vector<std::uint64_t>> ids;
  std::vector<std::vector<float>> values;
  std::vector<PushRows> push;
  std::vector<PullRows> pull;
};

// Distinct ids of each table; other ranks push some of them, too.
Rows rows_of_step(const Worker& worker) {
  const auto& tables = worker.layout().sparse.tables;
  Rows rows;
  rows.ids.resize(tables.size());
  rows.values.resize(tables.size());
  const auto rank = static_cast<std::uint64_t>(worker.rank());
  const auto step = static_cast<std::uint64_t>(worker.clock());
  for (std::uint64_t table = 0; table < tables.size(); ++table) {
    for (std::uint64_t j = 0; j < kPushedIds; ++j) {
      const std::uint64_t id = id_of(table, (3 * j + rank + 5 * step) % kIds);
      rows.ids[table].push_back(id);
      for (std::int64_t column = 0; column < tables[table].width; ++column) {
        rows.values[table].push_back(gradient_of(worker.rank(), worker.clock(),
                                                 static_cast<std::int64_t>(id) * 11 + column));
      }
    }
    rows.push.push_back({table, rows.ids[table], rows.values[table].data()});
  }
  return rows;
}

Rows all_rows(const Worker& worker) {
  const auto& tables = worker.layout().sparse.tables;
  Rows rows;
  rows.ids.resize(tables.size());
  rows.values.resize(tables.size());
  for (std::uint64_t table = 0; table < tables.size(); ++table) {
    for (std::uint64_t i = 0; i < kIds; ++i) rows.ids[table].push_back(id_of(table, i));
    rows.values[table].resize(kIds * static_cast<std::size_t>(tables[table].width));
    rows.pull.push_back({table, rows.ids[table], rows.values[table].data()});
  }
  return rows;
}

bool contributes(Script::Style style, const Worker& worker, std::size_t range) {
  if (style != Script::Style::kSparing) return true;
  const auto sum = static_cast<std::size_t>(worker.rank() + worker.clock()) + range;
  return sum % 3 != 0;
}

bool has_rows(const Worker& worker) { return worker.layout().num_slices() > 0; }

// One step in one phase.
void step_at_once(Worker& worker, const Script& script) {
  const bool whole = script.style == Script::Style::kWhole;
  const Rows rows = rows_of_step(worker);
  std::vector<Timestamp> pushed;
  if (whole) {
    script.event();
    pushed.push_back(worker.push({.learning_rate = kLearningRate, .then_pull = true}));
  } else {
    for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
      if (!contributes(script.style, worker, range)) continue;
      script.event();
      pushed.push_back(worker.push(
          range, {.learning_rate = kLearningRate,
                  .then_pull = script.style == Script::Style::kByRange && range % 2 == 0,
                  .priority = static_cast<int>(range)}));
    }
  }
  if (has_rows(worker) && contributes(script.style, worker, 1)) {
    script.event();
    pushed.push_back(worker.push_rows(rows.push, {.learning_rate = kLearningRate}));
  }
  // Where nobody has pushed everything, each must go on for the others to be answered.
  const bool sparing = script.style == Script::Style::kSparing;
  if (sparing) worker.end_step();
  for (const Timestamp timestamp : pushed) {
    script.event();
    worker.wait(timestamp);
  }
  if (!sparing) worker.end_step();
  if (whole) return;
  for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
    if (script.style == Script::Style::kByRange && range % 2 == 0) continue;
    script.event();
    worker.wait(worker.pull(range));
  }
}

// One step in two phases, with a scale that the sum of all gradients gives.
void step_in_two_phases(Worker& worker, const Script& script) {
  const Rows rows = rows_of_step(worker);
  script.event();
  worker.wait(worker.push({}));
  if (has_rows(worker)) {
    script.event();
    worker.wait(worker.push_rows(rows.push, {}));
  }
  double squares = 0;
  for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
    for (const double sum : worker.sum(range).block_sums) squares += sum;
  }
  const double scale = std::min(1.0, 50.0 / std::sqrt(squares));
  std::vector<Timestamp> applied;
  for (std::size_t range = 0; range < worker.layout().num_ranges(); ++range) {
    script.event();
    applied.push_back(worker.commit(range, {.learning_rate = kLearningRate,
                                            .gradient_scale = scale,
                                            .then_pull = range < worker.num_dense_ranges()}));
  }
  for (const Timestamp timestamp : applied) {
    script.event();
    worker.wait(timestamp);
  }
  worker.end_step();
}

}  // namespace

JobLayout dense_layout(const std::string& optimizer) {
  JobLayout layout;
  layout.range_bytes = 4 * 3 * kShardBlock;
  layout.dense.size = kDenseSize;
  layout.dense.optimizer.name = optimizer;
  // The first lies in one range, the second in two.
  layout.dense.parameters = {
      {.entry = {"embedding", {2, kShardBlock}, 0, 2 * kShardBlock}, .decays = true},
      {.entry = {"matrix", {50, 100}, 2 * kShardBlock + 64, 5000}, .decays = true},
      {.entry = {"bias", {777}, 8 * kShardBlock + 128, 777}},
  };
  return layout;
}

JobLayout mixed_layout(const std::string& optimizer) {
  JobLayout layout = dense_layout(optimizer);
  layout.sparse.slices = 3;
  layout.sparse.seed = 17;
  layout.sparse.tables = {
      {.name = "users", .width = 3, .init_scale = 0.5},
      {.name = "items", .width = 8, .init_scale = 0.25},
  };
  return layout;
}

float first_weight(std::int64_t i) {
  return static_cast<float>(std::sin(0.001 * static_cast<double>(i)));
}

float gradient_of(int rank, std::int64_t step, std::int64_t i) {
  return static_cast<float>(
      std::cos(0.01 * static_cast<double>(i) + 3.0 * rank + 0.7 * static_cast<double>(step)));
}

std::vector<float> reference(const JobLayout& layout,
                             const std::vector<std::vector<int>>& contributors) {
  const at::Tensor weights = at::zeros({kDenseSize}, at::kFloat);
  const at::Tensor sum = at::zeros({kDenseSize}, at::kFloat);
  float* w = weights.data_ptr<float>();
  for (std::int64_t i = 0; i < kDenseSize; ++i) w[i] = first_weight(i);
  const auto optimizer =
      optim::make_optimizer(layout.dense.optimizer,
                            {.parameters = layout.dense.parameters, .segments = {{0, kDenseSize}}});
  for (std::size_t step = 0; step < contributors.size(); ++step) {
    std::vector<std::vector<float>> gradients;
    for (const int rank : contributors[step]) {
      gradients.emplace_back();
      for (std::int64_t i = 0; i < kDenseSize; ++i) {
        gradients.back().push_back(gradient_of(rank, static_cast<std::int64_t>(step), i));
      }
    }
    std::vector<const void*> inputs;
    for (const auto& gradient : gradients) inputs.push_back(gradient.data());
    reduce_tree(inputs, sum.data_ptr<float>(), kDenseSize, DType::kF32, ReduceOp::kSum);
    const std::vector<optim::PieceUpdate> pieces = {{.weights = weights, .gradients = sum}};
    optimizer->step({.pieces = pieces,
                     .learning_rate = kLearningRate,
                     .gradient_scale = 1.0 / static_cast<double>(contributors[step].size())});
  }
  return {w, w + kDenseSize};
}

std::vector<float> reference(const JobLayout& layout, int ranks, std::int64_t steps) {
  std::vector<int> all;
  for (int rank = 0; rank < ranks; ++rank) all.push_back(rank);
  return reference(layout, std::vector<std::vector<int>>(static_cast<std::size_t>(steps), all));
}

bool operator==(const Values& left, const Values& right) {
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    if (a.empty() || b.empty()) return a.empty() && b.empty();
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  return same(left.weights, right.weights) && same(left.rows, right.rows);
}

std::string hash_of(const Values& values) {
  const auto bytes = [](const std::vector<float>& floats) { return floats.size() * sizeof(float); };
  return fmt::format("{:016x} {:016x}", XXH3_64bits(values.weights.data(), bytes(values.weights)),
                     XXH3_64bits(values.rows.data(), bytes(values.rows)));
}

JobLayout layout_of_style(const std::string& style) {
  JobLayout layout = mixed_layout();
  layout.two_phases = style == "two_phases";
  return layout;
}

Script script_of_style(const std::string& style, std::int64_t steps) {
  return {.style = style == "by_range" ? Script::Style::kByRange : Script::Style::kWhole,
          .steps = steps};
}

void begin(Worker& worker) {
  if (worker.rank() == 0 && !worker.came_later()) {
    for (std::size_t i = 0; i < worker.weights().size(); ++i) {
      worker.weights()[i] = first_weight(static_cast<std::int64_t>(i));
    }
    worker.wait(worker.init());
  }
  worker.wait(worker.pull());
}

Values train(Worker& worker, const Script& script) {
  while (worker.clock() < script.steps) {
    const std::span<float> gradients = worker.gradients();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      gradients[i] = gradient_of(worker.rank(), worker.clock(), static_cast<std::int64_t>(i));
    }
    if (worker.layout().two_phases) {
      step_in_two_phases(worker, script);
    } else {
      step_at_once(worker, script);
    }
  }
  script.event();
  worker.wait(worker.pull());
  const Rows rows = all_rows(worker);
  if (has_rows(worker)) worker.wait(worker.pull_rows(rows.pull));
  Values values;
  values.weights.assign(worker.weights().begin(), worker.weights().end());
  for (const auto& table : rows.values) {
    values.rows.insert(values.rows.end(), table.begin(), table.end());
  }
  return values;
}

}  // namespace trireme::ps
