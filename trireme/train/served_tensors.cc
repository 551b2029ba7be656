// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_tensors.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

#include "trireme/base/error.h"

namespace trireme {
namespace {

at::Tensor tensor_of(std::span<float> values) {
  return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kFloat);
}

std::int64_t width_of(const ps::Worker& worker, std::uint64_t table) {
  const auto& tables = worker.layout().sparse.tables;
  if (table >= tables.size()) {
    throw_error<ShapeError>("table {} of a layout with {} tables", table, tables.size());
  }
  return tables[table].width;
}

// Of a contiguous tensor that stays.
std::span<const std::uint64_t> ids_of(const at::Tensor& ids) {
  if (ids.scalar_type() != at::kLong || ids.dim() != 1) {
    throw_error<ShapeError>("ids {} [{}]: i64 [N] would be right", c10::toString(ids.scalar_type()),
                            fmt::join(ids.sizes(), ", "));
  }
  return {reinterpret_cast<const std::uint64_t*>(ids.data_ptr<std::int64_t>()),
          static_cast<std::size_t>(ids.size(0))};
}

}  // namespace

ps::DenseLayout dense_layout(const ModuleLayout& module, const optim::OptimizerConfig& optimizer) {
  ps::DenseLayout layout;
  layout.size = module.size;
  layout.optimizer = optimizer;
  layout.parameters = optimizer_parameters(module);
  return layout;
}

FlatParameters lay_into(ps::Worker& worker, torch::nn::Module& module,
                        const std::vector<const torch::nn::Module*>& units, at::ScalarType dtype) {
  const at::Tensor weights = tensor_of(worker.weights());
  FlatOptions options{.units = units, .grad = tensor_of(worker.gradients())};
  if (dtype == at::kFloat) {
    options.data = weights;
  } else {
    const ModuleLayout layout = make_layout(module, units);
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < layout.entries.size(); ++i) {
      FlatParameters::view(weights, layout.entries[i]).copy_(layout.parameters[i]);
    }
  }
  return {module, dtype, options};
}

at::Tensor pull_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids) {
  const at::Tensor wanted = ids.contiguous();
  at::Tensor rows = at::empty({ids.numel(), width_of(worker, table)}, at::kFloat);
  const ps::PullRows pull = {table, ids_of(wanted), rows.data_ptr<float>()};
  worker.wait(worker.pull_rows({&pull, 1}));
  return rows;
}

ps::Timestamp push_rows(ps::Worker& worker, std::uint64_t table, const at::Tensor& ids,
                        const at::Tensor& gradients, const ps::PushOptions& options) {
  const at::Tensor pushed = ids.contiguous();
  const std::span<const std::uint64_t> numbers = ids_of(pushed);
  const std::int64_t width = width_of(worker, table);
  if (gradients.scalar_type() != at::kFloat ||
      gradients.sizes() != at::IntArrayRef({ids.size(0), width})) {
    throw_error<ShapeError>("gradients {} [{}] of rows: f32 [{}, {}] would be right",
                            c10::toString(gradients.scalar_type()),
                            fmt::join(gradients.sizes(), ", "), ids.size(0), width);
  }
  const at::Tensor values = gradients.contiguous();
  const ps::PushRows push = {table, numbers, values.data_ptr<float>()};
  return worker.push_rows({&push, 1}, options);
}

}  // namespace trireme
