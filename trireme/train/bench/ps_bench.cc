// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/ps_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/comm/bench/memory_limit.h"
#include "trireme/comm/bench/statistics.h"
#include "trireme/launch/init.h"
#include "trireme/ps/worker.h"
#include "trireme/train/parameter_server_job.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Of the slowest worker.
template <class Act>
double timed_ms(Group& world, const Act& act) {
  world.barrier();
  const auto start = Clock::now();
  act();
  double ms = ms_since(start);
  world.all_reduce(buffer_of(std::span(&ms, 1)), ReduceOp::kMax);
  return ms;
}

void add(Fields& fields, const std::string& name, const Spread& spread) {
  fields.emplace_back(name, spread.median);
  fields.emplace_back(name + "_p10", spread.p10);
  fields.emplace_back(name + "_p90", spread.p90);
}

float gradient_of(int rank, std::int64_t i) {
  return static_cast<float>((i * 7 + rank * 13) % 1024) - 511.5F;
}

// After one update of zero weights by the mean, with a learning rate of 1.
void check_dense(std::span<const float> weights, int workers) {
  for (std::size_t i = 0; i < weights.size(); i += 977) {
    float sum = 0;
    for (int rank = 0; rank < workers; ++rank) {
      sum += gradient_of(rank, static_cast<std::int64_t>(i));
    }
    const float wanted = -sum / static_cast<float>(workers);
    if (std::abs(weights[i] - wanted) > 1e-3F * (1 + std::abs(wanted))) {
      throw_error<Error>("weight {} is {} after a push of all workers, wanted is {}", i, weights[i],
                         wanted);
    }
  }
}

}  // namespace

Fields bench_ps_dense(const PsDenseBenchOptions& options) {
  const auto world = init();
  ps::JobLayout layout;
  layout.range_bytes = options.range_bytes;
  layout.backups = options.backups;
  layout.dense.size = (options.elements + kShardBlock - 1) / kShardBlock * kShardBlock;
  layout.dense.optimizer.name = options.optimizer;
  if (options.optimizer == "sgd") layout.dense.optimizer.momentum = 0.0;
  layout.dense.parameters = {{.entry = {"all", {options.elements}, 0, options.elements}}};
  ps::WorkerOptions joining = worker_options(launch_info());
  joining.codec = options.codec;
  ps::Worker worker(joining, layout);
  if (worker.rank() == 0) worker.wait(worker.init());
  worker.wait(worker.pull());
  const std::span<float> gradients = worker.gradients();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = gradient_of(worker.rank(), static_cast<std::int64_t>(i));
  }
  const auto push_pull = [&](double learning_rate) {
    worker.wait(worker.push({.learning_rate = learning_rate, .then_pull = true}));
    worker.end_step();
  };
  push_pull(1);
  if (options.optimizer == "sgd" && options.codec.empty()) {
    check_dense(worker.weights(), world->size());
  }

  const std::int64_t size = layout.dense.size;
  const SharedBuffer shared =
      world->allocate_shared(static_cast<std::size_t>(size) * sizeof(float));
  const Buffer reduced{shared.data(), size, DType::kF32};
  std::memcpy(shared.data(), gradients.data(), reduced.bytes());
  world->all_reduce(reduced);
  push_pull(1e-6);
  std::vector<double> ps_ms, all_reduce_ms;
  for (int i = 0; i < options.repetitions; ++i) {
    ps_ms.push_back(timed_ms(*world, [&] { push_pull(1e-6); }));
    all_reduce_ms.push_back(timed_ms(*world, [&] { world->all_reduce(reduced); }));
  }
  Fields fields = {{"bench", "ps dense"},
                   {"workers", std::int64_t{world->size()}},
                   {"servers", std::int64_t{launch_info().parameter_servers->servers}},
                   {"elements", options.elements},
                   {"optimizer", options.optimizer},
                   {"codec", options.codec},
                   {"range_bytes", options.range_bytes}};
  add(fields, "push_pull_ms", spread_of(ps_ms));
  add(fields, "all_reduce_ms", spread_of(all_reduce_ms));
  add(fields, "ratio", paired_ratio(ps_ms, all_reduce_ms));
  worker.leave();
  world->close();
  return fields;
}

namespace {

// Ids by Zipf's law, by rejection (Devroye 1986, X.6.1), scattered over all of 64 bits; any
// exponent above 1. Uniform for 0.
class Ids {
 public:
  Ids(std::int64_t rows, double exponent, std::uint64_t seed)
      : rows_(rows), exponent_(exponent), stream_(seed, "ids") {}

