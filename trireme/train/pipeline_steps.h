// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PipelineSteps: the steps of a model whose layers are cut into stages, each of them a chunk of a
// rank (parallel/pipeline/pipeline_executor.h).
//
// Each stage's gradients are summed like a whole model's, micro-batch by micro-batch in their order
// (trained_part.h); so weights come out with the same bits however the model is cut. The head's
// matrix has a part of its own, since its gradient comes with the forward pass. Where it is the
// embedding's, too, the first stage has a copy, which is not trained: the gradients of the rows
// that it has looked up travel to the last stage, micro-batch by micro-batch, which adds them where
// a model in one piece would, and after an update the new matrix travels back.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "trireme/parallel/pipeline/pipeline_executor.h"
#include "trireme/train/model_chunk.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/pipeline_plan.h"
#include "trireme/train/step_model.h"
#include "trireme/train/trained_part.h"

namespace trireme {

// A stage of this rank.
struct StageChunk {
  int stage = 0;
  ModelChunk* chunk = nullptr;
  TrainedPart* blocks = nullptr;  // all but the head's matrix
  TrainedPart* head = nullptr;    // the last stage's
};

// Not thread-safe. All ranks make one alike and call its functions in the same order.
class PipelineSteps {
 public:
  // All that is given outlives it. numbers: of this pipeline's micro-batches of a step.
  PipelineSteps(const TrainConfig& config, const ParallelGroups& groups, const PipelinePlan& plan,
                std::vector<StageChunk> chunks, std::vector<std::int64_t> numbers);

  // As StepModel has it. on_forward: after each forward pass of a stage, with it. Collective,
  // blocking.
  void compute_gradients(const LoadBatch& load, std::span<double> losses,
                         const std::function<void(ModelChunk&)>& on_forward);
  // Without gradients. The loss, on ranks that have the last stage; 0 elsewhere. Weights are held
  // (hold_weights()).
  double loss(const MicroBatch& batch);
  void hold_weights(bool held);
  // The next step begins on all ranks at once, so that their timelines have a common zero.
  void align_next() { align_ = true; }
  // Weights of the last stage have changed: the first one's copy of its matrix follows. Collective,
  // blocking.
  void refresh_tied();

  // What the last step's instructions took.
  const PipelineRun& last_run() const { return last_run_; }
  std::int64_t bytes_sent() const { return executor_.bytes_sent(); }

 private:
  // The head's gradients of a micro-batch, until those of the rows have come.
  struct TiedGradient {
    at::Tensor matrix;
    double factor = 1;
  };

  std::map<int, Stage> make_stages();
  Stage make_stage(const StageChunk& chunk);
  StageOutput forward(const StageChunk& own, std::int64_t index,
                      const std::vector<at::Tensor>& inputs);
  StageOutput last_forward(const StageChunk& own, std::int64_t index, const MicroBatch& batch,
                           const at::Tensor& hidden);
  bool needs_tokens(const ModelChunk& chunk) const;
  StageChunk* first() { return find(0); }
  StageChunk* last() { return find(static_cast<int>(plan_.stages.size()) - 1); }
  StageChunk* find(int stage);

  const PipelinePlan& plan_;
  const bool tied_;
  std::vector<StageChunk> chunks_;
  const std::vector<std::int64_t> numbers_;
  std::unique_ptr<Group> tied_group_;
  // Of the run under way.
  LoadBatch load_;
  std::function<void(ModelChunk&)> on_forward_;
  std::vector<at::Tensor> looked_up_;           // indices and gradients of the last pass
  std::map<std::int64_t, TiedGradient> heads_;  // by index
  PipelineExecutor executor_;                   // calls into all of the above
  PipelineRun last_run_;
  bool align_ = false;  // the next step
};

}  // namespace trireme
