// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TokenRows: where the activations of a tensor-parallel model are whole and where each rank has its
// rows of them, for one pass after the other.
//
//   tokens | embedding -> leave | norm | enter -> q k v .. out -> leave | norm | enter -> ..
//            parts                rows   whole                           rows   whole
//
// Without sequence parallelism every rank has all rows everywhere, and enter and leave are the
// points where gradients and values are summed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/tensor/tensor_plan.h"

namespace trireme::detail {

// Not thread-safe. Differentiable functions that are collective over the group and block, forward
// and backward. Throw CommError.
class TokenRows {
 public:
  TokenRows(std::unique_ptr<Group> group, bool sequence)
      : group_(std::move(group)), sequence_(sequence) {}

  Group& group() const { return *group_; }
  bool sequence() const { return sequence_; }
  // All that there are in this pass, with sequence. Throws Error before the first.
  std::int64_t known_rows() const;

  // The samples that follow have so many tokens. Until then it is that of the pass before.
  void begin_pass(std::int64_t rows);
  // To a matrix cut by its outputs: x, or all rows [N, C] of it. What is gathered is freed when the
  // next leave() returns and gathered again in the backward pass, so that it is there while
  // gradients are computed from it and at no other time.
  at::Tensor enter(const at::Tensor& x);
  // To the last matrix of the model, whose gradients need nothing gathered: as enter(), not freed.
  at::Tensor enter_last(const at::Tensor& x);
  // From a matrix cut by its inputs, or an embedding cut by its rows: the sum over ranks, or this
  // rank's rows of it.
  at::Tensor leave(const at::Tensor& x);
  // What leave() does with what was gathered; left: what it would return.
  at::Tensor free_gathered(const at::Tensor& left);
  // This rank's of values [N] that all ranks have, of any shape.
  at::Tensor own(const at::Tensor& values) const;

 private:
  // All rows, and those that this rank had before.
  struct Gathered {
    at::Tensor all;
    at::Tensor own;
  };
  void gather_again(const Gathered& gathered) const;

  const std::unique_ptr<Group> group_;
  const bool sequence_;
  std::int64_t rows_ = 0;
  std::vector<Gathered> gathered_;  // since the last leave(), of a pass with gradients
};

// Of the indices, those of the part as indices into it, and ops::kNoRow for the others. Throws
// c10::IndexError for an index outside of [0, whole), on the CPU.
at::Tensor rows_here(const at::Tensor& indices, const DimPart& part, std::int64_t whole);

}  // namespace trireme::detail
