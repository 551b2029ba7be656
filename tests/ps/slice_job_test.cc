// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows of sparse tables through whole jobs, held against a std::map of rows for each table: workers
// push rows, pull some, do both in one call, or neither, in any steps; gradients and wanted rows
// lie in memory that servers share, or not.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/table_model.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme::ps {
namespace {

using trireme::testing::arbitrary_ids;
using trireme::testing::bits_of;
using trireme::testing::gradient_of;
using trireme::testing::TableModel;

using Ids = std::vector<std::uint64_t>;

// What one worker does in one step.
struct Turn {
  bool pushes = false;  // else its pushes are those of end_step()
  bool in_place = false;
  bool pulls_with_push = false;  // else in a call of its own, before the push
  std::vector<Ids> pushed;       // by table; no id twice
  std::vector<Ids> pulled;       // by table; some come again
};
using Step = std::vector<Turn>;  // by rank

struct Plan {
  JobLayout layout;
  int servers = 1;
  int workers = 1;
  std::vector<Step> steps;
};

std::uint64_t seed_of(int rank, std::size_t step, std::size_t table) {
  return (step * 8 + static_cast<std::size_t>(rank)) * 8 + table;
}
double rate_of(std::size_t step) { return 0.1 / static_cast<double>(step + 1); }
double weight_of(int rank, std::size_t step) {
  return static_cast<double>(1 + (static_cast<std::size_t>(rank) + step) % 3);
}
constexpr double kScale = 0.75;

std::vector<Ids> arbitrary_lists(std::size_t tables, bool distinct) {
  std::vector<Ids> lists;
  for (std::size_t table = 0; table < tables; ++table) {
    Ids ids = *arbitrary_ids();
    if (distinct) {
      std::set<std::uint64_t> seen;
      std::erase_if(ids, [&](std::uint64_t id) { return !seen.insert(id).second; });
    }
    lists.push_back(std::move(ids));
  }
  return lists;
}

Plan arbitrary_plan() {
  const std::vector<optim::OptimizerConfig> methods = {
      {.name = "sgd", .momentum = 0.0}, {.name = "sgd"}, {.name = "adagrad"}, {.name = "adam"}};
  Plan plan;
  const bool sync = *rc::gen::arbitrary<bool>();
  plan.servers = *rc::gen::inRange(1, 4);
  plan.workers = sync ? *rc::gen::inRange(1, 4) : 1;
  plan.layout.consistency = sync ? Consistency::sync() : Consistency::async();
  plan.layout.backups = *rc::gen::arbitrary<bool>();
  plan.layout.sparse.slices = *rc::gen::inRange(1, 6);
  plan.layout.sparse.seed = 23;
  const auto tables = *rc::gen::inRange<std::size_t>(1, 4);
  for (std::size_t table = 0; table < tables; ++table) {
    plan.layout.sparse.tables.push_back({.name = fmt::format("table {}", table),
                                         .width = *rc::gen::inRange<std::int64_t>(1, 20),
                                         .init = "normal",
                                         .optimizer = *rc::gen::elementOf(methods)});
  }
  plan.steps.resize(*rc::gen::inRange<std::size_t>(1, 7));
  for (Step& step : plan.steps) {
    for (int rank = 0; rank < plan.workers; ++rank) {
      step.push_back({.pushes = *rc::gen::weightedElement<bool>({{4, true}, {1, false}}),
                      .in_place = *rc::gen::arbitrary<bool>(),
                      .pulls_with_push = *rc::gen::arbitrary<bool>(),
                      .pushed = arbitrary_lists(tables, true),
                      .pulled = arbitrary_lists(tables, false)});
    }
  }
  return plan;
}

// Rows by table, those of one after those of another.
using Rows = std::vector<std::vector<float>>;

// The tables as the job should have them.
class Model {
 public:
  explicit Model(const Plan& plan) : plan_(plan) {
    for (const SparseTableConfig& table : plan.layout.sparse.tables) {
      tables_.emplace_back(table, plan.layout.sparse.seed);
    }
  }

  Rows read(const std::vector<Ids>& ids) const {
    Rows rows;
    for (std::size_t table = 0; table < tables_.size(); ++table) {
      rows.push_back(tables_[table].read(ids[table]));
    }
    return rows;
  }

