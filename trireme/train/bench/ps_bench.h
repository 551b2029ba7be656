// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How fast gradients and weights travel between workers and parameter servers, beside what the
// machine could do: what `trireme bench ps` prints. Runs in the workers of a job:
//
//   trireme launch --servers 1 --workers 2 -- trireme bench ps dense
#pragma once

#include <cstdint>
#include <string>

#include "trireme/train/fields.h"

namespace trireme {

struct PsDenseBenchOptions {
  std::int64_t elements = 124'439'808;  // GPT-2's
  std::string optimizer = "sgd";
  std::string codec;
  std::int64_t range_bytes = std::int64_t{4} << 20;
  bool backups = true;
  int repetitions = 7;
};

// A step's traffic: each worker pushes all gradients and pulls all weights, and, by turns, an
// all_reduce of the same bytes among the same workers. Collective over the workers; rank 0's fields
// are the report. Results are checked first.
Fields bench_ps_dense(const PsDenseBenchOptions& options);

struct PsSparseBenchOptions {
  std::int64_t width = 64;
  std::int64_t rows = 10'000'000;  // that ids are drawn from
  double zipf = 1.05;              // exponent of their frequencies; 0: uniform
  std::int64_t batch = 65'536;     // ids drawn for a call; equal ones are one row
  int slices = 8;
  int in_flight = 2;  // calls begun before the first of them is waited for
  std::string optimizer = "sgd";
  std::string consistency = "async";
  bool backups = true;
  double seconds = 5;
};

// push_pull: rows of one batch are pushed and those of a later one are pulled, as by a trainer that
// has the rows of its next batches fetched while it computes.
Fields bench_ps_sparse(const PsSparseBenchOptions& options);

struct PsSlowBenchOptions {
  std::string consistency = "sync";
  double step_ms = 20;      // what a step takes each worker beside the traffic
  double slowed_times = 5;  // the last worker's steps take that much longer
  // It is slow for so many steps of every `period` steps; 0: always.
  std::int64_t slow_steps = 0;
  std::int64_t period = 25;
  std::int64_t elements = 65'536;
  double seconds = 5;
};

// What a slow worker costs the others: their steps in the time with it, over those without.
// "Computing" is sleeping here, so that more workers than cores do not slow each other.
Fields bench_ps_slow(const PsSlowBenchOptions& options);

}  // namespace trireme
