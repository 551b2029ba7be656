// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientTree: sums any number of gradients in the binary tree of micro_batch_plan.h.
//
// Leaves arrive in order; like a binary counter, two sums of the same height merge at once, so n
// leaves need log2(n) + 1 buffers. The association depends on the leaves' numbers alone.
//
//   GradientTree tree(flat.size());
//   for (...) {
//     flat.exchange_grad(tree.buffer());
//     flat.backward(loss);
//     tree.push(flat.grad());
//   }
//   at::Tensor sum = tree.take();  use(sum);  sum.zero_();  tree.give_back(sum);
//
// Buffers go from hand to hand: a leaf is the memory in which backward summed it. The last leaf may
// be merged in parts, while backward still computes the others: fold() for every range, then
// take(leaf).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace trireme {

class Group;

// to += from, and from = 0: both f32 or both f64, [n], contiguous. In f32 one pass over memory.
// Throws ShapeError for other dtypes.
void add_gradients(const at::Tensor& to, const at::Tensor& from);

// Adds the first to the second, this to the third, and so on; returns the last, which holds the sum
// while the others hold zeros.
at::Tensor fold(const std::vector<at::Tensor>& chain);

// Not thread-safe.
class GradientTree {
 public:
  // Makes zeros [size] for sums to lie in.
  using Make = std::function<at::Tensor(std::int64_t size)>;

  // dtype: f32 or f64. With a group, sums lie where its collectives use them; it must outlive the
  // tree.
  explicit GradientTree(std::int64_t size, Group* group = nullptr,
                        at::ScalarType dtype = at::kFloat);
  GradientTree(std::int64_t size, Make make) : size_(size), make_(std::move(make)) {}

  // Zeros [size]: for gradients to be summed in.
  at::Tensor buffer();
  // Adds a leaf [size], and keeps its memory: a tensor of buffer().
  void push(at::Tensor gradient);
  // The sum of all leaves pushed since the last take(), at least one. The tensor is the caller's
  // until give_back().
  at::Tensor take();
  // push() in parts, on another thread say, as the leaf arrives: merge() once for each element,
  // then push_merged(); nothing else of the tree changes in between.
  void merge(const at::Tensor& leaf, std::int64_t begin, std::int64_t end);
  void push_merged(at::Tensor leaf);
  // Elements [begin, end) of the sum of all leaves pushed and of this one, the last: [end - begin].
  // They are final, and lie in the tensor that take(leaf) will return. Once for each element.
  at::Tensor fold(const at::Tensor& leaf, std::int64_t begin, std::int64_t end);
  // What fold() would fold, for a thread that does so later: before the tensors are used otherwise.
  std::vector<at::Tensor> chain(const at::Tensor& leaf, std::int64_t begin, std::int64_t end) const;
  // The sum, after fold() was called for all elements.
  at::Tensor take(at::Tensor leaf);
  // Returns a tensor of take() to the pool, so that the next step allocates nothing. It must hold
  // zeros, unless the caller overwrites all that buffer() gives.
  void give_back(at::Tensor zeros) { pool_.push_back(std::move(zeros)); }

 private:
  struct Partial {
    int height = 0;
    at::Tensor sum;
  };
  // The partials that a new leaf merges with, the last ones.
  std::size_t num_merging() const;

  std::int64_t size_;
  Make make_;
  std::vector<Partial> partials_;  // heights strictly descending
  std::vector<at::Tensor> pool_;   // zeros
};

}  // namespace trireme