  // Each row by the sum of the gradients that workers have for it, over the weight of all who push.
  void apply(std::size_t step) {
    double weight = 0;
    for (int rank = 0; rank < plan_.workers; ++rank) {
      if (turn(step, rank).pushes) weight += weight_of(rank, step);
    }
    for (std::size_t table = 0; table < tables_.size(); ++table) {
      std::set<std::uint64_t> ids;
      for (const Turn& turn : plan_.steps[step]) {
        if (turn.pushes) ids.insert(turn.pushed[table].begin(), turn.pushed[table].end());
      }
      for (const std::uint64_t id : ids) apply_row(step, table, id, weight);
    }
  }

  std::int64_t rows() const {
    std::size_t rows = 0;
    for (const TableModel& table : tables_) rows += table.rows().size();
    return static_cast<std::int64_t>(rows);
  }

 private:
  const Turn& turn(std::size_t step, int rank) const {
    return plan_.steps[step][static_cast<std::size_t>(rank)];
  }

  void apply_row(std::size_t step, std::size_t table, std::uint64_t id, double weight) {
    const std::int64_t width = plan_.layout.sparse.tables[table].width;
    std::vector<std::vector<float>> gradients;
    for (int rank = 0; rank < plan_.workers; ++rank) {
      const Ids& pushed = turn(step, rank).pushed[table];
      if (!turn(step, rank).pushes || std::find(pushed.begin(), pushed.end(), id) == pushed.end()) {
        continue;
      }
      gradients.push_back(gradient_of(id, width, seed_of(rank, step, table)));
    }
    std::vector<const void*> inputs;
    for (const auto& gradient : gradients) inputs.push_back(gradient.data());
    std::vector<float> sum(static_cast<std::size_t>(width));
    reduce_tree(inputs, sum.data(), width, DType::kF32, ReduceOp::kSum);
    tables_[table].update({&id, 1}, sum.data(), rate_of(step), kScale / weight);
  }

  const Plan& plan_;
  std::vector<TableModel> tables_;
};

// What each worker should read in each step, and after the last.
struct Expected {
  std::vector<std::vector<Rows>> rows;  // [step][rank]
  Rows last;
  std::int64_t num_rows = 0;
};

// All ids that anyone pushes or pulls, and one that nobody does.
std::vector<Ids> all_ids(const Plan& plan) {
  std::vector<Ids> all;
  for (std::size_t table = 0; table < plan.layout.sparse.tables.size(); ++table) {
    std::set<std::uint64_t> ids = {77'777'777'777};
    for (const Step& step : plan.steps) {
      for (const Turn& turn : step) {
        ids.insert(turn.pushed[table].begin(), turn.pushed[table].end());
        ids.insert(turn.pulled[table].begin(), turn.pulled[table].end());
      }
    }
    all.emplace_back(ids.begin(), ids.end());
  }
  return all;
}

Expected expected_of(const Plan& plan) {
  Expected expected;
  Model model(plan);
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    std::vector<Rows> before, after;
    for (const Turn& turn : plan.steps[step]) before.push_back(model.read(turn.pulled));
    model.apply(step);
    for (std::size_t rank = 0; rank < plan.steps[step].size(); ++rank) {
      const Turn& turn = plan.steps[step][rank];
      const bool late = turn.pushes && turn.pulls_with_push;
      after.push_back(late ? model.read(turn.pulled) : before[rank]);
    }
    expected.rows.push_back(std::move(after));
  }
  expected.last = model.read(all_ids(plan));
  expected.num_rows = model.rows();
  return expected;
}

// A worker with the memory that it has allocated, which must stay as long as it does.
struct Driver {
  Worker& worker;
  std::vector<SharedBuffer> memory = {};
};

// Floats of one call, in memory that servers share or in memory that they do not.
class Floats {
 public:
  Floats(Driver& driver, std::size_t count, bool shared) : own_(shared ? 0 : count) {
    data_ = own_.data();
    if (!shared) return;
    driver.memory.push_back(
        driver.worker.allocate(std::max<std::size_t>(count, 1) * sizeof(float)));
    data_ = static_cast<float*>(driver.memory.back().data());
  }
  float* at(std::size_t i) { return data_ + i; }

 private:
  std::vector<float> own_;
  float* data_ = nullptr;
};

// The rows of some tables, wanted or given, for one call.
template <class RowsOf>
struct Call {
  Call(Driver& driver, const std::vector<Ids>& ids, bool shared)
      : floats(driver, count(driver.worker, ids), shared) {
    std::size_t at = 0;
    for (std::uint64_t table = 0; table < ids.size(); ++table) {
      rows.push_back({table, ids[table], floats.at(at)});
      begins.push_back(at);
      at += ids[table].size() * width(driver.worker, table);
    }
    begins.push_back(at);
  }
  static std::size_t width(Worker& worker, std::size_t table) {
    return static_cast<std::size_t>(worker.layout().sparse.tables[table].width);
  }
  static std::size_t count(Worker& worker, const std::vector<Ids>& ids) {
    std::size_t count = 0;
    for (std::size_t table = 0; table < ids.size(); ++table) {
      count += ids[table].size() * width(worker, table);
    }
    return count;
  }
  Rows values() {
    Rows values;
    for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
      values.emplace_back(floats.at(begins[i]), floats.at(begins[i + 1]));
    }
    return values;
  }

