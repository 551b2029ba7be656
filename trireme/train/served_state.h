// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ServedState: the weights of a run and all that an update needs, kept by the servers of a job
// (ps/worker.h), and how they go to and from checkpoints. These are the same files as ModelState's:
// a run may go on with servers or without.
//
// Rank 0 gives the servers their first values, evaluates and saves; the others go on meanwhile, as
// far as consistency lets them. It keeps the average of the weights, too, as it sees them after its
// steps. A worker that joins a job that goes on begins in the others' step.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/nn/transformer.h"
#include "trireme/optim/weight_average.h"
#include "trireme/ps/worker.h"
#include "trireme/train/served_parameters.h"
#include "trireme/train/step_model.h"
#include "trireme/train/train_config.h"

namespace trireme {

// Who this worker is.
struct ServedWorker {
  ps::WorkerOptions worker;
  int workers = 1;
  int servers = 1;
};

// Not thread-safe.
class ServedState final : public RunState {
 public:
  // config.model resolved. Joins the job. Blocking. Throws CheckpointError as load_weights() and
  // load_optimizer() do; what ServedParameters throws.
  ServedState(const TrainConfig& config, const ServedWorker& job, const StartPoint& start);

  const std::vector<std::int64_t>& micro_batches() const { return parameters_.micro_batches(); }
  at::Tensor loss(const MicroBatch& batch);
  void backward(const at::Tensor& loss) { parameters_.backward(loss); }
  void compute_gradients(const LoadBatch& load, std::span<double> losses) override {
    compute_in_turn(*this, load, losses);
  }
  GradientSum finish_gradients(std::vector<double>& extras) override;
  void step(double learning_rate, double scale) override;
  void drop_gradients() override { parameters_.drop_gradients(); }
  StepReport report() override;

  int rank() const override { return job_.worker.rank; }
  int size() const override { return job_.workers; }
  std::string describe_workers() const override;
  std::int64_t first_step() const override { return first_step_; }
  // As if all workers had this one's.
  double total(double value) override { return value * job_.workers; }
  Evaluation evaluate(const Evaluator& evaluator) override;
  void save(CheckpointWriter* writer, CheckpointState& state) override;
  void finish() override;
  Fields facts() override;

  ps::Worker& worker() { return parameters_.worker(); }

 private:
  void give_first_values(const StartPoint& start);
  void start_average(const StartPoint& start);
  void update_average();
  void swap_average();
  std::array<optim::PieceUpdate, 1> pieces() { return {{{parameters_.weights()}}}; }

  const ServedWorker job_;
  const std::string optimizer_name_;
  const std::string consistency_;
  nn::Transformer model_;
  ServedParameters parameters_;
  std::unique_ptr<Group> alone_;  // evaluates in it
  std::int64_t first_step_ = 0;
  const double average_decay_;
  std::optional<optim::WeightAverage> average_;  // rank 0's
  bool average_is_due_ = false;                  // the weights of a step more have come, or will
  std::vector<double> waited_for_us_;            // by rank, up to the last report()
};

}  // namespace trireme