  std::vector<std::uint64_t> distinct(std::int64_t count) {
    std::vector<std::uint64_t> ids;
    ids.reserve(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(draw());
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    // Not in any order that a table could profit from.
    for (std::size_t i = ids.size(); i > 1; --i) {
      std::swap(ids[i - 1], ids[stream_.bits(next_++) % i]);
    }
    return ids;
  }

 private:
  std::uint64_t draw() {
    if (exponent_ == 0) {
      return stream_.bits(next_++) % static_cast<std::uint64_t>(rows_) * 0x9E3779B97F4A7C15U;
    }
    const double b = std::pow(2.0, exponent_ - 1.0);
    while (true) {
      const double u = 1.0 - stream_.uniform(next_++);
      const double v = stream_.uniform(next_++);
      const double x = std::floor(std::pow(u, -1.0 / (exponent_ - 1.0)));
      if (!(x >= 1 && x <= static_cast<double>(rows_))) continue;
      const double t = std::pow(1.0 + 1.0 / x, exponent_ - 1.0);
      if (v * x * (t - 1.0) / (b - 1.0) <= t / b) {
        return static_cast<std::uint64_t>(x) * 0x9E3779B97F4A7C15U;
      }
    }
  }

  std::int64_t rows_;
  double exponent_;
  RandomStream stream_;
  std::uint64_t next_ = 0;
};

}  // namespace

Fields bench_ps_slow(const PsSlowBenchOptions& options) {
  const LaunchInfo info = launch_info();
  const auto world = init();
  if (world->size() < 2)
    throw_error<ConfigError>("a slow worker among {}: at least 2", world->size());
  ps::JobLayout layout;
  layout.consistency = ps::Consistency::parse(options.consistency);
  layout.dense.size = (options.elements + kShardBlock - 1) / kShardBlock * kShardBlock;
  layout.dense.optimizer = {.name = "sgd", .momentum = 0.0};
  layout.dense.parameters = {{.entry = {"all", {options.elements}, 0, options.elements}}};
  ps::Worker worker(worker_options(info), layout);
  if (worker.rank() == 0) worker.wait(worker.init());
  worker.wait(worker.pull());

  const bool is_slow = worker.rank() + 1 == world->size();
  const auto step = [&](bool slowed) {
    const double ms = options.step_ms * (slowed ? options.slowed_times : 1.0);
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms));
    worker.wait(worker.push({.learning_rate = 1e-3, .then_pull = true}));
    worker.end_step();
  };
  // Steps of this worker until the time is over for all: whoever waits for others is let go by
  // these, who go on until each has seen the end.
  const auto steps_in_time = [&](bool with_slow) {
    world->barrier();
    const auto start = Clock::now();
    std::int64_t steps = 0;
    while (ms_since(start) < options.seconds * 1e3) {
      const bool now = options.slow_steps == 0 || steps % options.period < options.slow_steps;
      step(with_slow && is_slow && now);
      ++steps;
    }
    // All end with as many steps, so that none waits for one who has stopped.
    std::int64_t most = steps;
    world->all_reduce(buffer_of(std::span(&most, 1)), ReduceOp::kMax);
    for (std::int64_t rest = steps; rest < most; ++rest) {
      worker.wait(worker.push({.learning_rate = 1e-3}));
      worker.end_step();
    }
    return steps;
  };
  step(false);
  const std::int64_t without = steps_in_time(false);
  const std::int64_t with = steps_in_time(true);
  double kept = is_slow ? 0 : static_cast<double>(with) / static_cast<double>(without);
  world->all_reduce(buffer_of(std::span(&kept, 1)));
  const ps::ServerReport report = worker.report();
  std::string waited;
  for (std::size_t rank = 0; rank < report.waited_for_us.size(); ++rank) {
    waited +=
        fmt::format("{}{}: {:.0f}", rank == 0 ? "" : ", ", rank, report.waited_for_us[rank] / 1e3);
  }
  Fields fields = {{"bench", "ps slow"},
                   {"workers", std::int64_t{world->size()}},
                   {"consistency", options.consistency},
                   {"slowed_times", options.slowed_times},
                   {"slow_steps", options.slow_steps},
                   {"period", options.period},
                   {"others_keep", kept / (world->size() - 1)},
                   {"waited_for_ms_by_rank", waited}};
  world->barrier();
  worker.leave();
  world->close();
  return fields;
}

