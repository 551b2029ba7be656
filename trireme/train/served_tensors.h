// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A plain torch module, and rows of tables, as a ps::Worker takes them.
//
//   FlatParameters flat(*model, at::kFloat);
//   ps::JobLayout layout;
//   layout.dense = dense_layout(flat, {.name = "adam"});
//   layout.sparse = {.tables = {{.name = "users", .width = 16}}, .slices = 16};
//   ps::Worker worker(job.worker(), layout);
//   lay_into(worker, flat);
//   if (worker.rank() == 0) worker.wait(worker.init());
//   worker.wait(worker.pull());
//   while (const auto batch = next()) {
//     flat.zero_grad();
//     const at::Tensor rows = pull_rows(worker, 0, batch->users).requires_grad_();
//     loss(*model, rows).backward();
//     worker.push({.learning_rate = 0.001, .then_pull = true});
//     push_rows(worker, 0, batch->users, rows.grad(), {.learning_rate = 0.1});
//     worker.wait_all();
//     worker.end_step();
//   }
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/optim/optimizer_config.h"
#include "trireme/ps/worker.h"

namespace trireme {

class FlatParameters;

// The module's parameters where flat has them. Matrices and embeddings decay.
ps::DenseLayout dense_layout(const FlatParameters& flat, const optim::OptimizerConfig& optimizer);

// The module computes with weights that lie in worker.weights() from here on, with the values that
// they had, and leaves its gradients in worker.gradients(): what is pulled and pushed is not copied
// on the way. The worker outlives the module's use. Throws ShapeError: flat is not f32, or is not
// what the worker's layout was made of.
void lay_into(ps::Worker& worker, FlatParameters& flat);

// Rows of a table, by its number in the layout: f32 [N, width] for ids i64 [N]. An id may come more
// than once. Blocks. Throws ShapeError for other ids or another table, and as Worker::wait() does.
at::Tensor pull_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids);

// Pushes gradients, f32 [N, width], of distinct ids, i64 [N]. Does not block, and needs the tensors
// no longer when it returns. Throws ShapeError.
ps::Timestamp push_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids,
                        const at::Tensor& gradients, const ps::PushOptions& options);

}  // namespace trireme
