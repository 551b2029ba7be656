// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Trainer: one run from its prepared folder to its final table, on any number of ranks.
//
//   TrainConfig config = load_train_config(tree);
//   const auto lock = prepare_run(config, {.resume = resume, .workers = group.size()});   // once
//   per job Trainer trainer(config, group, {.resume = resume}); const TrainResult result =
//   trainer.run();
//
// Every rank makes one and calls run(). Rank 0 writes: metrics, events, checkpoints, the summary.
// The losses do not depend on the number of ranks or threads, nor on whether the run was
// interrupted and resumed (bit for bit on the same type of machine; a change is logged).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "trireme/comm/group.h"
#include "trireme/train/evaluator.h"
#include "trireme/train/interrupt.h"
#include "trireme/train/prepare_run.h"
#include "trireme/train/served_state.h"
#include "trireme/train/step_model.h"
#include "trireme/train/train_config.h"
#include "trireme/train/train_step.h"

namespace trireme {

class RunLog;

struct TrainerOptions {
  bool resume = false;  // from the newest checkpoint; from the start when there is none
  // Matrix rate of this rank's share of the machine, flops/s in the run's dtype, measured by the
  // caller (ops/machine_rates.h) while the other ranks measured theirs.
  double limit_flops_per_s = 0;
};

struct TrainResult {
  bool finished = false;  // false: stopped by a signal, with a checkpoint
  std::int64_t step = 0;
  Evaluation evaluation;
};

// Not thread-safe.
class Trainer {
 public:
  // Opens the prepared data, builds the model, loads the checkpoint. Collective. Throws DataError,
  // CheckpointError.
  Trainer(const TrainConfig& config, Group& group, const TrainerOptions& options);
  // The same as a worker of a job with parameter servers (served_state.h), who need not wait for
  // one another. Throws what ServedState does.
  Trainer(const TrainConfig& config, const ServedWorker& job, const TrainerOptions& options);
  ~Trainer();

  // Collective, blocking. Throws Error when training diverges or, on rank 0, the required gain is
  // missed, CommError when a peer is lost.
  TrainResult run();

 private:
  using MakeState = std::function<std::unique_ptr<RunState>(const TrainConfig&, const StartPoint&)>;
  Trainer(std::pair<TrainConfig, TrainData> opened, const TrainerOptions& options,
          const MakeState& make);
  StartPoint start_point() const;
  void greet(double limit_flops_per_s);
  void evaluate(std::int64_t step);
  void save(std::int64_t step);
  void finish(std::int64_t step, const Fields& facts);  // rank 0
  bool is_root() const { return state_->rank() == 0; }
  std::int64_t tokens_per_step() const;

  TrainConfig config_;
  TrainerOptions options_;
  RunFolder folder_;
  TrainData data_;
  StartPoint start_;
  std::unique_ptr<RunState> state_;
  TrainStep step_;
  Evaluator evaluator_;
  std::unique_ptr<RunLog> log_;  // rank 0 only
  std::int64_t start_step_ = 0;  // steps done before this process
  std::int64_t saved_step_ = -1;
  Evaluation evaluation_;
  std::int64_t evaluated_step_ = -1;
};

}  // namespace trireme
