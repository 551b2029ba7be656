// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StepModel: a model as one step trains it (train_step.h), whoever keeps its weights and whoever
// adds up its gradients. RunState: the same with all that a whole run asks of it (trainer.h). There
// are two: ModelState, of the ranks of a group, and ServedState, of the workers of a job with
// parameter servers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/step_exchange.h"
#include "trireme/train/batch_loader.h"
#include "trireme/train/evaluator.h"
#include "trireme/train/fields.h"

namespace trireme {

// Reads a micro-batch of the step by its number; without tokens, which the caller does not need,
// the batch has the shapes alone, and nothing is read.
using LoadBatch = std::function<MicroBatch(std::int64_t micro_batch, bool with_tokens)>;

// What a model does that computes one micro-batch after the other, each whole.
template <class Model>
void compute_in_turn(Model& model, const LoadBatch& load, std::span<double> losses) {
  for (const std::int64_t m : model.micro_batches()) {
    const MicroBatch batch = load(m, true);
    at::Tensor loss;
    {
      const TimedPart part("other forward");
      loss = model.loss(batch);
    }
    // What the operations do not time themselves is autograd's additions of gradients.
    const TimedPart part("other backward");
    model.backward(loss);
    losses[static_cast<std::size_t>(m)] = loss.template item<double>();
  }
}

// Of a step's gradients.
struct GradientSum {
  double micro_batches = 0;  // that it is the sum of
  double norm = 0;           // of their mean
  // Another worker has applied the step already, since this one was late; its scale, 0 where it
  // dropped the gradients. What this one does then only keeps it in step.
  std::optional<double> applied_scale = std::nullopt;
};

// Not thread-safe. All workers call everything in the same order, except as ServedState says.
class StepModel {
 public:
  virtual ~StepModel() = default;

  // Computes the gradients of this worker's micro-batches of a step, which load reads, and writes
  // what it knows of their losses, means over the tokens, into losses, by micro-batch: what several
  // workers know adds up. Blocking. Throws CommError.
  virtual void compute_gradients(const LoadBatch& load, std::span<double> losses) = 0;
  // Ends the step's gradients. extras, as many on all workers, become their sum over the workers
  // whose gradients are summed. Blocking. Throws CommError.
  virtual GradientSum finish_gradients(std::vector<double>& extras) = 0;
  // One update of the weights, and of their average, with the mean gradient times scale. Or none:
  // the gradients are dropped. Blocking.
  virtual void step(double learning_rate, double scale) = 0;
  virtual void drop_gradients() = 0;
  // What the way of the last step's gradients cost this worker.
  virtual StepReport report() = 0;
};

class RunState : public StepModel {
 public:
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // "2 workers (shm)", for the log.
  virtual std::string describe_workers() const = 0;
  // Steps that were done before this process came.
  virtual std::int64_t first_step() const = 0;
  // The sum over all workers, or what comes near it, for the log. Blocking.
  virtual double total(double value) = 0;
  // On rank 0; others may get an empty one. Of the average of the weights where there is one.
  // Blocking.
  virtual Evaluation evaluate(const Evaluator& evaluator) = 0;
  // Rank 0 adds the model's files to its writer, which others leave null, and what is needed beside
  // them to go on to state. Blocking.
  virtual void save(CheckpointWriter* writer, CheckpointState& state) = 0;
  // The next step's timeline is wanted; and after it, on all ranks: rank 0 writes it to the file,
  // and logs what it says. Nothing without a pipeline. Blocking. Throws CheckpointError.
  virtual void trace_next_step() {}
  virtual void write_trace(const std::string& /*file*/) {}
  // The last call. Blocking.
  virtual void finish() = 0;
  // What is worth a line in summary.json, on rank 0, before finish().
  virtual Fields facts() { return {}; }
};

// Where a run begins.
struct StartPoint {
  std::optional<Checkpoint> resumed;  // goes on from there
  std::optional<Checkpoint> weights;  // takes the weights alone
};

}  // namespace trireme
