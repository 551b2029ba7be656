// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The rows of a table that a batch needs, each once: what is pulled from a parameter server, and
// what is pushed back.
//
//   const DistinctRows distinct = distinct_rows(batch.categories);
//   auto embedded = spread(pulled, distinct).requires_grad_();   // pulled: row i for
//   distinct.ids[i] loss(embedded).backward(); push(distinct.ids, row_gradients(embedded.grad(),
//   distinct));
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::examples {

struct DistinctRows {
  at::Tensor ids;  // i64 [N], in the order in which they came first
  at::Tensor
      places;  // i64, of the shape of the ids of the batch: ids[places[i]] is the batch's id i
};

// ids: i64, of any shape. One pass with a hash table, 5 to 20 ns an id.
DistinctRows distinct_rows(const at::Tensor& ids);

// rows [N, W] -> [..., W], where ... is the shape of places.
at::Tensor spread(const at::Tensor& rows, const DistinctRows& distinct);

// The adjoint: gradients, f32 [..., W], summed for each distinct id: [N, W]. Summed in the order of
// the batch, so always to the same bits. Throws ShapeError where the shapes do not fit.
at::Tensor row_gradients(const at::Tensor& gradients, const DistinctRows& distinct);

}  // namespace trireme::examples
