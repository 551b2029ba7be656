// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A plain torch module, and rows of tables, as a ps::Worker takes them.
//
//   ps::JobLayout layout;
//   layout.dense = dense_layout(make_layout(*model), {.name = "adam"});
//   layout.sparse = {.tables = {{.name = "users", .width = 16}}, .slices = 16};
//   ps::Worker worker(job.worker(), layout);
//   FlatParameters flat = lay_into(worker, *model);
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
#include <vector>

#include "trireme/optim/optimizer_config.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/ps/worker.h"

namespace trireme {

// The module's parameters where its layout has them. Matrices and embeddings decay.
ps::DenseLayout dense_layout(const ModuleLayout& module, const optim::OptimizerConfig& optimizer);

// The module, in f32, computes with weights that lie in worker.weights() from here on, with the
// values that they had, and leaves its gradients in worker.gradients(): what is pulled and pushed
// is not copied on the way. units: as make_layout()'s. The worker outlives the module's use. Throws
// ShapeError: the module is not what the worker's layout was made of.
FlatParameters lay_into(ps::Worker& worker, torch::nn::Module& module,
                        const std::vector<const torch::nn::Module*>& units = {});

// Rows of a table, by its number in the layout: f32 [N, width] for ids i64 [N]. An id may come more
// than once. Blocks. Throws ShapeError for other ids or another table, and as Worker::wait() does.
at::Tensor pull_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids);

// Pushes gradients, f32 [N, width], of distinct ids, i64 [N]. Does not block, and needs the tensors
// no longer when it returns. Throws ShapeError.
ps::Timestamp push_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids,
                        const at::Tensor& gradients, const ps::PushOptions& options);

}  // namespace trireme
