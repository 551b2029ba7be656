// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a run tells while it goes on, on rank 0: the progress bar, metrics.jsonl, the TensorBoard
// events, and at the end summary.json and the table. The names are the same in all of them.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/base/progress.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/train/evaluator.h"
#include "trireme/train/event_file.h"
#include "trireme/train/metrics_log.h"
#include "trireme/train/run_folder.h"
#include "trireme/train/summary.h"
#include "trireme/train/train_step.h"

namespace trireme {

struct RunLogOptions {
  std::int64_t start_step = 0;  // metrics of later steps, from before a resume, are dropped
  std::int64_t total_steps = 0;
  std::int64_t tokens_per_step = 0;
  double flops_per_token = 0;
  double limit_flops_per_s = 0;  // of all ranks together
};

// Not thread-safe.
class RunLog {
 public:
  RunLog(const RunFolder& folder, const RunLogOptions& options);

  // step: updates done, counted from 1. Tells this process's memory, and resets its peak: each line
  // has the peak since the one before.
  void step(std::int64_t step, const StepStats& stats, double seconds);
  void evaluation(std::int64_t step, const Evaluation& evaluation);
  void checkpoint(std::int64_t step, const std::string& path);
  void interrupted(std::int64_t step);
  // Writes summary.json and prints the table on stdout. facts come first; speeds are those of this
  // process.
  void summary(Fields facts, const Evaluation& evaluation);

 private:
  double tokens_per_s(std::int64_t steps, double seconds) const;
  double share_of_limit(double tokens_per_s) const;
  MemoryReport memory_since_last();

  RunFolder folder_;
  RunLogOptions options_;
  MetricsLog metrics_;
  EventFile events_;
  Progress progress_;
  std::int64_t steps_ = 0;  // of this process
  double seconds_ = 0;      // in those steps
  MemoryReport memory_;     // with the highest peak so far
};

}  // namespace trireme
