// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/pipeline_steps.h"

#include <ATen/core/grad_mode.h>

#include <utility>

#include "trireme/comm/group.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/taken_gradients.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

constexpr int kMatrixTag = 1;

}  // namespace

PipelineSteps::PipelineSteps(const TrainConfig& config, const ParallelGroups& groups,
                             const PipelinePlan& plan, std::vector<StageChunk> chunks,
                             std::vector<std::int64_t> numbers)
    : plan_(plan),
      tied_(config.model.tied()),
      chunks_(std::move(chunks)),
      numbers_(std::move(numbers)),
      tied_group_(groups.pipeline()->duplicate("tied")),
      executor_(*groups.pipeline(), make_stages()) {
  // A copy of what the last stage trains.
  if (tied_ && first() != nullptr) {
    const MemoryScope scope(MemoryCategory::kWeights);
    at::Tensor matrix = first()->chunk->model().token_embedding_weight();
    matrix.set_data(matrix.to(config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat));
  }
  refresh_tied();
}

std::map<int, Stage> PipelineSteps::make_stages() {
  std::map<int, Stage> stages;
  for (const StageChunk& chunk : chunks_) stages.emplace(chunk.stage, make_stage(chunk));
  return stages;
}

Stage PipelineSteps::make_stage(const StageChunk& own) {
  const bool looks_up = tied_ && own.chunk->model().part().embedding;
  Stage stage;
  stage.forward = [this, own](std::int64_t index, const std::vector<at::Tensor>& inputs) {
    return forward(own, index, inputs);
  };
  stage.run_pass = [this, own, looks_up](std::int64_t, StagePass pass,
                                         const std::function<void()>& f) {
    std::optional<ops::TakenGradients> taken;
    if (looks_up && pass != StagePass::kWeights) {
      taken.emplace(ops::TakenGradients::Takers{
          .rows = [this, table = own.chunk->model().token_embedding_weight()](
                      const at::Tensor& weight, const at::Tensor& indices,
                      const at::Tensor& gradients) {
            if (!weight.is_same(table)) return false;
            looked_up_ = {indices, gradients};
            return true;
          }});
    }
    pass == StagePass::kInputs ? f() : own.blocks->sharded().add(1, f);
  };
  // Gradients are added to the head's matrix until the run ends, where it is the embedding's.
  stage.hold_weights = [own, keeps_head = tied_](bool held) {
    own.blocks->sharded().hold_weights(held);
    if (own.head != nullptr && (held || !keeps_head)) own.head->sharded().hold_weights(held);
  };
  if (looks_up) {
    stage.take_tied = [this](std::int64_t) { return std::exchange(looked_up_, {}); };
  }
  if (tied_ && own.head != nullptr) {
    stage.add_tied = [this, own](std::int64_t index, const std::vector<at::Tensor>& rows) {
      const auto head = heads_.extract(index);
      const at::Tensor weight = own.chunk->model().head_weight();
      own.head->sharded().add(1, [&] {
        ops::add_taken_matrix(weight, head.mapped().matrix, head.mapped().factor);
        ops::add_taken_rows(weight, rows[0], rows[1]);
      });
    };
  }
  return stage;
}

bool PipelineSteps::needs_tokens(const ModelChunk& chunk) const {
  return chunk.model().part().embedding || chunk.model().part().head;
}

StageOutput PipelineSteps::forward(const StageChunk& own, std::int64_t index,
                                   const std::vector<at::Tensor>& inputs) {
  const MicroBatch batch =
      load_(numbers_.at(static_cast<std::size_t>(index)), needs_tokens(*own.chunk));
  const at::Tensor hidden = inputs.empty() ? at::Tensor() : inputs[0];
  if (own.chunk->model().part().head) return last_forward(own, index, batch, hidden);
  nn::PartOutput part = own.chunk->hidden(batch, hidden);
  if (on_forward_) on_forward_(*own.chunk);
  return {.activations = {part.hidden}, .loss = part.routing_loss};
}

// The head's gradient is added, or with tied matrices kept for when that of the rows has come.
StageOutput PipelineSteps::last_forward(const StageChunk& own, std::int64_t index,
                                        const MicroBatch& batch, const at::Tensor& hidden) {
  at::Tensor gradient;
  const ops::TakenGradients taken(
      {.loss_matrix = [&](const at::Tensor& matrix) { gradient = matrix; }});
  const at::Tensor loss = own.chunk->loss(batch, hidden);
  if (on_forward_) on_forward_(*own.chunk);
  if (gradient.defined()) {
    const double factor = own.chunk->share();
    if (tied_) {
      heads_[index] = {gradient, factor};
    } else {
      own.head->sharded().add(
          1, [&] { ops::add_taken_matrix(own.chunk->model().head_weight(), gradient, factor); });
    }
  }
  return {.loss = loss};
}

void PipelineSteps::compute_gradients(const LoadBatch& load, std::span<double> losses,
                                      const std::function<void(ModelChunk&)>& on_forward) {
  load_ = load;
  on_forward_ = on_forward;
  if (std::exchange(align_, false)) tied_group_->barrier();
  last_run_ = executor_.run(plan_.schedule);
  for (std::size_t i = 0; i < numbers_.size(); ++i) {
    losses[static_cast<std::size_t>(numbers_[i])] = last_run_.losses[i];
  }
  hold_weights(false);
  load_ = {};
  on_forward_ = {};
}

double PipelineSteps::loss(const MicroBatch& batch) {
  load_ = [&](std::int64_t, bool) { return batch; };
  const double loss = executor_.run(plan_.evaluation).losses[0];
  load_ = {};
  return loss;
}

void PipelineSteps::hold_weights(bool held) {
  for (const StageChunk& own : chunks_) {
    own.blocks->sharded().hold_weights(held);
    if (own.head != nullptr) own.head->sharded().hold_weights(held);
  }
}

StageChunk* PipelineSteps::find(int stage) {
  for (StageChunk& own : chunks_) {
    if (own.stage == stage) return &own;
  }
  return nullptr;
}

void PipelineSteps::refresh_tied() {
  if (!tied_) return;
  const at::NoGradGuard no_grad;
  StageChunk* const here = first();
  StageChunk* const there = last();
  const std::vector<int>& ranks = plan_.schedule.rank_of_stage;
  at::Tensor copy;
  if (here != nullptr) copy = here->chunk->model().token_embedding_weight();
  if (there != nullptr) {
    there->head->sharded().hold_weights(true);
    const at::Tensor matrix = there->chunk->model().head_weight();
    if (here != nullptr) {
      copy.copy_(matrix);
    } else {
      tied_group_->send(buffer_of_tensor(matrix), ranks.front(), kMatrixTag);
    }
    there->head->sharded().hold_weights(false);
  } else if (here != nullptr) {
    tied_group_->recv(buffer_of_tensor(copy), ranks.back(), kMatrixTag);
  }
}

}  // namespace trireme
