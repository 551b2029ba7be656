// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientTree: sums a power of two of gradients in a balanced binary tree, in f32.
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
// Buffers go from hand to hand: a leaf is the memory in which backward summed it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace trireme {

class Group;

// Not thread-safe.
class GradientTree {
 public:
  // With a group, sums lie where its all_reduce uses them; it must outlive the tree.
  explicit GradientTree(std::int64_t size, Group* group = nullptr) : size_(size), group_(group) {}

  // Zeros, f32 [size]: for gradients to be summed in.
  at::Tensor buffer();
  // Adds a leaf, f32 [size], and keeps its memory: a tensor of buffer().
  void push(at::Tensor gradient);
  // The sum of all leaves pushed since the last take(), f32 [size]; their number must be a power of
  // two. The tensor is the caller's until give_back().
  at::Tensor take();
  // Returns a tensor of take() to the pool, so that the next step allocates nothing. It must hold
  // zeros.
  void give_back(at::Tensor zeros) { pool_.push_back(std::move(zeros)); }

 private:
  struct Partial {
    int height = 0;
    at::Tensor sum;
  };
  std::int64_t size_;
  Group* group_;
  std::vector<Partial> partials_;  // heights strictly descending
  std::vector<at::Tensor> pool_;   // zeros
};

}  // namespace trireme
