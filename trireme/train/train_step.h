// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One optimizer update: every rank computes its micro-batches, the gradients are summed, all ranks
// apply the same update. The result does not depend on the number of ranks
// (parallel/micro_batch_plan.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/data/token_shards.h"
#include "trireme/optim/gradient_guard.h"
#include "trireme/parallel/step_exchange.h"
#include "trireme/train/batch_loader.h"
#include "trireme/train/step_model.h"
#include "trireme/train/train_config.h"

namespace trireme {

struct StepStats {
  double loss = 0;           // mean over the step's tokens, nats
  double gradient_norm = 0;  // of the mean gradient, before clipping
  double learning_rate = 0;
  optim::StepVerdict verdict = optim::StepVerdict::kApply;  // others: nothing was updated
  optim::GuardState guard;                                  // this step included
  bool stop = false;    // some rank was asked to stop; all ranks see the same
  StepReport exchange;  // what the gradients' way cost this rank
};

// Not thread-safe. All ranks of the group make one with the same config and call run() with the
// same steps.
class TrainStep {
 public:
  // The references must outlive it. config resolved. separator: see BatchLoader.
  TrainStep(const TrainConfig& config, const TokenShards& shards, StepModel& model,
            std::optional<TokenId> separator = {});

  // Runs step (0-based) and updates the state. Collective, blocking. stop_requested: this rank's
  // wish. A step that the guard finds bad (optim/gradient_guard.h), on any rank, is passed over by
  // all: its gradients are dropped, weights and optimizer stay as they are. Throws Error, on all
  // ranks alike, after more such steps in a row than config.guard allows.
  StepStats run(std::int64_t step, bool stop_requested);

  // Steps passed over so far, those before a resume included.
  const optim::GuardState& guard() const { return guard_.state(); }
  // What load() needs to go on with the same verdicts: to and from checkpoints. A checkpoint that
  // has none of it, by an earlier version, leaves the guard as it is. Throws CheckpointError.
  void save(CheckpointState& state) const;
  void load(const Checkpoint& checkpoint);

 private:
  MicroBatch load(std::int64_t step, std::int64_t micro_batch, bool with_tokens) const;
  void update(const StepStats& stats, std::optional<double> applied_scale);

  const TrainConfig& config_;
  StepModel& model_;
  BatchLoader loader_;
  optim::GradientGuard guard_;
  // By micro-batch of the current step, zero where another rank computed it; last: the number of
  // ranks that want to stop.
  std::vector<double> losses_;
};

// Key of a checkpoint's state.
inline constexpr char kGuardKey[] = "gradient_guard";

}  // namespace trireme
