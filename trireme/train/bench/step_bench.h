// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `trireme bench step`: whole training steps of a known model on random tokens, where their time
// goes, and how near they come to what this machine could do. docs/compute.md says what the figures
// mean.
//
//   const StepBenchReport report = bench_step({.model = "gpt2-124m", .dtype = "bf16"}, folder);
//   std::fputs(to_json(report).c_str(), stdout);
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/bench/runner.h"
#include "trireme/comm/bench/statistics.h"
#include "trireme/nn/model_config.h"
#include "trireme/train/bench/product_rates.h"

namespace trireme {

class Group;

struct StepBenchOptions {
  std::string model = "gpt2-124m";  // see known_models.h
  std::string dtype = "f32";        // or bf16
  std::int64_t batch = 4;           // sequences of a micro-batch
  std::int64_t tokens = 256;        // of a sequence
  std::int64_t accumulate = 1;      // micro-batches of each replica in a step
  std::int64_t tp = 1;              // ranks that compute a sample together
  bool sequence = false;            // with tp
  std::int64_t tp_chunks = 1;       // as parallel.tp_chunks
  std::int64_t cp = 1;              // ranks that have a part of each sequence's tokens
  std::string cp_method = "ring";
  std::int64_t ep = 1;  // ranks that have a part of the experts
  std::int64_t pp = 1;  // ranks that have a part of the layers; the rest as PipelineConfig
  std::string schedule = "1f1b";
  std::int64_t pp_chunks = 0;
  std::vector<std::string> pp_layers = {};
  std::string balance = "estimate";
  std::int64_t shard = 0;        // stage of ZeRO
  std::int64_t shard_ranks = 0;  // as ShardOptions has it
  std::int64_t steps = 10;       // timed
  std::int64_t warm_up_steps = 2;
  bool measure_limit = true;
  BenchTiming limit_timing = {.max_samples = 15, .seconds = 0.2};  // of each shape of product

  // ranks: that train together. Throws ConfigError: an unknown model or dtype, numbers below 1,
  // shard_ranks that these ranks cannot form, or what cannot fit into this host's memory.
  void validate(int ranks) const;
};

// The time of a part is its share of all timed steps, times the median step: the parts' seconds sum
// up to report.seconds.median.
struct StepPart {
  std::string name;
  double calls = 0;  // in a step
  double seconds = 0;
  double share = 0;
  double flops = 0;  // of the matrix products in it, in a step
};

// What a step would take if all that it did were its matrix products, each at the best rate of its
// shape, and the optimizer's reading and writing of memory.
struct StepLimit {
  std::vector<ProductRate> rates;
  double memory_bytes_per_s = 0;
  double optimizer_bytes = 0;

  double product_seconds() const { return seconds_at_rates(rates); }
  double optimizer_seconds() const { return optimizer_bytes / memory_bytes_per_s; }
  double seconds() const { return product_seconds() + optimizer_seconds(); }
};

// What ranks that train together cost one of them.
struct ExchangeCost {
  Spread communication_us;                 // of a step: something was under way
  Spread exposed_us;                       // of it: the rank waited
  double bytes_sent = 0;                   // in a step
  double bytes_sent_between_replicas = 0;  // of these: of gradients, between copies of the model
  double activation_bytes_sent = 0;        // besides, in a step: between ranks of tp
  double exposed_share() const {
    return communication_us.median > 0 ? exposed_us.median / communication_us.median : 0;
  }
};

// Of a pipeline's steps.
struct PipelineCost {
  // Share of the ranks' time in which they did not compute: measured, of the schedule's part of a
  // step, and as planned.
  Spread bubble;
  double planned_bubble = 0;
  std::vector<std::int64_t> blocks;  // of each stage
};

struct StepBenchReport {
  StepBenchOptions options;
  int ranks = 1;
  int replicas = 1;  // copies of the model that ranks share
  ExchangeCost exchange;
  PipelineCost pipeline;  // with pp 2 and more
  // Between two steps: weights, gradients and the optimizer's state.
  std::int64_t state_bytes = 0;
  // Of those, weights; and the most that activations took.
  std::int64_t weight_bytes = 0;
  std::int64_t activation_bytes = 0;
  std::int64_t parameters = 0;
  int threads = 1;
  double loss = 0;   // of the last step, nats per token
  Spread seconds;    // of a step
  double flops = 0;  // of a step's matrix products, counted from shapes; of tp ranks together
  std::vector<StepPart> parts;  // the longest first
  std::int64_t peak_bytes = 0;  // resident, of this process while it ran the steps
  StepLimit limit;              // without rates if it was not measured

  double tokens_per_step() const;
  double share_of_limit() const;  // NaN where the limit was not measured
  // Share of the step in parts that have matrix products. NaN while no part says that it has.
  double matrix_share() const;
  double flops_in_parts() const;  // in a step; below flops where parts are missing
};

// Steps of train_step.h from random weights, on this process's threads, as one rank of the group:
// all call it alike. folder: an empty one of this rank's for the random tokens. The limit is that
// of one rank alone and is not measured by several. Throws what validate() does, DataError, Error.
StepBenchReport bench_step(const StepBenchOptions& options, const std::string& folder,
                           Group& group);

// Bytes that AdamW reads and writes for each parameter: reads weight, gradient and two moments,
// writes weight and moments, f32 all of them; in bf16 the working copy besides.
double optimizer_bytes_per_parameter(at::ScalarType dtype);

// "f32" or "bf16". Throws ConfigError.
at::ScalarType training_dtype(std::string_view name);

// One object in one line, with the line break.
std::string to_json(const StepBenchReport& report);
std::string to_table(const StepBenchReport& report);

// Several reports as a table, a line each.
std::string sweep_header();
std::string to_sweep_row(const StepBenchReport& report);

}  // namespace trireme
