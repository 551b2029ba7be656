// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/op_bench.h"

#include <ATen/Parallel.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "trireme/base/error.h"
#include "trireme/comm/bench/build_info.h"
#include "trireme/ops/machine_rates.h"
#include "trireme/train/bench/op_cases.h"
#include "trireme/train/bench/product_rates.h"
#include "trireme/train/bench/step_bench.h"
#include "trireme/train/bench/timing.h"

namespace trireme {
namespace {

constexpr auto kMemoryBudget = std::chrono::milliseconds(400);
constexpr double kMs = 1e3;  // of a second

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const OpCase& one : op_cases(at::kFloat)) {
    if (names.empty() || names.back() != one.op) names.push_back(one.op);
  }
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Measures one case; limits are the same for both of its rows.
class CaseBench {
 public:
  CaseBench(const OpCase& measured, const OpBenchOptions& options, double memory_bytes_per_s)
      : case_(measured), options_(options), memory_bytes_per_s_(memory_bytes_per_s) {
    const BenchTiming timing{.max_samples = 15, .seconds = std::min(0.2, options.timing.seconds)};
    rates_ = measure_product_rates(case_.products, training_dtype(options.dtype), timing);
  }

  void run(const std::function<void(const OpBenchRow&)>& report) const {
    const OpRun op = case_.make();
    report(row("forward", time_runs([&] { op.forward(); }, options_.timing)));
    if (op.with_gradient.empty()) return;
    const at::Tensor gradient = at::ones_like(op.forward().detach());
    const auto both = [&] { torch::autograd::grad({op.forward()}, op.with_gradient, {gradient}); };
    report(row("both", time_runs(both, options_.timing)));
  }

 private:
  OpBenchRow row(const std::string& direction, const std::vector<double>& seconds) const {
    const bool both = direction == "both";
    OpBenchRow row{.op = case_.op,
                   .shape = case_.shape,
                   .direction = direction,
                   .dtype = options_.dtype,
                   .threads = at::get_num_threads(),
                   .seconds = spread_of(seconds)};
    double product_seconds = 0;
    for (const ProductRate& rate : rates_) {
      if (!both && !rate.product.name.ends_with("forward")) continue;
      row.flops += rate.product.needed_flops();
      product_seconds += rate.seconds();
    }
    row.bytes = case_.forward_bytes + (both ? case_.backward_bytes : 0.0);
    const double memory_seconds = row.bytes / memory_bytes_per_s_;
    row.memory_limits = memory_seconds > product_seconds;
    row.limit_seconds = std::max(memory_seconds, product_seconds);
    return row;
  }

  const OpCase& case_;
  const OpBenchOptions& options_;
  double memory_bytes_per_s_;
  std::vector<ProductRate> rates_;
};

constexpr char kRow[] = "{:<14}{:<30}{:<9}{:>10}{:>10}{:>10}{:>10}{:>8}{:>10}  {}\n";

}  // namespace

void OpBenchOptions::validate() const {
  training_dtype(dtype);
  const std::vector<std::string> known = op_names();
  for (const std::string& op : ops) {
    if (!contains(known, op)) {
      throw_error<ConfigError>("there is no operation '{}'; use {}", op, fmt::join(known, ", "));
    }
  }
}

void bench_ops(const OpBenchOptions& options,
               const std::function<void(const OpBenchRow&)>& report) {
  options.validate();
  const double memory_bytes_per_s = measure_memory_bytes_per_s(kMemoryBudget);
  for (const OpCase& one : op_cases(training_dtype(options.dtype))) {
    if (!options.ops.empty() && !contains(options.ops, one.op)) continue;
    CaseBench(one, options, memory_bytes_per_s).run(report);
  }
}

std::string to_json(const OpBenchRow& row) {
  const double seconds = row.seconds.median;
  nlohmann::ordered_json json = {{"op", row.op},
                                 {"shape", row.shape},
                                 {"direction", row.direction},
                                 {"dtype", row.dtype},
                                 {"threads", row.threads},
                                 {"ms", seconds * kMs},
                                 {"ms_p10", row.seconds.p10 * kMs},
                                 {"ms_p90", row.seconds.p90 * kMs}};
  json["gflops_per_s"] =
      row.flops > 0 ? nlohmann::ordered_json(row.flops / seconds / 1e9) : nullptr;
  json["gb_per_s"] = row.bytes / seconds / 1e9;
  json["limit"] = row.memory_limits ? "memory" : "matrix";
  json["limit_ms"] = row.limit_seconds * kMs;
  json["share_of_limit"] = row.share_of_limit();
  json["commit"] = build_commit();
  return json.dump() + "\n";
}

std::string op_table_header() {
  return fmt::format(kRow, "op", "inputs", "", "ms", "p10", "p90", "GFLOP/s", "GB/s", "of limit",
                     "limit");
}

std::string to_table(const OpBenchRow& row) {
  const double seconds = row.seconds.median;
  const auto ms = [](double value) { return fmt::format("{:.3f}", value * kMs); };
  return fmt::format(
      kRow, row.op, row.shape, row.direction, ms(seconds), ms(row.seconds.p10), ms(row.seconds.p90),
      row.flops > 0 ? fmt::format("{:.1f}", row.flops / seconds / 1e9) : "-",
      fmt::format("{:.1f}", row.bytes / seconds / 1e9),
      fmt::format("{:.1f} %", 100 * row.share_of_limit()), row.memory_limits ? "memory" : "matrix");
}

}  // namespace trireme
