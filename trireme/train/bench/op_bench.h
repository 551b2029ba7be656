// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `trireme bench ops`: each operation of a training step alone (op_cases.h), held against the
// matrix and memory rates measured beside it.
//
//   bench_ops({.ops = {"gelu"}, .dtype = "bf16"}, [](const OpBenchRow& row) { ... });
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trireme/comm/bench/runner.h"
#include "trireme/comm/bench/statistics.h"

namespace trireme {

struct OpBenchOptions {
  std::vector<std::string> ops = {};  // empty: all
  std::string dtype = "f32";          // or bf16
  BenchTiming timing = {.max_samples = 51, .seconds = 0.5};

  // Throws ConfigError with the operations or dtypes that there are.
  void validate() const;
};

struct OpBenchRow {
  std::string op;
  std::string shape;      // of the inputs
  std::string direction;  // "forward", or "both": forward and backward, one after the other
  std::string dtype;
  int threads = 1;
  Spread seconds;
  double flops = 0;  // of matrix products; 0: none
  double bytes = 0;
  // The longer of: the products at the rates of their shapes, the bytes at the memory's rate.
  double limit_seconds = 0;
  bool memory_limits = false;  // rather than the products

  double share_of_limit() const { return limit_seconds / seconds.median; }
};

// A case's rows as they are measured, on this process's threads. Throws ConfigError.
void bench_ops(const OpBenchOptions& options, const std::function<void(const OpBenchRow&)>& report);

// One line, with its end.
std::string to_json(const OpBenchRow& row);
std::string op_table_header();
std::string to_table(const OpBenchRow& row);

}  // namespace trireme
