// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/token_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/embedding.h"
#include "trireme/parallel/before_backward.h"
#include "trireme/parallel/tensor/activation_exchange.h"

namespace trireme::detail {
namespace {

void free_memory(const at::Tensor& tensor) {
  tensor.storage().set_data_ptr(at::DataPtr(nullptr, tensor.device()));
}

}  // namespace

void TokenRows::begin_pass(std::int64_t rows) {
  rows_ = rows;
  gathered_.clear();
}

at::Tensor TokenRows::enter(const at::Tensor& x) {
  if (!sequence_) return copy_to_ranks(x, *group_);
  const at::Tensor all = enter_last(x);
  if (all.requires_grad()) gathered_.push_back({all.detach(), x.detach()});
  return all;
}

at::Tensor TokenRows::enter_last(const at::Tensor& x) {
  if (!sequence_) return copy_to_ranks(x, *group_);
  return gather_rows(x, known_rows(), *group_);
}

std::int64_t TokenRows::known_rows() const {
  if (rows_ == 0) {
    throw_error<Error>(
        "sequence parallelism: the first layer that sees a sample must be an Embedding cut by its "
        "vocabulary, by which the number of its tokens is known");
  }
  return rows_;
}

at::Tensor TokenRows::leave(const at::Tensor& x) {
  if (!sequence_) return sum_over_ranks(x, *group_);
  return free_gathered(scatter_row_sums(x, *group_));
}

at::Tensor TokenRows::free_gathered(const at::Tensor& left) {
  const std::vector<Gathered> gathered = std::exchange(gathered_, {});
  if (gathered.empty()) return left;
  for (const Gathered& one : gathered) free_memory(one.all);
  return before_backward({left}, [this, gathered] {
    for (const Gathered& one : gathered) gather_again(one);
  })[0];
}

void TokenRows::gather_again(const Gathered& gathered) const {
  const at::NoGradGuard no_grad;
  at::Storage storage = gathered.all.storage();
  if (storage.data() != nullptr) return;  // a second backward pass through the same graph
  const at::Tensor again = gather_rows(gathered.own, gathered.all.size(0), *group_);
  storage.set_data_ptr(again.storage().set_data_ptr(at::DataPtr(nullptr, again.device())));
}

at::Tensor TokenRows::own(const at::Tensor& values) const {
  const auto [begin, end] = even_part(values.numel(), group_->rank(), group_->size());
  return values.reshape({-1}).narrow(0, begin, end - begin);
}

at::Tensor rows_here(const at::Tensor& indices, const DimPart& part, std::int64_t whole) {
  if (indices.is_cpu() && indices.numel() > 0) {
    const auto least = indices.min().item<std::int64_t>(),
               most = indices.max().item<std::int64_t>();
    TORCH_CHECK_INDEX(least >= 0 && most < whole, "index ", least < 0 ? least : most,
                      " is outside of an embedding of ", whole, " rows");
  }
  const at::Tensor elsewhere = indices.lt(part.begin).logical_or(indices.ge(part.end));
  return (indices - part.begin).masked_fill(elsewhere, ops::kNoRow);
}

}  // namespace trireme::detail