Fields bench_ps_sparse(const PsSparseBenchOptions& options) {
  const LaunchInfo info = launch_info();
  const auto world = init();
  ps::JobLayout layout;
  layout.consistency = ps::Consistency::parse(options.consistency);
  layout.backups = options.backups;
  ps::SparseTableConfig table;
  table.name = "rows";
  table.width = options.width;
  table.optimizer.name = options.optimizer;
  if (options.optimizer == "sgd") table.optimizer.momentum = 0.0;
  layout.sparse = {.tables = {table}, .slices = options.slices, .seed = 1};
  ps::Worker worker(worker_options(info), layout);
  if (worker.rank() == 0) worker.wait(worker.init());

  // The batches are drawn before the clock runs, and used in turn.
  constexpr int kBatches = 16;
  Ids ids(options.rows, options.zipf, static_cast<std::uint64_t>(info.rank) + 1);
  std::vector<std::vector<std::uint64_t>> batches;
  std::size_t most = 0;
  for (int i = 0; i < kBatches; ++i) {
    batches.push_back(ids.distinct(options.batch));
    most = std::max(most, batches.back().size());
  }
  const std::size_t floats = most * static_cast<std::size_t>(options.width);
  // What a call in flight uses.
  struct Memory {
    SharedBuffer gradients, rows;
    ps::Timestamp call = 0;
    std::int64_t pushed = 0;
  };
  std::vector<Memory> memories;
  for (int i = 0; i < options.in_flight; ++i) {
    memories.push_back(
        {worker.allocate(floats * sizeof(float)), worker.allocate(floats * sizeof(float))});
    std::fill_n(static_cast<float*>(memories.back().gradients.data()), floats, 1e-3F);
  }
  std::int64_t moved = 0;
  const auto finish = [&](Memory& memory) {
    worker.wait(memory.call);
    moved += std::exchange(memory.pushed, 0);
  };
  const auto push_pull = [&](int i) {
    Memory& memory = memories[static_cast<std::size_t>(i) % memories.size()];
    finish(memory);
    const auto& pushed = batches[static_cast<std::size_t>(i) % kBatches];
    const auto& wanted = batches[static_cast<std::size_t>(i + options.in_flight) % kBatches];
    const ps::PushRows push{.ids = pushed,
                            .gradients = static_cast<const float*>(memory.gradients.data())};
    const ps::PullRows pull{.ids = wanted, .rows = static_cast<float*>(memory.rows.data())};
    memory.call = worker.push_rows({&push, 1}, {.learning_rate = 0.1}, {&pull, 1});
    memory.pushed = static_cast<std::int64_t>(pushed.size());
    worker.end_step();
  };
  // All rows of all batches are made; what they hold is the same in each.
  for (int i = 0; i < kBatches; ++i) push_pull(i);
  for (Memory& memory : memories) finish(memory);
  world->barrier();
  moved = 0;
  const auto start = Clock::now();
  int calls = 0;
  while (ms_since(start) < options.seconds * 1e3) push_pull(calls++);
  for (Memory& memory : memories) finish(memory);
  double rows_per_s = static_cast<double>(moved) / (ms_since(start) / 1e3);
  world->all_reduce(buffer_of(std::span(&rows_per_s, 1)));

  const double memory =
      measure_memory_bytes_per_s(bench_subject(*world), memory_limit_array_bytes(world->size()));
  // Of a pushed row its gradient is read and the weights are read and written; of a pulled row the
  // weights are read, and written to where they are wanted.
  const double bytes_per_row = 5.0 * sizeof(float) * static_cast<double>(options.width);
  const ps::ServerReport report = worker.report();
  Fields fields = {{"bench", "ps sparse"},
                   {"workers", std::int64_t{world->size()}},
                   {"servers", std::int64_t{info.parameter_servers->servers}},
                   {"width", options.width},
                   {"zipf", options.zipf},
                   {"batch", options.batch},
                   {"in_flight", std::int64_t{options.in_flight}},
                   {"rows_in_tables", report.rows},
                   {"calls", std::int64_t{calls}},
                   {"rows_per_s", rows_per_s},
                   {"bytes_per_row", bytes_per_row},
                   {"memory_bytes_per_s", memory},
                   {"of_limit", rows_per_s * bytes_per_row / memory}};
  world->barrier();
  worker.leave();
  world->close();
  return fields;
}

}  // namespace trireme