  Floats floats;
  std::vector<std::size_t> begins;
  std::vector<RowsOf> rows;
};

Rows take_turn(Driver& driver, std::size_t step, const Turn& turn) {
  Worker& worker = driver.worker;
  Call<PushRows> push(driver, turn.pushed, turn.in_place);
  for (std::size_t table = 0; table < turn.pushed.size(); ++table) {
    const std::int64_t width = worker.layout().sparse.tables[table].width;
    float* to = push.floats.at(push.begins[table]);
    for (const std::uint64_t id : turn.pushed[table]) {
      const auto gradient = gradient_of(id, width, seed_of(worker.rank(), step, table));
      to = std::copy(gradient.begin(), gradient.end(), to);
    }
  }
  Call<PullRows> pull(driver, turn.pulled, turn.in_place);
  const bool with_push = turn.pushes && turn.pulls_with_push;
  if (!with_push) worker.wait(worker.pull_rows(pull.rows));
  Timestamp pushed = 0;
  if (turn.pushes) {
    const PushOptions options{.learning_rate = rate_of(step),
                              .gradient_scale = kScale,
                              .weight = weight_of(worker.rank(), step)};
    pushed = worker.push_rows(
        push.rows, options,
        with_push ? std::span<const PullRows>(pull.rows) : std::span<const PullRows>());
  }
  worker.end_step();
  if (turn.pushes) worker.wait(pushed);
  return pull.values();
}

bool same_bits(const Rows& left, const Rows& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](const auto& a, const auto& b) { return bits_of(a) == bits_of(b); });
}

std::string text_of(const Plan& plan) {
  std::string text =
      fmt::format("a job of {} servers and {} workers, {}, {} slices", plan.servers, plan.workers,
                  plan.layout.consistency.text(), plan.layout.sparse.slices);
  for (const SparseTableConfig& table : plan.layout.sparse.tables) {
    text += fmt::format(", {} of {}", table.optimizer.name, table.width);
  }
  return text;
}

// The first thing that is not as it should be, or nothing.
std::string run(const Plan& plan, const Expected& expected) {
  Job job({.servers = plan.servers, .workers = plan.workers});
  std::mutex mutex;
  std::string wrong;
  const auto note = [&](bool right, const std::string& what) {
    const std::lock_guard lock(mutex);
    if (!right && wrong.empty()) wrong = what;
  };
  job.run(plan.layout, [&](Worker& worker) {
    if (worker.rank() == 0) worker.wait(worker.init());
    Driver driver{worker};
    const auto rank = static_cast<std::size_t>(worker.rank());
    for (std::size_t step = 0; step < plan.steps.size(); ++step) {
      const Rows rows = take_turn(driver, step, plan.steps[step][rank]);
      note(same_bits(rows, expected.rows[step][rank]),
           fmt::format("rows that worker {} reads in step {}", rank, step));
    }
    const std::vector<Ids> ids = all_ids(plan);
    Call<PullRows> pull(driver, ids, false);
    worker.wait(worker.pull_rows(pull.rows));
    note(same_bits(pull.values(), expected.last),
         fmt::format("rows of worker {} at the end", rank));
    const std::int64_t rows = worker.report().rows;
    note(rows == expected.num_rows, fmt::format("{} rows in place of {}", rows, expected.num_rows));
  });
  return wrong;
}

TEST(SliceJob, IsAMapOfRows) {
  // A job takes its time: fewer of them than of other random inputs.
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = (params.maxSuccess + 2) / 3;
  const auto result = rc::detail::checkTestable(
      [] {
        // Large plans from the first one on: what goes wrong is in the mixture.
        const Plan plan = *rc::gen::resize(rc::kNominalSize, rc::gen::exec(&arbitrary_plan));
        const std::string wrong = run(plan, expected_of(plan));
        if (!wrong.empty()) RC_FAIL(wrong + " of " + text_of(plan));
      },
      rc::detail::TestMetadata{}, params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << text.str();
}

}  // namespace
}  // namespace trireme::ps
