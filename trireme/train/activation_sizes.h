// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Bytes of the tensors that a pass of one micro-batch makes on one rank, as the operations keep
// them: what memory_estimate.h adds up for a model in one piece, and stage_memory.h for a stage.
#pragma once

#include <cstdint>

#include "trireme/train/train_config.h"

namespace trireme {

// What tensor parallelism leaves of a model on the rank that has most.
struct LargestPart {
  std::int64_t heads, kv_heads;
  std::int64_t q_width, kv_width, mlp_width, vocab_size;

  LargestPart(const nn::ModelConfig& c, std::int64_t tp);
};

// Tokens of a micro-batch that a rank has.
std::int64_t rows_of(const TrainConfig& config);

// Bytes of the tensors of a step by what they hold.
struct TensorBytes {
  std::int64_t element;
  std::int64_t stream;         // [B, T, C], with sequence parallelism this rank's rows of it
  std::int64_t all_rows;       // of it
  std::int64_t q;              // queries, or what attention makes of them
  std::int64_t kv;             // keys, or values
  std::int64_t hidden;         // [B, T, F]
  std::int64_t moments;        // what a norm keeps of its rows: f32
  std::int64_t log_sums;       // what attention keeps: f32
  std::int64_t norm_partials;  // of the gradients of a norm's parameters
  std::int64_t logits;         // of a block of rows, with their gradient
  std::int64_t head_gradient;  // f32
  std::int64_t whole_step;     // batch and rotary table
  std::int64_t mlp_kept;       // hidden values and those before the nonlinearity
  std::int64_t mlp_gradients;  // before the nonlinearity
  std::int64_t gathered;       // all rows of it where the stream has its own; else nothing
  // What attention across ranks needs while it goes backward, beside what it does on one.
  std::int64_t across = 0;
  std::int64_t mixture_kept = 0;       // with experts, in the place of an MLP's
  std::int64_t mixture_gradients = 0;  // likewise

  explicit TensorBytes(const TrainConfig& config);

  // A block's attention half: the stream and its norm, q, k, v, and what attention gives.
  std::int64_t attention_kept() const { return 2 * stream + moments + 2 * q + 2 * kv + log_sums; }
  std::int64_t block_kept(bool sparse) const {
    return attention_kept() + 2 * stream + moments + (sparse ? mixture_kept : mlp_kept);
  }

 private:
  void add_mixture(const nn::ModelConfig& c, std::int64_t rows, bool again);
};

}  // namespace trireme
