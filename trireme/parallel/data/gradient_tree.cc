// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/data/gradient_tree.h"

#include <ATen/ops/zeros.h>

#include <utility>

#include "trireme/base/check.h"
#include "trireme/ops/flat_sums.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

void GradientTree::push(at::Tensor gradient) {
  TRIREME_CHECK_EQ(gradient.numel(), size_, "gradient of another size");
  partials_.push_back({0, std::move(gradient)});
  while (partials_.size() >= 2 &&
         partials_[partials_.size() - 2].height == partials_.back().height) {
    Partial right = std::move(partials_.back());
    partials_.pop_back();
    ops::add_and_clear(partials_.back().sum, right.sum);
    ++partials_.back().height;
    pool_.push_back(std::move(right.sum));
  }
}

at::Tensor GradientTree::take() {
  TRIREME_CHECK_EQ(partials_.size(), std::size_t{1}, "the number of leaves is a power of two");
  at::Tensor sum = std::move(partials_.back().sum);
  partials_.clear();
  return sum;
}

at::Tensor GradientTree::buffer() {
  if (pool_.empty()) {
    const MemoryScope scope(MemoryCategory::kGradients);
    return group_ != nullptr ? shared_zeros(*group_, {size_}, at::kFloat)
                             : at::zeros({size_}, at::TensorOptions().dtype(at::kFloat));
  }
  at::Tensor result = std::move(pool_.back());
  pool_.pop_back();
  return result;
}

}  // namespace trireme
