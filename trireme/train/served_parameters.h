// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ServedParameters: a module whose weights and optimizer are kept by the servers of a job
// (ps/worker.h), as one worker trains it: what Replica and ShardedModel are to the ranks of a
// group.
//
//   ServedParameters served(*net, {.worker = worker_options, .workers = 2, .micro_batches = 4});
//   if (served.worker().rank() == 0) served.worker().wait(served.worker().init());
//   for (served.pull(); served.worker().clock() < steps;) {
//     for (std::int64_t m : served.micro_batches())
//       served.backward(served.forward([&] { return loss(net, samples(m)); }));
//     const auto sum = served.finish_gradients(losses);
//     served.step(learning_rate, optim::clip_scale(sum.norm, 1.0));
//   }
//
// Module and gradients lie in the worker's buffers, which servers of the same host use in place.
//
// Consistency sync: this worker adds up its micro-batches in their tree (micro_batch_plan.h), the
// servers add up the workers' sums in the order of ranks, which is the upper part of the same tree:
// the bits are those of ranks that all_reduce. Ranges leave while the last backward pass still
// runs. All workers see the sum's norm, and the first to ask for the update gets it.
//
// bounded(k) and async: what this worker's micro-batches give is an update of its own, scaled by
// its own norm; the weights that come back hold what others did meanwhile.
//
// Weights come back while the caller does other things: forward() waits for them, and with units
// only for what a unit needs, see wait_for_unit().
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trireme/optim/optimizer_config.h"
#include "trireme/parallel/bucket_queue.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/gradient_hooks.h"
#include "trireme/parallel/gradient_tree.h"
#include "trireme/parallel/step_exchange.h"
#include "trireme/ps/worker.h"
#include "trireme/train/step_model.h"

namespace trireme {

struct ServedOptions {
  ps::WorkerOptions worker;
  // Consistency, backups, range_bytes, first_step, settings; the rest is filled in.
  ps::JobLayout job;
  optim::OptimizerConfig optimizer;
  bool all_decay = false;                            // each parameter; else matrices and embeddings
  int workers = 1;                                   // that the job begins with
  std::int64_t micro_batches = 1;                    // of a step, over all of them
  std::vector<const torch::nn::Module*> units = {};  // as ShardOptions
};

// The job's layout for a module.
ps::JobLayout served_layout(const ModuleLayout& module, const ServedOptions& options);

// Throws ConfigError: workers that cannot share the micro-batches: MicroBatchPlan's, and with
// consistency sync each has to have a power of two of them, or there is one worker.
void check_served_micro_batches(const ps::Consistency& consistency, std::int64_t micro_batches,
                                int workers);

// Not thread-safe. Each worker calls what it likes when it likes; who calls less than the others
// holds them up, as consistency says.
class ServedParameters {
 public:
  // Joins the job, or joins it again. The module, f32 on the CPU, must not be changed afterwards
  // and outlives this. Blocks until all are there. Throws as ps::Worker does, and as above;
  // ShapeError as make_layout() does.
  ServedParameters(torch::nn::Module& module, const ServedOptions& options);
  ~ServedParameters();
  ServedParameters(const ServedParameters&) = delete;
  ServedParameters& operator=(const ServedParameters&) = delete;

  ps::Worker& worker() { return *worker_; }
  const ModuleLayout& layout() const { return flat_->layout(); }
  const std::vector<std::int64_t>& micro_batches() const { return micro_batches_; }

  // The module's weights become those of the servers, as of this worker's step. Blocking.
  void pull();
  // Whole, f32 [layout().size]: waits for what is on its way.
  at::Tensor weights();

  // f's result. Whoever has no units, or whose f asks for none, has all weights before it.
  at::Tensor forward(const std::function<at::Tensor()>& f);
  // Inside of forward(), with units: its weights are there.
  void wait_for_unit(const torch::nn::Module& unit);
  // One call for each of micro_batches(). weight: as Replica::backward().
  void backward(const at::Tensor& loss, double weight = 1);
  // Sync: over all workers, and extras as well. Otherwise of this worker alone. Blocking.
  GradientSum finish_gradients(std::vector<double>& extras);
  // The update, of the mean gradient times scale, and the worker's next step. Does not block: the
  // weights are waited for where they are used.
  void step(double learning_rate, double scale);
  void drop_gradients();

  // Between steps. Weights of the servers become weights(), of the one worker that gives them; what
  // an optimizer knows stays. All workers call it in the same step, which it takes. Blocking.
  // Throws CommError, sync: who gives them was lost.
  void assign(bool gives);
  // Sync: a step without gradients, whose extras, as many on all workers, become their sum. False:
  // that is lost to this worker, who was late, and extras are as they were. Blocking.
  bool exchange(std::vector<double>& extras);
  // communication_us and exposed_us of the last step.
  const StepReport& report() const { return report_; }

 private:
  void begin_backward(double weight);
  void on_gradient(std::size_t entry);
  void launch(const std::vector<std::size_t>& ranges);
  void push(std::size_t range);
  void end_backward();
  GradientSum summed(std::vector<double>& extras);
  void update(const ps::PushOptions& options);
  void end_step();
  void wait(std::size_t range);
  void wait_all();
  int priority_of(std::size_t range) const;
  bool sums() const { return worker_->layout().consistency.sums; }

  // Constant after construction.
  std::vector<std::int64_t> micro_batches_;
  std::unique_ptr<ps::Worker> worker_;
  std::unique_ptr<FlatParameters> flat_;
  std::vector<const torch::nn::Module*> units_;
  std::vector<std::vector<std::size_t>> ranges_of_;  // by unit of the layout: the rest first
  std::int64_t counted_bytes_ = 0;                   // in the ledger

  BucketQueue queue_;
  GradientTree tree_;
  std::vector<ps::Timestamp> under_way_;  // by range; 0: nothing
  std::vector<double> extras_;
  std::size_t position_ = 0;  // micro-batches of the step that have ended
  bool has_old_gradients_ = false;
  bool computing_ = false;
  double weight_ = 0;  // of the step
  StepReport report_;
  double exposed_us_ = 0;
  std::chrono::steady_clock::time_point sent_;
  std::unique_ptr<GradientHooks> hooks_;  // last: calls into all of the above
};

}  // namespace trireme
