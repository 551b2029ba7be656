// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_tree.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "trireme/base/check.h"
#include "trireme/ops/flat_sums.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

void add_gradients(const at::Tensor& to, const at::Tensor& from) {
  if (to.scalar_type() != at::kDouble || from.scalar_type() != at::kDouble) {
    return ops::add_and_clear(to, from);  // which refuses all but f32
  }
  const at::NoGradGuard no_grad;
  to.add_(from);
  from.zero_();
}

at::Tensor fold(const std::vector<at::Tensor>& chain) {
  for (std::size_t i = 1; i < chain.size(); ++i) add_gradients(chain[i], chain[i - 1]);
  return chain.back();
}

GradientTree::GradientTree(std::int64_t size, Group* group, at::ScalarType dtype)
    : GradientTree(size, [group, dtype](std::int64_t elements) {
        return group != nullptr ? shared_zeros(*group, {elements}, dtype)
                                : at::zeros({elements}, at::TensorOptions().dtype(dtype));
      }) {}

void GradientTree::push(at::Tensor gradient) {
  TRIREME_CHECK_EQ(gradient.numel(), size_, "gradient of another size");
  merge(gradient, 0, size_);
  push_merged(std::move(gradient));
}

// A sum of height h merges with one of height h alone: a leaf with one of 0, both with one of 1 ...
std::size_t GradientTree::num_merging() const {
  std::size_t merging = 0;
  for (auto left = partials_.rbegin(); left != partials_.rend(); ++left) {
    if (left->height != static_cast<int>(merging)) break;
    ++merging;
  }
  return merging;
}

void GradientTree::merge(const at::Tensor& leaf, std::int64_t begin, std::int64_t end) {
  std::vector<at::Tensor> links = chain(leaf, begin, end);
  links.resize(num_merging() + 1);
  trireme::fold(links);
}

void GradientTree::push_merged(at::Tensor leaf) {
  const std::size_t merged = num_merging();
  Partial sum{0, std::move(leaf)};
  for (std::size_t i = 0; i < merged; ++i) {
    pool_.push_back(std::move(sum.sum));
    sum = std::move(partials_.back());
    partials_.pop_back();
    ++sum.height;
  }
  partials_.push_back(std::move(sum));
}

// What is left of a number of leaves that is no power of two: the last first, the top of the tree.
at::Tensor GradientTree::take() {
  TRIREME_CHECK_LT(std::size_t{0}, partials_.size(), "leaves of a sum");
  at::Tensor leaf = std::move(partials_.back().sum);
  partials_.pop_back();
  fold(leaf, 0, size_);
  return take(std::move(leaf));
}

at::Tensor GradientTree::fold(const at::Tensor& leaf, std::int64_t begin, std::int64_t end) {
  return trireme::fold(chain(leaf, begin, end));
}

std::vector<at::Tensor> GradientTree::chain(const at::Tensor& leaf, std::int64_t begin,
                                            std::int64_t end) const {
  std::vector<at::Tensor> links{leaf.narrow(0, begin, end - begin)};
  for (auto left = partials_.rbegin(); left != partials_.rend(); ++left) {
    links.push_back(left->sum.narrow(0, begin, end - begin));
  }
  return links;
}

at::Tensor GradientTree::take(at::Tensor leaf) {
  if (partials_.empty()) return leaf;
  pool_.push_back(std::move(leaf));
  at::Tensor sum = std::move(partials_.front().sum);
  for (std::size_t i = 1; i < partials_.size(); ++i) {
    pool_.push_back(std::move(partials_[i].sum));
  }
  partials_.clear();
  return sum;
}

at::Tensor GradientTree::buffer() {
  if (pool_.empty()) {
    const MemoryScope scope(MemoryCategory::kGradients);
    return make_(size_);
  }
  at::Tensor result = std::move(pool_.back());
  pool_.pop_back();
  return result;
}

}  // namespace trireme
